package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/internal/engine"
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
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"", "a.md", "\x1b]0;x\x07", "\xff\u2028\u202e\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := printable(in)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unprintable) {
			t.Fatalf("printable(%q) = %q", in, got)
		}
		if printable(got) != got {
			t.Fatalf("printable(%q) is not stable", in)
		}
	})
}

func TestNoOutputShowsASecret(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	out := newOutput(&stdout, &stderr, nil)
	out.hidden.hide(`can"ary<1>`)
	out.log.Warn("token is can\"ary<1>", "token", `can"ary<1>`)
	out.logAs(formatJSON)
	out.log.Warn("again", "token", `can"ary<1>`)
	fmt.Fprint(out.stdout, `can"ary<1> and can"ary<1>`)
	out.note("%s", `can"ary<1>`)
	out.fail(errors.New(`can"ary<1>`), exitOther)
	for _, s := range []string{stdout.String(), stderr.String()} {
		if strings.Contains(s, "ary") || !strings.Contains(s, "[redacted]") {
			t.Errorf("not redacted: %s", s)
		}
	}
}

// Every class has an exit code of its own.
func TestExitCodeOfEveryClass(t *testing.T) {
	t.Parallel()
	for class, want := range map[engine.Class]int{
		engine.ClassNone: 0, engine.ClassOther: 1, engine.ClassUsage: 2, engine.ClassRootMissing: 3, engine.ClassTemporary: 5,
		engine.ClassDocumentsFailed: 6, engine.ClassFatal: 7, engine.ClassBudget: 8, engine.ClassTrainingDeadline: 10,
		engine.ClassGuard: 11, engine.ClassInterrupted: 130,
	} {
		if got := codeOf(class); got != want {
			t.Errorf("class %v has exit code %d, want %d", class, got, want)
		}
		if class == engine.ClassNone {
			continue
		}
		if got := exitCode(engine.WithClass(class, errors.New("wrong"))); got != want {
			t.Errorf("an error of class %v has exit code %d, want %d", class, got, want)
		}
	}
	if got := exitCode(nil); got != exitDone {
		t.Errorf("no error has exit code %d", got)
	}
}

func TestParseAgeReadsDaysWeeksAndDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30d": 720 * time.Hour, "2w": 336 * time.Hour, "12h": 12 * time.Hour, "0d": 0,
		"": -1, "d": -1, "-1d": -1, "-5h": -1, "1.5d": -1, "soon": -1, "99999999d": -1,
	} {
		got, err := parseAge(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("parseAge(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestProblemsAreGroupedByStateAndReason(t *testing.T) {
	t.Parallel()
	var groups []problemGroup
	for i := range 7 {
		groups = addProblem(groups, troubledView{fmt.Sprintf("%d.md", i), "failed", "too odd"})
	}
	groups = addProblem(groups, troubledView{"x.md", "stuck", "too odd"})
	got := fmt.Sprint(groups)
	if want := "[failed: 0.md, 1.md, 2.md, 3.md, 4.md, 2 more: too odd stuck: x.md: too odd]"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestRunLeavesNoGoroutine runs commands that end with different codes.
func TestRunLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	docs := filepath.Join(dir, "docs")
	if err := os.Mkdir(docs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "a.md"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"KBSYNC_SETTLE=0s", "KBSYNC_POLL_MIN=20ms", "KBSYNC_STATE=" + filepath.Join(dir, "kbsync.db")}
	for _, c := range []struct {
		args string
		want int
	}{
		{"version", exitDone},
		{"nonsense", exitUsage},
		{"sync " + docs + " --knowledge-base 876 --emulator", exitDone},
		{"sync " + docs + "x --knowledge-base 876 --emulator", exitNoRoot},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), strings.Fields(c.args), env, strings.NewReader(""), &stdout, &stderr); got != c.want {
			t.Errorf("%s: exit code %d, want %d\n%s%s", c.args, got, c.want, &stdout, &stderr)
		}
	}
}
