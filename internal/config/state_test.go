package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The URL of a database is neither a path below the config file nor a file to keep out of uploads.
func TestStateMayBeADatabase(t *testing.T) {
	dir := workDir(t)
	for _, text := range []string{
		"postgres://me@host/db", "postgresql://me@host:5433/db?sslmode=verify-full", "postgres:///db?host=/run/postgresql",
		"postgres://me@h1:5432,h2:5433/db?target_session_attrs=read-write",
	} {
		c := parse(t, Input{Path: "conf/kbsync.yaml", File: []byte("state: " + text + "\n" + minimal), Dir: dir})
		if c.State != text || c.OpenState() != text || !c.StatePassword.IsZero() {
			t.Errorf("the state %s is %s, opened by %s", text, c.State, c.OpenState())
		}
		conf := filepath.Join(dir, "conf")
		if want := []string{filepath.Join(conf, "kbsync.yaml")}; !slices.Equal(c.Private(), want) {
			t.Errorf("Private = %q, want %q", c.Private(), want)
		}
		if want := filepath.Join(conf, "kbsync.db"); c.LocalState != want {
			t.Errorf("LocalState = %q, want %q", c.LocalState, want)
		}
	}
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte("state: s.db\n" + minimal), Dir: dir})
	if want := filepath.Join(dir, "s.db"); c.LocalState != want || c.OpenState() != want {
		t.Errorf("the file of the state is %q, opened by %q", c.LocalState, c.OpenState())
	}
	// A database needs no home directory.
	c = parse(t, Input{Dir: dir, Flags: map[string][]string{"state": {"postgres://host/db"}}})
	if c.LocalState != "" || c.State != "postgres://host/db" {
		t.Errorf("without a home directory: %q, %q", c.LocalState, c.State)
	}
}

// Every output shows State, so it never has the password.
func TestPasswordOfTheStateIsNotPrinted(t *testing.T) {
	dir := workDir(t)
	const url = "postgres://me:hunter%2F2@h1:5432,h2:5433/db?sslmode=require"
	c := parse(t, Input{Path: "kbsync.yaml", File: []byte("state: s.db\n" + minimal), Dir: dir, Environ: []string{"KBSYNC_STATE=" + url}})
	if want := "postgres://me@h1:5432,h2:5433/db?sslmode=require"; c.State != want || c.StatePassword.Reveal() != "hunter/2" {
		t.Errorf("the state is %s with the password %q", c.State, c.StatePassword.Reveal())
	}
	if c.OpenState() != url {
		t.Errorf("the state is opened by %s", c.OpenState())
	}
	// Other users of the machine see flags, and other people read config files.
	want := "--state: the URL contains a password; remove it, and " + passwordPlaces + ", or write the whole URL into KBSYNC_STATE"
	for _, in := range []Input{
		{Flags: map[string][]string{"state": {url}}},
		{Flags: map[string][]string{"state": {url}}, Environ: []string{"KBSYNC_STATE=" + url}},
	} {
		in.Dir = dir
		if got := mistakes(t, in); !slices.Equal(got, []string{want}) {
			t.Errorf("got %q", got)
		}
	}
	for _, text := range []string{
		"postgres://me:hunter2/x@h/db", "postgres://me:hunter2#x@h/db", "postgres://me:hunter2?x@h/db", "postgres://me:%hunter2@h/db",
		"postgres://h/db?password=hunter2", "postgres://h/db?sslpassword=hunter2", "postgres://me:hunter2:x@h:p/db",
	} {
		got := mistakes(t, Input{Dir: dir, Environ: []string{"KBSYNC_STATE=" + text}})
		if all := strings.Join(got, "\n"); all == "" || strings.Contains(all, "hunter2") {
			t.Errorf("%s: %q", text, all)
		}
	}
}
