package console

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintableEscapesControlCharacters(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"guides/one.md":                     "guides/one.md",
		"Überblick 概要.md":                   "Überblick 概要.md",
		"a\nb":                              `a\nb`,
		"\x1b[2J":                           `\x1b[2J`,
		"\u009b2J":                          `\u009b2J`,
		"x\u202egnp.md":                     `x\u202egnp.md`,
		"bad\xff\xfe":                       `bad\xff\xfe`,
		"family \U0001F468\u200d\U0001F469": "family \U0001F468\u200d\U0001F469",
		"":                                  "",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"", "a.md", "\x1b]0;x\x07", "\xff\u2028\u202e\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := Printable(in)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unprintable) {
			t.Fatalf("Printable(%q) = %q", in, got)
		}
		if Printable(got) != got {
			t.Fatalf("Printable(%q) is not stable", in)
		}
	})
}

func TestNoOutputShowsASecret(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	out := New(&stdout, &stderr, false)
	out.Hide(`can"ary<1>`)
	out.Log.Warn("token is can\"ary<1>", "token", `can"ary<1>`)
	out.SetLog(FormatJSON, "info")
	out.Log.Warn("again", "token", `can"ary<1>`)
	fmt.Fprint(out.Stdout, `can"ary<1> and can"ary<1>`)
	out.Note("%s", `can"ary<1>`)
	out.Fail(`can"ary<1>`)
	for _, s := range []string{stdout.String(), stderr.String()} {
		if strings.Contains(s, "ary") || !strings.Contains(s, "[redacted]") {
			t.Errorf("not redacted: %s", s)
		}
	}
}

// TestRowsInEveryFormat prints the same rows as a table, CSV and JSON. A quiet console prints all but the table.
func TestRowsInEveryFormat(t *testing.T) {
	t.Parallel()
	type row struct {
		Name string `json:"name"`
		Size int    `json:"size"`
	}
	rows := []row{{"a\x1b.md", 1}, {"=1+1", 20}}
	for _, test := range []struct {
		format string
		quiet  bool
		rows   []row
		want   string
	}{
		{FormatText, false, rows, "name\na\\x1b.md\n=1+1\n"},
		{FormatText, false, nil, "none\n"},
		{FormatText, true, rows, ""},
		{FormatCSV, true, rows, "name,size\na\x1b.md,1\n'=1+1,20\n"},
		{FormatCSV, false, nil, "name,size\n"},
		{FormatJSON, true, rows, "[\n  {\"name\":\"a\\u001b.md\",\"size\":1},\n  {\"name\":\"=1+1\",\"size\":20}\n]\n"},
		{FormatJSON, false, nil, "[]\n"},
	} {
		var stdout bytes.Buffer
		c := New(&stdout, io.Discard, false)
		c.Format, c.Quiet = test.format, test.quiet
		columns := []Column[row]{
			Brief("name", func(r row) string { return r.Name }),
			Detail("size", func(r row) string { return strconv.Itoa(r.Size) }),
		}
		if err := PrintRows(c, columns, func(yield func(row, error) bool) {
			for _, r := range test.rows {
				if !yield(r, nil) {
					return
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		if got := stdout.String(); got != test.want {
			t.Errorf("%s, quiet %v, %d rows:\n%q\nwant\n%q", test.format, test.quiet, len(test.rows), got, test.want)
		}
	}
}

func TestVerboseAndQuietChangeTheLevelOfTheLog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		level   string
		verbose int
		quiet   bool
		want    string // the levels that are printed
	}{
		{"info", 0, false, "INFO WARN "},
		{"warn", 0, false, "WARN "},
		{"warn", 1, false, "INFO WARN "},
		{"error", 2, false, "DEBUG INFO WARN "},
		{"debug", 1, true, "WARN "},
		{"error", 0, true, ""},
	} {
		var stderr bytes.Buffer
		c := New(io.Discard, &stderr, false)
		c.Verbose, c.Quiet = test.verbose, test.quiet
		c.SetLog(FormatText, "info")
		c.FixLog()
		c.SetLog(FormatJSON, test.level)
		c.Log.Debug("x")
		c.Log.Info("x")
		c.Log.Warn("x")
		got := ""
		for line := range strings.Lines(stderr.String()) {
			_, rest, _ := strings.Cut(line, "level=")
			level, _, _ := strings.Cut(rest, " ")
			got += level + " "
		}
		if got != test.want {
			t.Errorf("%+v: printed %q", test, got)
		}
	}
}

// No text of a stranger makes markup in a comment.
func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"plain ä 1":          "<code>plain ä 1</code>",
		"a/b.md":             "<code>a&#47;b&#46;md</code>",
		"`x` </code>|@team":  "<code>&#96;x&#96; &#60;&#47;code&#62;&#124;&#64;team</code>",
		"line\nbreak\u202e":  "<code>line&#92;nbreak&#92;u202e</code>",
		"&#64;":              "<code>&#38;&#35;64&#59;</code>",
		"[l](https://x) **b": "<code>&#91;l&#93;&#40;https&#58;&#47;&#47;x&#41; &#42;&#42;b</code>",
	} {
		if got := Markdown(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// A terminal shows Chinese characters and emoji two cells wide, and an accent that follows its letter in no cell.
func TestTableAlignsCells(t *testing.T) {
	var b strings.Builder
	Table(&b, [][]string{
		{"key", "state"},
		{"价格表.md", "failed"},
		{"emoji \U0001F600.md", "stuck"},
		{"re\u0301sume\u0301.md", "uncertain"},
		{"a", ""},
	})
	want := "key          state\n" +
		"价格表.md    failed\n" +
		"emoji \U0001F600.md  stuck\n" +
		"re\u0301sume\u0301.md    uncertain\n" +
		"a\n"
	if b.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}

func TestLongTextsOfATableDoNotMakeEveryLineLong(t *testing.T) {
	var b strings.Builder
	long := strings.Repeat("long-name-", 5) + ".md"
	tableWithin(&b, [][]string{{"key", "state"}, {"a.md", "failed"}, {long, "stuck"}}, 40)
	want := "key" + strings.Repeat(" ", 31) + "  state\n" +
		"a.md" + strings.Repeat(" ", 28) + "  failed\n" + long + "  stuck\n"
	want = strings.Replace(want, strings.Repeat(" ", 31), strings.Repeat(" ", 29), 1)
	if b.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}

func TestWrapBreaksLinesAtSpaces(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"short\n", "short\n"},
		{"a line of more than twenty cells\n", "a line of more than\n  twenty cells\n"},
		{"  indented, and more than twenty cells\nnext\n", "  indented, and more\n    than twenty\n    cells\nnext\n"},
		{"价格表价格表 价格表价格表\n", "价格表价格表\n  价格表价格表\n"},
		{"one-word-that-is-longer-than-a-line\n", "one-word-that-is-longer-than-a-line\n"},
	} {
		if got := Wrap(test.text, 20); got != test.want {
			t.Errorf("%q becomes\n%s\nwant\n%s", test.text, got, test.want)
		}
	}
	if text := strings.Repeat("word ", 50); Wrap(text, 0) != text {
		t.Error("a stream that is no terminal has broken lines")
	}
}

func TestUnwrapJoinsTheLinesOfAParagraph(t *testing.T) {
	if got, want := Unwrap("a\nb\n\nc:\n  code\nd"), "a b\n\nc:\n  code\nd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
