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

// An output receives everything that a command prints. The rules:
//
//   - Results go to stdout, as text or with --json as JSON. The log goes to stderr.
//   - -q keeps only warnings, errors and JSON results; -v logs each document; -vv logs each request.
//   - A terminal on stderr shows progress bars. Any other stderr, or TERM=dumb, gets log lines. Output has no colours, so
//     NO_COLOR changes nothing.
//   - printable and quoted escape foreign text (file names, messages of a server), so that it cannot move the cursor of a
//     terminal or forge a line.
//   - Both streams replace each secret that hide was given.
type output struct {
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // stderr can show bars

	format   string // text, json, csv
	quiet    bool
	verbose  int
	level    slog.LevelVar
	log      *slog.Logger
	logFixed bool // logAs does nothing, because goroutines use the log

	hidden *redactor
	bars   *divertible // stderr, or the bars, which print lines above themselves
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

// The formats of results.
const (
	formatText = "text"
	formatJSON = "json"
	formatCSV  = "csv"
)

// logAs sets the format of the log, text or json. It must not run while another goroutine uses the log.
func (o *output) logAs(format string) {
	if o.logFixed {
		return
	}
	options := &slog.HandlerOptions{Level: &o.level, ReplaceAttr: logAttr}
	if format == formatJSON {
		o.log = slog.New(slog.NewJSONHandler(o.stderr, options))
		return
	}
	o.log = slog.New(slog.NewTextHandler(o.stderr, options))
}

// logAttr shortens durations. The handlers themselves quote unprintable text.
func logAttr(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(shortDuration(a.Value.Duration()))
	}
	return a
}

// result prints the result of a command: v with --json, otherwise the output of text.
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

// note prints a sentence for a person on stderr, unless -q is set.
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
		text = "interrupted; the next run does the remaining work"
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(o.stderr, "kbsync: %s\n", printable(line))
	}
}

// table writes rows in aligned columns. The first row holds the names of the columns.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = t.Flush()
}

// printable makes foreign text safe for one line of a terminal. It escapes unprintable characters as Go does.
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

// unprintable reports whether a rune can control a terminal or hide in a text: control and format characters, including
// the bidirectional ones, and line ends. The joiner of emoji is harmless.
func unprintable(r rune) bool {
	const zeroWidthJoiner, softHyphen = '\u200d', '\u00ad'
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		unicode.Is(unicode.Cf, r) && r != zeroWidthJoiner && r != softHyphen
}

// quoted is printable in quotation marks, for names in sentences.
func quoted(text string) string { return `"` + printable(text) + `"` }

// count returns a number with its noun: 1 document, 2 documents.
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

// moment formats a time to the second, and the zero time as a dash.
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

// A divertible writer is stderr. While progress bars are shown, divert sends its output to the bars.
type divertible struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *divertible) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.Write(p)
}

// divert sends all output to w until the returned function is called.
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

// A redactor replaces secrets in the output of its writers. It finds a secret only within one Write, so callers must
// write whole lines.
type redactor struct {
	mu      sync.RWMutex
	secrets [][]byte
}

// hide adds a secret. It ignores secrets under 6 bytes, because they would match ordinary text.
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

// inside removes the quotation marks.
func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

func (r *redactor) writer(w io.Writer) io.Writer { return &redactingWriter{r, w} }

type redactingWriter struct {
	r *redactor
	w io.Writer
}

func (w *redactingWriter) Write(p []byte) (int, error) {
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
