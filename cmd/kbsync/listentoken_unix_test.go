//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/state"
)

// The token stays the same for every watch on a state, unless another user may know it.
func TestOwnTokenIsPrivateAndStays(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	a := &app{out: console.New(io.Discard, &log, false)}
	cfg := &config.Config{State: filepath.Join(t.TempDir(), "kbsync.db"), Listen: "127.0.0.1:9090"}
	path := cfg.State + state.TokenSuffix
	earlier := ""
	next := func(what string, same bool) {
		t.Helper()
		text, err := a.listenToken(cfg)
		if err != nil || len(text) < 20 || (text == earlier) != same {
			t.Errorf("%s: %q after %q, %v", what, text, earlier, err)
		}
		data, err := os.ReadFile(path)
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil || strings.TrimSpace(string(data)) != text || info.Mode() != 0o600 {
			t.Errorf("%s: the file has %q, %v, %v, %v", what, data, info.Mode(), err, statErr)
		}
		earlier = text
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	next("new", false)
	next("a restart", true)
	must(os.Chmod(path, 0o640))
	next("its group could read it", false)
	must(os.WriteFile(path, nil, 0o600))
	next("empty", false)
	elsewhere := filepath.Join(t.TempDir(), "known")
	must(os.WriteFile(elsewhere, []byte("a token that another user knows"), 0o600))
	must(os.Remove(path))
	must(os.Symlink(elsewhere, path))
	next("a link", false)
	if data, err := os.ReadFile(elsewhere); err != nil || string(data) != "a token that another user knows" {
		t.Errorf("the target of the link has %q, %v", data, err)
	}
	if strings.Contains(log.String(), earlier) {
		t.Error("the log has the token")
	}

	// A database has no place for a file, and without a listener there is no token.
	cfg.State = "postgres://user@host/database"
	if text, err := a.listenToken(cfg); text != "" || err != nil || !strings.Contains(log.String(), "set --listen-token-file") {
		t.Errorf("with a database: %q, %v: %s", text, err, log.String())
	}
	cfg.State, cfg.Listen = filepath.Join(t.TempDir(), "kbsync.db"), ""
	if text, err := a.listenToken(cfg); text != "" || err != nil {
		t.Errorf("without a listener: %q, %v", text, err)
	}
	if _, err := os.Lstat(cfg.State + state.TokenSuffix); err == nil {
		t.Error("a file without a listener")
	}
}
