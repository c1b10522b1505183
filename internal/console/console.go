package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// The formats of results.
const (
	FormatText     = "text"
	FormatJSON     = "json"
	FormatCSV      = "csv"
	FormatHTML     = "html"
	FormatMarkdown = "markdown"
)

// A Console receives everything that a command prints. New makes it.
//
// The fields are set before the first goroutine uses the console; several goroutines may then print at the same time.
type Console struct {
	// Stdout and Stderr replace hidden secrets. They find a secret only within one Write, so write whole lines. A write to Stderr never
	// fails, and a write to Stdout not because its reader is gone; see Closed.
	Stdout, Stderr io.Writer
	// Log writes to Stderr. SetLog replaces it.
	Log *slog.Logger

	// Format is the format of results: FormatText, FormatJSON, FormatCSV, FormatHTML or FormatMarkdown.
	Format string
	// Quiet suppresses text results, notes, the progress, and log records below a warning.
	Quiet bool
	// Verbose is 1 to log each document, and 2 or more to log each request.
	Verbose int

	terminal bool // stderr can show bars
	// outWidth and errWidth return the number of cells in a line of stdout and stderr; 0 if it is no terminal.
	outWidth, errWidth func() int
	level              slog.LevelVar
	logFixed           bool // SetLog keeps the format, because goroutines use the log
	hidden             *redactor
	output             *output     // stdout
	bars               *divertible // stderr, or the bars, which print lines above themselves
}

// New returns a console that prints text and logs at level info. Progress bars are shown only if stderr is a terminal and
// dumb is false.
func New(stdout, stderr io.Writer, dumb bool) *Console {
	hidden, output := &redactor{}, &output{w: stdout}
	bars := &divertible{w: stderr}
	c := &Console{
		Stdout:   hidden.writer(output),
		Stderr:   hidden.writer(bars),
		Format:   FormatText,
		terminal: IsTerminal(stderr) && !dumb,
		outWidth: func() int { return terminalWidth(stdout) },
		errWidth: func() int { return terminalWidth(stderr) },
		hidden:   hidden,
		output:   output,
		bars:     bars,
	}
	c.logAs(FormatText)
	return c
}

// Hide makes the console print [redacted] in place of the secret from now on. It ignores a secret of under 6 bytes, because
// that would match ordinary text.
func (c *Console) Hide(secret string) { c.hidden.hide(secret) }

// SetLog sets the format of the log, text or json, and its level: the given one (debug, info, warn or error), changed by
// Quiet and Verbose. Unless FixLog was called, no other goroutine may use the log meanwhile.
func (c *Console) SetLog(format, level string) {
	if !c.logFixed {
		c.logAs(format)
	}
	c.level.Set(logLevel(level, c.Verbose, c.Quiet))
}

// FixLog makes later calls of SetLog keep the format. Log does not change any more, so goroutines can use it.
func (c *Console) FixLog() { c.logFixed = true }

func (c *Console) logAs(format string) {
	options := &slog.HandlerOptions{Level: &c.level, ReplaceAttr: logAttr}
	if format == FormatJSON {
		c.Log = slog.New(slog.NewJSONHandler(c.Stderr, options))
		return
	}
	c.Log = slog.New(slog.NewTextHandler(c.Stderr, options))
}

// logAttr shortens durations. The handlers themselves quote unprintable text.
func logAttr(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(Duration(a.Value.Duration()))
	}
	return a
}

// logLevel returns the configured level, changed by -v and -q.
func logLevel(configured string, verbose int, quiet bool) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(configured))
	switch {
	case quiet:
		return max(level, slog.LevelWarn)
	case verbose > 1:
		return slog.LevelDebug
	case verbose == 1:
		return min(level, slog.LevelInfo)
	}
	return level
}

// Result prints the result of a command: v in the format JSON, otherwise the output of text, unless the console is quiet.
func (c *Console) Result(v any, text func(w io.Writer)) error {
	var b bytes.Buffer
	if c.Format == FormatJSON {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return err
		}
	} else {
		if c.Quiet {
			return nil
		}
		text(&b)
		if width := c.outWidth(); width > 0 && c.Format == FormatText {
			_, err := io.WriteString(c.Stdout, Wrap(b.String(), width))
			return err
		}
	}
	_, err := c.Stdout.Write(b.Bytes())
	return err
}

// Width returns the number of cells in a line of stdout, or 0 if it is no terminal.
func (c *Console) Width() int { return c.outWidth() }

// Note prints a sentence for a person on stderr, unless the console is quiet.
func (c *Console) Note(format string, args ...any) {
	if !c.Quiet {
		fmt.Fprint(c.Stderr, Wrap(fmt.Sprintf(format+"\n", args...), c.errWidth()))
	}
}

// Fail prints the error that ends the program on stderr. Each line of the text begins with the name of the program.
func (c *Console) Fail(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprint(c.Stderr, Wrap("kbsync: "+Printable(line)+"\n", c.errWidth()))
	}
}

// IsTerminal reports whether a reader or writer is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalWidth returns the number of cells in a line of a terminal, or 0 for another stream.
func terminalWidth(stream any) int {
	if !IsTerminal(stream) {
		return 0
	}
	width, _, err := term.GetSize(int(stream.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return width
}

// A divertible writer is stderr. While progress bars are shown, divert sends its output to the bars. What cannot be printed, because
// the terminal or the reader is gone or the disk is full, is dropped: the work goes on.
type divertible struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *divertible) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = d.w.Write(p)
	return len(p), nil
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
