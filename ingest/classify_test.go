package ingest

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kbsync/kbsync/replycx"
)

func TestClassifyByCompletenessAndAnswer(t *testing.T) {
	api := func(status int, code, message string) *replycx.Error {
		return &replycx.Error{StatusCode: status, Code: code, Message: message, FromAPI: code != ""}
	}
	after := func(e *replycx.Error, d time.Duration) *replycx.Error {
		e.RetryAfter = d
		return e
	}
	const unsure, busy, refused, fatal = outcomeUncertain, outcomeBusy, outcomeRefused, outcomeFatal
	for _, c := range []struct {
		err              error
		complete, before outcomeKind // with the whole request sent, and before
		pause            bool
	}{
		{err: errors.New("connection reset by peer"), complete: unsure, before: busy},
		{err: replycx.ErrStalled, complete: unsure, before: busy},
		{err: &replycx.AnswerError{StatusCode: 200, Reason: "is empty"}, complete: unsure, before: busy},
		{err: &replycx.UnsentError{Err: errors.New("dial")}, complete: unsure, before: busy},

		{err: api(400, "BAD_REQUEST", "no"), complete: refused, before: refused},
		{err: api(400, "", "no"), complete: refused, before: refused},
		{err: api(413, "", "too large"), complete: refused, before: refused},
		{err: &replycx.UnsentError{Err: api(413, "", "too large")}, complete: refused, before: refused},
		{err: api(422, "", "no"), complete: refused, before: refused},
		{err: api(200, "BAD_REQUEST", "no"), complete: refused, before: refused},

		{err: api(401, "JWT_SIGNATURE_EXCEPTION", "no"), complete: fatal, before: fatal},
		{err: api(401, "", "a proxy's page"), complete: fatal, before: fatal},
		{err: api(401, "UNAUTHORIZED_FEATURE", "no"), complete: fatal, before: fatal},
		{err: api(404, "KNOWLEDGE_BASE_NOT_FOUND", "no"), complete: fatal, before: fatal},
		{err: api(404, "ACCOUNT_DETAILS_NOT_FOUND", "no"), complete: fatal, before: fatal},
		{err: api(200, "ACCOUNT_DETAILS_NOT_FOUND", "no"), complete: fatal, before: fatal},
		{err: api(400, "BAD_REQUEST", "Knowledge base does not belong to the account(876)"), complete: fatal, before: fatal},
		{err: api(301, "", ""), complete: fatal, before: fatal},
		{err: api(403, "", ""), complete: fatal, before: fatal},
		{err: api(404, "", ""), complete: fatal, before: fatal},
		{err: api(405, "", ""), complete: fatal, before: fatal},

		{err: api(429, "", ""), complete: busy, before: busy, pause: true},
		{err: after(api(429, "", ""), time.Second), complete: busy, before: busy, pause: true},
		{err: api(408, "", ""), complete: busy, before: busy},
		{err: after(api(425, "", ""), time.Second), complete: busy, before: busy, pause: true},
		{err: api(503, "", ""), complete: unsure, before: busy},
		{err: after(api(503, "", ""), time.Second), complete: busy, before: busy, pause: true},
		{err: api(503, "MAINTENANCE", ""), complete: busy, before: busy, pause: true},

		{err: api(500, "", ""), complete: unsure, before: busy},
		{err: api(500, "INTERNAL", ""), complete: unsure, before: busy},
		{err: after(api(502, "", ""), time.Second), complete: unsure, before: busy},
		{err: api(504, "", ""), complete: unsure, before: busy},
		{err: api(500, "ACCOUNT_DETAILS_NOT_FOUND", ""), complete: unsure, before: busy},
		{err: api(200, "WHATEVER", ""), complete: unsure, before: busy},
	} {
		err := fmt.Errorf("upload sources: %w", c.err)
		if got := classify(err, true); got.kind != c.complete || got.pause != c.pause {
			t.Errorf("%v, complete: got %+v", c.err, got)
		}
		if got := classify(err, false); got.kind != c.before || got.pause != c.pause {
			t.Errorf("%v, incomplete: got %+v", c.err, got)
		}
		if got := classify(err, true); got.message == "" {
			t.Errorf("%v: no message", c.err)
		}
	}
}

