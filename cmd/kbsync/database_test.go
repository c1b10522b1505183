package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// A databaseUser runs commands with the state in a database, and keeps all that they print.
type databaseUser struct {
	*fixture
	env     []string
	printed strings.Builder
}

func newDatabaseUser(t *testing.T) *databaseUser {
	t.Helper()
	root := t.TempDir()
	f := newFixture(t, root)
	f.must(os.WriteFile(filepath.Join(root, "a.md"), []byte("one"), 0o600))
	u, err := url.Parse(pgtest.Start(t).Database(t))
	f.must(err)
	u.User = url.UserPassword(u.User.Username(), "hunter2/#@") // the server takes any
	return &databaseUser{fixture: f, env: []string{
		"REPLYCX_TOKEN=" + f.emulator.Token(51), "KBSYNC_API_URL=" + f.url, "HOME=" + f.dir, "KBSYNC_STATE=" + u.String(),
		"KBSYNC_SETTLE=0s", "KBSYNC_POLL_MIN=10ms",
	}}
}

// run runs a command and returns its results.
func (u *databaseUser) run(code int, args ...string) string {
	u.Helper()
	var stdout, stderr strings.Builder
	if got := run(u.Context(), args, u.env, strings.NewReader(""), &stdout, &stderr); got != code {
		u.Errorf("kbsync %s ends with %d, want %d: %s", strings.Join(args, " "), got, code, stderr.String())
	}
	u.printed.WriteString(stdout.String() + stderr.String())
	return stdout.String()
}

func TestPasswordOfTheDatabaseIsNotPrinted(t *testing.T) {
	t.Parallel()
	u := newDatabaseUser(t)
	u.run(exitDone, "check", u.root, "--knowledge-base", "876")
	u.run(exitDone, "sync", u.root, "--knowledge-base", "876", "-vv")
	u.run(exitDone, "status")
	u.run(exitDone, "state", "export")
	var status struct{ State string }
	u.must(json.Unmarshal([]byte(u.run(exitDone, "status", "--json")), &status))
	if at, err := url.Parse(status.State); err != nil || at.Scheme != "postgres" || at.User.String() == "" || strings.Contains(status.State, ":hunter2") {
		t.Errorf("status shows the state %s, %v", status.State, err)
	}
	for i, e := range u.env {
		if text, ok := strings.CutPrefix(e, "KBSYNC_STATE="); ok {
			at, err := url.Parse(text)
			u.must(err)
			at.Path = "/nothing"
			u.env[i] = "KBSYNC_STATE=" + at.String()
		}
	}
	u.run(exitUsage, "status")
	u.run(exitUsage, "check", u.root, "--knowledge-base", "876")
	if strings.Contains(u.printed.String(), "hunter2") || !strings.Contains(u.printed.String(), "nothing") {
		t.Errorf("printed:\n%s", &u.printed)
	}
	// The database holds everything: no file of a state or of a lock is left behind. The markers are away from it.
	files, err := filepath.Glob(filepath.Join(u.dir, "*"))
	files = slices.DeleteFunc(files, func(path string) bool { return filepath.Base(path) == ".local" })
	if err != nil || len(files) > 0 {
		t.Errorf("files beside the database: %v, %v", files, err)
	}
}

// Other processes may share the database, so a trial with the emulator must not write to it.
func TestEmulatorLeavesTheDatabaseAlone(t *testing.T) {
	t.Parallel()
	u := newDatabaseUser(t)
	u.run(exitDone, "sync", u.root, "--knowledge-base", "876", "--emulator")
	if text := u.run(exitDone, "status", "--json"); strings.Contains(text, "emulator") || !strings.Contains(text, `"syncs": []`) {
		t.Errorf("the database has %s", text)
	}
	if text := u.run(exitDone, "status", "--emulator"); !strings.Contains(text, "1 completed") {
		t.Errorf("the emulator's state has %s", text)
	}
	// Without a directory for its file the emulator has no state.
	u.env = slices.DeleteFunc(u.env, func(e string) bool { return strings.HasPrefix(e, "HOME=") })
	u.run(exitUsage, "sync", u.root, "--knowledge-base", "876", "--emulator")
	u.run(exitDone, "check", u.root, "--knowledge-base", "876")
}
