package config

import (
	"errors"
	"strings"
	"testing"
	"unicode"
)

// FuzzParse parses any bytes as a file. Parse must return either a usable Config
// or printable mistakes, one per line, each with a place in the file.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", minimal, everything, string(Sample("", 876)), string(Sample("", 0)),
		"a: &a [*a]\n", "syncs: &s\n  - *s\n", "syncs:\n  - &x {name: a}\n  - <<: *x\n  - <<: [*x, *x]\n",
		"<<: *a", "? [a]\n: b\n", "? a\n", "!!binary x", "- - - -", "{a: [b, {c: d}]}", "---\n---\n", "...\n", "%YAML 1.2\n", "%", "\ufeffa: b",
		"a: |\n  b\n c", "a: >2-\n", "'", "\"\\x", "\"\\u12", "&", "*", "&a", "!", "!a", "|", ">", "a:\n\tb", "\xff", "a\x00b", "a: b: c", ": x", "{", "[}", "- a:\n  -b",
	} {
		f.Add([]byte(seed))
	}
	dir := workDir(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := Parse(Input{Path: "kbsync.yaml", File: file, Dir: dir})
		if err == nil {
			for _, s := range c.Syncs {
				if s.Name == "" || s.Root == (Root{}) || s.KnowledgeBase <= 0 || s.Batch.Documents < 1 || s.Batch.Bytes < 1 {
					t.Errorf("an incomplete sync: %+v", s)
				}
			}
			if c.State == "" || c.Transfers < 1 || c.Checkers < 1 || c.Poll.Min <= 0 || c.Poll.Max < c.Poll.Min {
				t.Errorf("an incomplete config: %+v", c)
			}
			return
		}
		list, ok := errors.AsType[Errors](err)
		if !ok || c != nil || len(list) == 0 {
			t.Fatalf("Parse = %v, %v", c, err)
		}
		lines := strings.Count(string(file), "\n") + strings.Count(string(file), "\r") + 1
		for _, p := range list {
			if p.File != "kbsync.yaml" || p.Line < 1 || p.Line > lines || p.Column < 1 || p.Text == "" {
				t.Errorf("%+v has no place in a file of %d lines", p, lines)
			}
			if strings.ContainsFunc(p.String(), unicode.IsControl) {
				t.Errorf("%q cannot be printed", p.String())
			}
		}
	})
}