func TestRunGivesUpAfterUncertainBatchesInARow(t *testing.T) {
	for _, c := range []struct {
		streak, atStart, probes int
		want                    bool
	}{
		{1, 0, 0, false}, {2, 0, 1, false}, {3, 0, 2, true}, {4, 0, 0, true},
		{3, 3, 0, false}, {4, 3, 1, true}, {3, 2, 1, true}, {1, 1, maxBreakerProbes, true},
	} {
		if got := givesUp(c.streak, c.atStart, c.probes); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestHalvesKeepTheKindOfTheBatch(t *testing.T) {
	docs := make([]*document, 5)
	for i := range docs {
		docs[i] = &document{}
		docs[i].Fingerprint.Size = int64(i)
	}
	halves := (&batch{docs: docs, bytes: 10, resendOf: 7}).halves()
	if len(halves) != 2 || len(halves[0].docs) != 2 || len(halves[1].docs) != 3 || halves[0].bytes != 1 || halves[1].bytes != 9 || halves[0].resendOf != 7 {
		t.Fatalf("%+v %+v", halves[0], halves[1])
	}
}

func TestSourceNameIsCleanAndUnique(t *testing.T) {
	long := strings.Repeat("ö", 150)
	for _, c := range []struct {
		key  string
		want string // "*" stands for 8 hex digits
		in   NameStyle
	}{
		{"a/b/c.md", "a__b__c.md", Flat},
		{"a/b/c.md", "a/b/c.md", Key},
		{"a/b/c.md", "c.md", Base},
		{"-rf.txt", "-rf.txt", Flat},
		{"été ☃ 🙂.pdf", "été ☃ 🙂.pdf", Flat},
		{"a__b.md", "a__b.md", Flat},
		{`say "hi".md`, "say _hi_-*.md", Flat},
		{"it's R&D, v1.2 (new).md", "it's R&D, v1.2 (new).md", Flat},
		{`back\slash.md`, "back_slash-*.md", Flat},
		{"line\nbreak\x00.md", "line_break_-*.md", Flat},
		{"bad\xff.md", "bad_-*.md", Flat},
		{"a/../b.md", "a__..__b.md", Flat},
		{"a/../b.md", "a/__/b-*.md", Key}, // only a bucket has such a key
		{"a..b.md", "a..b.md", Flat},
		{"notes..pdf", "notes..pdf", Flat},
		{"v1.2/LICENSE", "v1.2__LICENSE", Flat},
		{"bad\xff.an-unusually-long-ending", "bad_-*.an-unusually-long-ending", Flat},
		{"turned\u202etxt.exe", "turned_txt-*.exe", Flat},
		{" spaced .md ", "spaced-*.md", Flat},
		{"", "*", Flat},
		{"a/", "*", Base},
		{"...", "...", Base},
		{long + ".docx", strings.Repeat("ö", 93) + "-*.docx", Flat},
		{"x." + long, "x." + strings.Repeat("ö", 94) + "-*", Flat},
		{".gitignore", ".gitignore", Flat},
	} {
		got := SourceName(c.key, c.in)
		want, star := c.want, strings.Index(c.want, "*")
		if star >= 0 && len(got) >= star+8 {
			want = want[:star] + got[star:star+8] + want[star+1:]
			if strings.Trim(got[star:star+8], "0123456789abcdef") != "" {
				t.Errorf("%q: got %q, no digits", c.key, got)
			}
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", c.key, got, c.want)
		}
	}
	if SourceName("a\"b.md", Flat) == SourceName("a\\b.md", Flat) {
		t.Error("two keys that are altered to the same have the same name")
	}
}

func FuzzSourceName(f *testing.F) {
	for _, key := range []string{"", "a/b.md", "..", "\xff\xfe", strings.Repeat("x", 300), "a\r\nb: c", `"`, "a." + strings.Repeat("y", 30), "\u202e", " ", ".", "/", strings.Repeat("é", 101)} {
		for style := range byte(3) {
			f.Add(key, style)
		}
	}
	f.Fuzz(func(t *testing.T, key string, style byte) {
		name := SourceName(key, NameStyle(style%3))
		if name != SourceName(key, NameStyle(style%3)) {
			t.Fatal("not the same twice")
		}
		if len(name) < 1 || len(name) > maxName || !utf8.ValidString(name) {
			t.Fatalf("%q has %d bytes, valid %v", name, len(name), utf8.ValidString(name))
		}
		if strings.ContainsAny(name, "\"\\\x00\r\n\t\x7f") || strings.TrimSpace(name) != name {
			t.Fatalf("%q is not clean", name)
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "." || part == ".." {
				t.Fatalf("%q has the part %q", name, part)
			}
		}
		ending := path.Ext(key[strings.LastIndexByte(key, '/')+1:])
		if len(ending) > 1 && len(ending) <= maxEnding && cleanName(ending) == ending && strings.TrimSpace(ending) == ending && !strings.HasSuffix(name, ending) {
			t.Fatalf("%q became %q, without its ending", key, name)
		}
		for _, r := range name {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q holds a control character", name)
			}
		}
	})
}
