package preflight

// A Mode is what is done about the findings of a topic.
type Mode uint8

// The modes.
const (
	Off       Mode = iota // nothing: the detectors do not look
	WarnOnly              // every finding is a warning
	BlockSure             // what can certainly never train is not sent; every other finding is a warning
	BlockAll              // every finding keeps the document from being sent
)

// A Policy decides on the findings. Its zero value sends everything.
type Policy struct {
	Documents Mode // of the topics Format and Charset: Off, WarnOnly or BlockSure
	Secrets   Mode
	// Transcoded is set if texts are sent as UTF-8, whatever their encoding is.
	Transcoded bool
}

// Looks reports whether the policy needs a report.
func (p Policy) Looks() bool { return p.Documents != Off || p.Secrets != Off }

// Judge returns why the document must not be sent, or else the warnings about it.
func (p Policy) Judge(r Report) (blocked string, warnings []string) {
	for _, f := range r.Findings {
		mode := p.Documents
		if f.Topic == Secret {
			mode = p.Secrets
		}
		switch {
		case mode == Off, f.Topic == Charset && p.Transcoded:
		case mode == BlockAll, mode == BlockSure && f.Level == Block:
			return "it " + f.Text, nil
		default:
			warnings = append(warnings, "it "+f.Text)
		}
	}
	return "", warnings
}
