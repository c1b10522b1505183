// Package config turns a YAML file, the environment and command-line flags
// into one validated [Config].
//
// It is pure: [Parse] reads no file, no variable and no clock of its own; the
// caller passes the file's bytes, the environment and the flags that were set.
// Every setting is defined once, in the table that [Settings] returns: its
// flag, its environment variable, its place in the file, its default and its
// help text. A flag wins over the environment, the environment over the file,
// and the file over the default.
//
// Parse reports all mistakes at once, each as a [Problem] with its place and
// what to write instead. It never guesses: unknown keys, unknown KBSYNC_
// variables and duplicate keys are errors.
//
// The package does not look at the world. Whether a root exists, a token is
// accepted or a pattern matches anything is for others to find out.
package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Config is everything a command needs to know, complete and validated.
// Every path in it is absolute if [Input.Dir] was.
type Config struct {
	// Path is the config file's path as the user gave it, empty without one.
	Path string

	API API
	// State is the path of the SQLite file that holds the inventory.
	State string
	Log   Log
	// Listen is the host:port of the status page, empty for none. The host is
	// never empty: an address given as ":9090" is one on the loopback.
	Listen string
	// ListenTokenFile is the path of a file that holds the token which the
	// listener asks for; empty for none.
	ListenTokenFile string
	// Period, if not zero, is the pause between two passes of a watch that
	// takes no notice of events.
	Period time.Duration
	// TouchFile, ErrorFile and MetricsFile are paths of files that tell of the
	// passes; empty for none.
	TouchFile   string
	ErrorFile   string
	MetricsFile string
	// ShutdownGrace is how long a stopping command waits for the answers of
	// what is sealed.
	ShutdownGrace time.Duration
	// LockTimeout is how long to wait for a sync that another process works;
	// zero means not to wait.
	LockTimeout time.Duration
	// Transfers is the number of parallel uploads, Checkers that of files
	// hashed at once. Both are at least one.
	Transfers int
	Checkers  int
	// BWLimit is the most bytes a second that all uploads together send,
	// MaxTransfer the bytes and MaxDuration the time after which a pass stops
	// cleanly. Zero means no limit.
	BWLimit     Size
	MaxTransfer Size
	MaxDuration time.Duration
	Poll        Poll
	// TrainTimeout is how long a source may train before it counts as stuck;
	// zero means for ever.
	TrainTimeout time.Duration

	// Syncs are the syncs of the file in its order, then those made from a
	// ROOT argument.
	Syncs []Sync
	// Selected names the syncs that [Input.Args] chose, in the order of Syncs;
	// without arguments it names all of them.
	Selected []string

	// Warnings are what is allowed but probably not meant.
	Warnings []Problem

	configPath string // absolute
}

// API says how to reach ReplyCX.
type API struct {
	// URL is the API's origin and, behind a gateway, a path prefix; without a
	// slash at its end. It is https, or http on the loopback, or anywhere if AllowInsecure is set.
	URL string
	// AllowInsecure permits plain http to other machines.
	AllowInsecure bool
	// Token is the value of REPLYCX_TOKEN. It wins over TokenFile and
	// TokenCommand, of which at most one is set. All three may be empty.
	Token Secret
	// TokenFile is the path of a file that holds the token.
	TokenFile string
	// TokenCommand is a program and its arguments, run without a shell, whose
	// output is the token.
	TokenCommand []string
	// AccountID is the account for account-scoped operations; zero leaves it
	// to the token's claim.
	AccountID int64
	// Rate is the most requests a second; zero means no limit.
	Rate float64
	// CACert is the path of a PEM file with further certificate authorities.
	CACert string
}

