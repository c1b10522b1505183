package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// An output is where everything goes that a command prints. The rules:
//
//   - Results go to stdout: as text for people, as JSON with --json. Everything else is the log and goes to stderr.
//   - -q leaves only warnings, errors and results that were asked for by --json; -v logs each document; -vv each request.
//   - A terminal on stderr gets progress bars, anything else (and TERM=dumb) log lines. Nothing is coloured, so that
//     NO_COLOR has nothing to turn off.
//   - What comes from elsewhere (names, messages of a server) is printed by printable or quoted, so that it cannot move
//     the cursor of a terminal or fake a line.
//   - A secret given to hide appears nowhere: it is replaced on the way out, whoever wrote it.
type output struct {
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // stderr can show bars

	format  string // text, json, csv
	quiet   bool
	verbose int
	level   slog.LevelVar
	log     *slog.Logger
	settled bool // the log keeps its form, for goroutines use it

	hidden *redactor
	bars   *divertible // stderr itself, or the bars above which lines are written
}

func newOutput(stdout, stderr io.Writer, env []string) *output {
	hidden := &redactor{}
	bars := &divertible{w: stderr}
	o := &output{
		stdout:   hidden.writer(stdout),
		stderr:   hidden.writer(bars),
		terminal: isTerminal(stderr) && variable(env, "TERM") != "dumb",
		format:   formatText,
		hidden:   hidden,
		bars:     bars,
	}
	o.logAs(formatText)
	return o
}

// The forms of results.
const (
	formatText = "text"
	formatJSON = "json"
	formatCSV  = "csv"
)

// logAs sets the form of the log, text or json, before others use it.
func (o *output) logAs(format string) {
	if o.settled {
		return
	}
	options := &slog.HandlerOptions{Level: &o.level, ReplaceAttr: logAttr}
	if format == formatJSON {
		o.log = slog.New(slog.NewJSONHandler(o.stderr, options))
		return
	}
	o.log = slog.New(slog.NewTextHandler(o.stderr, options))
}

// logAttr shortens durations. The handlers quote what does not print by themselves.
func logAttr(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(shortDuration(a.Value.Duration()))
	}
	return a
}

// result prints a command's result: v with --json, otherwise what text writes.
func (o *output) result(v any, text func(w io.Writer)) error {
	var b bytes.Buffer
	if o.format == formatJSON {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return err
		}
	} else {
		if o.quiet {
			return nil
		}
		text(&b)
	}
	_, err := o.stdout.Write(b.Bytes())
	return err
}

// note tells a person what happens, where a log line would be too dry: on stderr, and not with -q.
func (o *output) note(format string, args ...any) {
	if !o.quiet {
		fmt.Fprintf(o.stderr, format+"\n", args...)
	}
}

// fail prints the error that ends the program.
func (o *output) fail(err error, code int) {
	text := err.Error()
	if text == "" {
		return
	}
	if code == exitInterrupted && !is[*plainError](err) {
		text = "interrupted; what was left is done by the next run"
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(o.stderr, "kbsync: %s\n", printable(line))
	}
}

// table writes rows in columns; the first row is their names.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = t.Flush()
}

// printable makes foreign text fit for one line of a terminal: what does not print is shown as Go would write it.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unprintable(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

// unprintable tells runes that act on a terminal or hide in a text: control and format characters (the bidirectional
// ones among them), and line ends. The joiner of emoji is harmless.
func unprintable(r rune) bool {
	const zeroWidthJoiner, softHyphen = '\u200d', '\u00ad'
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		unicode.Is(unicode.Cf, r) && r != zeroWidthJoiner && r != softHyphen
}

// quoted is printable in quotation marks, for names inside of sentences.
func quoted(text string) string { return `"` + printable(text) + `"` }

// count gives a number with its noun: 1 document, 2 documents.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func shortDuration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// moment gives a time to the second, and a dash for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func isTerminalInput(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// variable returns the last value of an environment variable.
func variable(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if key, value, _ := strings.Cut(e, "="); key == name {
			return value
		}
	}
	return ""
}

// A divertible writer is stderr, or for the time that bars are shown the bars' own way to write lines above them.
type divertible struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *divertible) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.Write(p)
}

// divert sends what is written from now on to w, until the returned function is called.
func (d *divertible) divert(w io.Writer) (back func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.w
	d.w = w
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.w = before
	}
}

// A redactor replaces secrets in all that its writers are given. A secret is found within one Write alone: whoever writes
// here writes whole lines.
type redactor struct {
	mu      sync.RWMutex
	secrets [][]byte
}

// hide adds a secret. Very short ones are not hidden, for they would turn everything into blanks.
func (r *redactor) hide(secret string) {
	if len(secret) < 6 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	forms := []string{secret, inside(strconv.Quote(secret))}
	if q, err := json.Marshal(secret); err == nil {
		forms = append(forms, inside(string(q)))
	}
	for _, f := range forms {
		if !slices.ContainsFunc(r.secrets, func(s []byte) bool { return string(s) == f }) {
			r.secrets = append(r.secrets, []byte(f))
		}
	}
}

// inside takes the quotation marks off.
func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

func (r *redactor) writer(w io.Writer) io.Writer { return &redacting{r, w} }

type redacting struct {
	r *redactor
	w io.Writer
}

func (w *redacting) Write(p []byte) (int, error) {
	w.r.mu.RLock()
	clean := p
	for _, s := range w.r.secrets {
		clean = bytes.ReplaceAll(clean, s, []byte("[redacted]"))
	}
	w.r.mu.RUnlock()
	if _, err := w.w.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}
