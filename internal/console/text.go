package console

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-runewidth"
)

// Printable makes foreign text safe for one line of a terminal. It escapes unprintable characters as Go does.
func Printable(text string) string {
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

// Quoted returns Printable text in quotation marks, for names in sentences.
func Quoted(text string) string { return `"` + Printable(text) + `"` }

// Count returns a number with its noun: 1 document, 2 documents.
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// Duration rounds a duration for a person: to seconds from a minute on, to tenths from a second on, else to milliseconds.
func Duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// Moment formats a time to the second, and the zero time as a dash.
func Moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// Bytes formats a number of bytes with a binary unit, such as 1.2 MiB.
func Bytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Table writes rows in columns that are aligned as a terminal shows them: a Chinese character is two cells wide. The first row holds
// the names of the columns.
func Table(w io.Writer, rows [][]string) { tableWithin(w, rows, 0) }

// tableWithin writes a table in lines of at most width cells; 0 is no limit. It makes the widest columns narrower, but not narrower than
// their names, so that one long name does not make every line long: a text that is longer than its column is written whole and moves the rest of
// its line.
func tableWithin(w io.Writer, rows [][]string, width int) {
	const gap, narrowest = 2, 12
	var widths []int
	for _, row := range rows {
		for i, text := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(text))
		}
	}
	total := gap * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for ; width > 0 && total > width; total-- {
		widest, spare := 0, 0
		for i, n := range widths {
			if s := n - max(narrowest, Width(rows[0][i])); s > spare {
				widest, spare = i, s
			}
		}
		if spare == 0 {
			break
		}
		widths[widest]--
	}
	var line strings.Builder
	for _, row := range rows {
		line.Reset()
		for i, text := range row {
			line.WriteString(text)
			line.WriteString(strings.Repeat(" ", max(widths[i]-Width(text), 0)+gap))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// Wrap breaks lines that are longer than width cells at spaces, so that a terminal breaks no word. The rest of a line is indented by two
// cells more than its beginning. A width of 0 is no limit.
func Wrap(text string, width int) string {
	const least = 20 // a narrower terminal breaks the lines itself
	if width < least {
		return text
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		if Width(line) <= width {
			out.WriteString(line)
			continue
		}
		bare := strings.TrimLeft(line, " ")
		indent := strings.Repeat(" ", min(len(line)-len(bare)+2, width/2))
		out.WriteString(line[:len(line)-len(bare)])
		used := len(line) - len(bare)
		for i, word := range strings.Split(strings.TrimRight(bare, "\n"), " ") {
			switch n := Width(word); {
			case i == 0:
				used += n
			case used+1+n > width:
				out.WriteString("\n" + indent)
				used = len(indent) + n
			default:
				out.WriteString(" ")
				used += 1 + n
			}
			out.WriteString(word)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// Unwrap joins the lines of each paragraph that has no indented line.
func Unwrap(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.Contains("\n"+p, "\n ") {
			paragraphs[i] = strings.ReplaceAll(p, "\n", " ")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// Width returns the number of cells that printable text takes on a terminal.
func Width(text string) int { return runewidth.StringWidth(text) }

// Markdown returns text as inline code for Markdown with HTML, such as a comment on GitHub. No character of it can end the code, make
// markup, a link or a mention, or begin another cell of a table.
func Markdown(text string) string {
	var b strings.Builder
	b.WriteString("<code>")
	for _, r := range Printable(text) {
		if r < 128 && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == ' ') {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	b.WriteString("</code>")
	return b.String()
}