// Local reports whether the API is served on this machine, as an emulator is.
func (a API) Local() bool {
	u, err := url.Parse(a.URL)
	return err == nil && loopback(u.Hostname())
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// Poll is the range of the pauses between two questions for one source's
// training status. 0 < Min <= Max.
type Poll struct {
	Min, Max time.Duration
}

// Sync is a root, the knowledge base it is kept true in, and the rules.
type Sync struct {
	// Name is unique among the syncs, whatever the case of its letters, and
	// fit to be a part of a file name.
	Name          string
	Root          Root
	KnowledgeBase int64

	// Include and Exclude are valid doublestar patterns; without Include the
	// usual document types are meant. FilterFrom are paths of filter files.
	Include    []string
	Exclude    []string
	FilterFrom []string
	// MaxSize is the size above which a document is skipped; zero for none.
	MaxSize Size

	Batch Batch
	// Rescan is the pause between two full listings while watching; zero
	// means only at the start and when events were lost.
	Rescan time.Duration
	// Settle is the quiet time after which a file counts as written.
	Settle time.Duration
	// MinReupload is how long a changed document waits after its last upload
	// while watching.
	MinReupload time.Duration

	OnUncertain string // Resend or Hold
	OnRefused   string // Split or Hold
	Duplicates  string // Share or Each
	OnRename    string // Share or Upload
	UploadName  string // Flat, Key or Base
	SendAs      string // File or Text

	// MaxDelete is how many removals a pass may find before it halts.
	MaxDelete MaxDelete
	// MaxUploads is how many uploads a pass may plan before it halts; zero
	// means any number.
	MaxUploads int
	// AllowEmpty lets a root that lists nothing remove what was known.
	AllowEmpty bool
	// CopyLinks follows symbolic links that stay inside the root.
	CopyLinks bool
	// Notifications is the URL of a subscription to a bucket's events.
	Notifications string

	// HeartbeatURL is fetched after each pass that ended well; empty for none.
	HeartbeatURL string
	Hooks        Hooks
}

// Hooks are told of what happens to a sync. Each is empty for none, the URL of
// a webhook, or a program and its arguments; see [WebhookURL].
type Hooks struct {
	OnSuccess []string
	OnFailure []string
	OnOrphan  []string
	Timeout   time.Duration // of one call; above zero
}

// WebhookURL returns the URL of a hook that is a webhook, and "" of one that is
// a program or none.
func WebhookURL(hook []string) string {
	if len(hook) == 1 && (strings.HasPrefix(hook[0], "https://") || strings.HasPrefix(hook[0], "http://")) {
		return hook[0]
	}
	return ""
}

// Batch limits one multipart request.
type Batch struct {
	Documents int           // at least one
	Bytes     Size          // at least one; a larger document goes alone
	Wait      time.Duration // how long a batch waits to be filled
}

// The values of a sync's choices.
const (
	Resend = "resend"
	Hold   = "hold"
	Split  = "split"
	Share  = "share"
	Each   = "each"
	Upload = "upload"
	Flat   = "flat"
	Key    = "key"
	Base   = "base"
	File   = "file"
	Text   = "text"
)

// Sync finds a sync by its name.
func (c *Config) Sync(name string) (Sync, bool) {
	i := slices.IndexFunc(c.Syncs, func(s Sync) bool { return s.Name == name })
	if i < 0 {
		return Sync{}, false
	}
	return c.Syncs[i], true
}

// Private lists the files of kbsync's own that must never be uploaded, wherever
// they lie: the state, the config file, the tokens' files and those that tell
// of the passes. Paths that begin
// with the state's and a dash or a dot belong to it as well.
func (c *Config) Private() []string {
	var out []string
	for _, p := range []string{c.State, c.configPath, c.API.TokenFile, c.ListenTokenFile, c.TouchFile, c.ErrorFile, c.MetricsFile} {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

// Input is what [Parse] makes a Config of.
type Input struct {
	// Path is the config file's path as the user gave it, and File its bytes.
	// An empty Path means that there is no file.
	Path string
	File []byte
	// Dir is the absolute working directory: what a relative Path, and paths
	// in flags, arguments and variables are relative to.
	Dir string
	// Environ is the environment in the form of os.Environ. A variable with
	// an empty value counts as not set.
	Environ []string
	// Flags holds the values of those flags that were set, by name without
	// the dashes; a boolean flag has the value "true" or "false". Names that
	// are not in the table are ignored.
	Flags map[string][]string
	// OtherFlags names further flags of the program, so that their variables
	// are known too. Parse ignores their values.
	OtherFlags []string
	// Args are NAME and ROOT arguments: the name of a sync in the file
	// selects it, the root of one as well, and another root becomes a sync of
	// its own, see [AdHocName].
	Args []string
}

// Problem is one mistake, or one thing to warn of, and its place.
type Problem struct {
	// File, Line and Column (both from 1) are set for what is in the file.
	File         string
	Line, Column int
	// Name is the key as it stands in the file (syncs[0].batch.bytes), the
	// flag with its dashes, or the environment variable. It may be empty.
	Name string
	// Text says what is wrong and what to write instead.
	Text string
}

// String gives the problem in one line: place, name and text.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	if p.Name != "" {
		b.WriteString(p.Name + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Errors are all mistakes that [Parse] found, those of the file first and in
// its order.
type Errors []Problem

// Error gives one problem a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
