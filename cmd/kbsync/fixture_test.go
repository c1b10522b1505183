package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// A fixture is an emulator in this process and a state that kbsync processes share. The tests kill, stop and
// measure those processes.
type fixture struct {
	testing.TB
	root     string // the directory to sync
	dir      string // the directory of the state
	emulator *emulator.Emulator
	url      string   // of the emulator
	state    string   // a path, or the URL of a database
	env      []string // more variables of the processes
}

func newFixture(tb testing.TB, root string) *fixture {
	tb.Helper()
	e, err := emulator.New(emulator.Options{Train: time.Millisecond})
	if err != nil {
		tb.Fatal(err)
	}
	url, err := e.Start("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	f := &fixture{TB: tb, root: root, dir: tb.TempDir(), emulator: e, url: url}
	f.state = filepath.Join(f.dir, "kbsync.db")
	return f
}

// newFixtureOn returns a fixture with its state in a file or, for "postgres", in a database whose leases are short: a process that
// is killed keeps the others waiting until then.
func newFixtureOn(tb testing.TB, database, root string) *fixture {
	tb.Helper()
	f := newFixture(tb, root)
	if database == "postgres" {
		f.state = withLease(pgtest.Start(tb).Database(tb), time.Second)
	}
	return f
}

// must ends the test on an error.
func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// command prepares a process of kbsync that uses the emulator and the state of the fixture.
func (f *fixture) command(args ...string) *exec.Cmd {
	f.Helper()
	self, err := os.Executable()
	f.must(err)
	cmd := exec.Command(self, append(args, "--state", f.state)...)
	cmd.Args[0] = "kbsync" // testscript.Main runs the program with this name
	cmd.Env = append(environWithoutSettings(), "HOME="+f.dir, "REPLYCX_TOKEN="+f.emulator.Token(51), "KBSYNC_API_URL="+f.url)
	cmd.Env = append(cmd.Env, f.env...)
	return cmd
}

// environWithoutSettings returns the environment without KBSYNC_* variables. The stories set some of them, and kbsync
// rejects names that it does not know.
func environWithoutSettings() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KBSYNC_") })
}

// openState opens the state of the fixture until the test ends. It waits until a process has made the state and its first sync.
func (f *fixture) openState() *state.Store {
	f.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		store, err := state.Open(f.Context(), state.Options{Path: f.state, ReadOnly: true})
		if err == nil {
			var syncs []state.Sync
			if syncs, err = store.Syncs.All(f.Context()); err == nil && len(syncs) > 0 {
				f.Cleanup(func() { _ = store.Close() })
				return store
			}
			_ = store.Close() // another one is opened
		}
		if time.Now().After(deadline) {
			f.Fatalf("no process has made the state: %v", err)
		}
	}
}

// contents are SHA-256 sums. The value is the number of uploads that the emulator accepted.
type contents map[[sha256.Size]byte]int

// accepted counts the accepted uploads of each content. An upload after a failed training, under an ending that the content did
// not have before, does not count: kbsync tries each ending once.
func (f *fixture) accepted() contents {
	accepted, uploads := contents{}, contents{}
	failed := map[[sha256.Size]byte][]string{} // the endings
	for _, a := range f.emulator.Accepted() {
		endings, ending := failed[a.SHA256], path.Ext(a.Name)
		allFailed := len(endings) == uploads[a.SHA256]
		if uploads[a.SHA256]++; accepted[a.SHA256] == 0 || !allFailed || slices.Contains(endings, ending) {
			accepted[a.SHA256]++
		}
		if a.Status == "failed" {
			failed[a.SHA256] = append(endings, ending)
		}
	}
	return accepted
}

// possibleDuplicates returns the contents that kbsync lists as possible duplicates.
func (f *fixture) possibleDuplicates(store *state.Store) map[[sha256.Size]byte]bool {
	f.Helper()
	possible := map[[sha256.Size]byte]bool{}
	for p, err := range store.Inventory.PossibleDuplicates(f.Context(), 0) {
		f.must(err)
		possible[p.SHA256] = true
	}
	return possible
}

// checkDuplicates fails if the emulator accepted a content more than once, unless kbsync lists it as a possible
// duplicate and the count is at most most. It returns the number of contents that were accepted more than once.
func (f *fixture) checkDuplicates(accepted contents, possible map[[sha256.Size]byte]bool, most int) (duplicated int) {
	f.Helper()
	for sum, n := range accepted {
		if n == 1 {
			continue
		}
		duplicated++
		if n > most || !possible[sum] {
			f.Errorf("content %x was accepted %d times; listed as a possible duplicate: %v", sum[:6], n, possible[sum])
		}
	}
	return duplicated
}

// envInt returns the integer in an environment variable, or otherwise if it is not set. Make targets set them.
func envInt(tb testing.TB, name string, otherwise int) int {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return n
}

// envDuration returns the duration in an environment variable, or otherwise if it is not set.
func envDuration(tb testing.TB, name string, otherwise time.Duration) time.Duration {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return d
}

// buildRelease builds the program with the tags of a release and returns its path. The binary of the test also holds
// the tests, so its memory says nothing about the program.
func buildRelease(tb testing.TB) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "kbsync")
	if out, err := exec.Command("go", "build", "-tags", "disable_grpc_modules", "-o", program, ".").CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return program
}

// skipWithoutProc skips a benchmark that reads /proc where there is none.
func skipWithoutProc(tb testing.TB) {
	tb.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		tb.Skip("this system has no /proc")
	}
}

// processorTime returns the processor time that a process has used.
func processorTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// The second field is the name in parentheses. It may hold spaces and parentheses.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// residentKiB returns the resident memory of a process in KiB.
func residentKiB(tb testing.TB, pid int) int {
	tb.Helper()
	return statusKiB(tb, pid, "VmRSS")
}

// statusKiB returns a field of a process's status in /proc that counts KiB.
func statusKiB(tb testing.TB, pid int, field string) int {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatal("no " + field)
	return 0
}

// openFiles returns the number of open files of a process.
func openFiles(tb testing.TB, pid int) int {
	tb.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		tb.Fatal(err)
	}
	return len(open)
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// A tailBuffer keeps the last part of the bytes that are written to it.
type tailBuffer struct{ data []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	const most = 1 << 16
	t.data = append(t.data, p...)
	if len(t.data) > 2*most {
		t.data = bytes.Clone(t.data[len(t.data)-most:])
	}
	return len(p), nil
}

// newKilling is newFixture.
func newKilling(tb testing.TB, root string) *fixture { return newFixture(tb, root) }
