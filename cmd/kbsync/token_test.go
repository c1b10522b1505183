package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
)

// TestTokenFileIsReadAgainWhenItChanges replaces a token_file by one of the same size, a larger one and invalid ones.
func TestTokenFileIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	a := &app{out: console.New(&bytes.Buffer{}, &stderr, false)}
	path := filepath.Join(t.TempDir(), "token")
	cfg := &config.Config{API: config.API{TokenFile: path}}
	source, err := a.tokenSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.token(t.Context()); exitCode(err) != exitUsage {
		t.Errorf("without a file: %v", err)
	}
	for _, token := range []string{"token-one", "token-two", "another-token"} {
		next := path + ".next"
		if err := os.WriteFile(next, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := source.token(t.Context()); err != nil || got != token {
				t.Errorf("got %q, %v, want %q", got, err, token)
			}
		}
	}
	a.out.Note("token-one and another-token")
	if got := stderr.String(); strings.Contains(got, "token-one") || strings.Contains(got, "another-token") {
		t.Errorf("printed: %s", got)
	}
	for _, wrong := range []string{"", " \n", "two tokens", "töken-of-letters", "line\nline"} {
		if err := os.WriteFile(path, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := source.token(t.Context()); exitCode(err) != exitUsage || got != "" {
			t.Errorf("%q gives %q, %v", wrong, got, err)
		}
	}
}

func TestKeyBelowAcceptsPathsAndKeys(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, c := range []struct {
		path, key string
		ok        bool
	}{
		{filepath.Join(root, "a.md"), "a.md", true},
		{filepath.Join(root, "guides", "a.md"), "guides/a.md", true},
		{filepath.Join(root, "..", "a.md"), "", false},
		{root, "", false},
		{"guides/a.md", "guides/a.md", true},
		{"./guides/a.md", "", false},
		{"..data.md", "..data.md", true},
	} {
		if key, ok := keyBelow(root, c.path); key != c.key || ok != c.ok {
			t.Errorf("keyBelow(%q) = %q, %v, want %q, %v", c.path, key, ok, c.key, c.ok)
		}
	}
}
