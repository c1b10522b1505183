package watcher

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A serverFixture scans a directory as if it were on a file server with a clock of its own.
type serverFixture struct {
	*scanFixture
	scanner *Scanner
}

func newServerFixture(t *testing.T, foreign bool, stamp func(key string, fp state.Fingerprint) state.Fingerprint) *serverFixture {
	f := &serverFixture{scanFixture: newScanFixture(t)}
	f.root = NewDirectory(f.dir, DirectoryOptions{Settle: 2 * time.Second})
	f.root.now = func() time.Time { return time.Now().Add(f.offset) }
	f.root.stamp, f.root.foreign = stamp, func(*folder, node, uint64) bool { return foreign }
	f.offset = 0
	f.restart()
	return f
}

// restart forgets what the scans have seen.
func (f *serverFixture) restart() {
	f.scanner = NewScanner(f.root, f.opts)
	f.scanner.now = f.root.now
}

// at scans when so much time has passed, and returns the keys that became pending.
func (f *serverFixture) at(offset time.Duration) string {
	f.t.Helper()
	f.offset = offset
	f.store.puts = nil
	r, err := f.scanner.Scan(f.t.Context(), f.store, f.sync(), "")
	if err != nil {
		f.t.Fatal(err)
	}
	if r.Unsettled > 0 && (r.SettleAt.IsZero() || len(r.Again) == 0) {
		f.t.Errorf("nothing says when to look again: %+v", r)
	}
	return strings.Join(f.store.puts, " ")
}

// write writes to a document, as so much later, and keeps the end of the old content.
func (f *serverFixture) write(key, content string) {
	f.t.Helper()
	path := filepath.Join(f.dir, key)
	write(f.t, path, content)
	stamp := time.Now().Add(f.offset)
	if err := os.Chtimes(path, stamp, stamp); err != nil {
		f.t.Fatal(err)
	}
}

func (f *serverFixture) want(got, want string) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("pending are %q, want %q", got, want)
	}
}

// stamped moves the stamps of all files by the offset of a clock. The mtime follows the fixture's clock, and the ctime follows the mtime.
func stamped(by time.Duration) func(string, state.Fingerprint) state.Fingerprint {
	return func(_ string, fp state.Fingerprint) state.Fingerprint {
		fp.MTime += int64(by)
		fp.CTime = fp.MTime
		return fp
	}
}

// The clock of the file server is ahead, behind or wrong altogether, or that of this machine was set back.
func TestHalfAFileIsNotTakenWhateverTheClockSays(t *testing.T) {
	for _, test := range []struct {
		name    string
		foreign bool
		by      time.Duration
	}{
		{"10 s ahead", true, 10 * time.Second},
		{"10 s behind", true, -10 * time.Second},
		{"in another year", true, -20 * 365 * 24 * time.Hour},
		{"the same", true, 0},
		{"set back 10 s", false, 10 * time.Second},
		{"set back an hour", false, time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newServerFixture(t, test.foreign, stamped(test.by))
			f.write("a.md", "half")
			f.want(f.at(0), "")
			f.offset = time.Second
			f.write("a.md", "half of it")
			f.want(f.at(time.Second), "")
			f.want(f.at(2500*time.Millisecond), "")
			f.want(f.at(3100*time.Millisecond), "a.md")
			f.want(f.at(4*time.Second), "")
			// An edit of a known document, and a second document.
			f.write("a.md", "all of it, and more")
			f.write("b.md", "b")
			f.want(f.at(4*time.Second), "")
			f.want(f.at(6100*time.Millisecond), "b.md a.md") // edits are recorded last
		})
	}
}

// The wall clock of this machine is set forward: what was just written looks old.
func TestHalfAFileIsNotTakenAfterTheClockWasSetForward(t *testing.T) {
	f := newServerFixture(t, false, stamped(0))
	var step time.Duration
	f.scanner.wall = func(t time.Time) time.Time { return t.Add(step).Round(0) }
	f.want(f.at(0), "")
	f.write("a.md", "half")
	step = time.Hour
	f.want(f.at(0), "")
	f.want(f.at(time.Second), "")
	f.want(f.at(2100*time.Millisecond), "a.md")
	// From then on the stamps count again.
	f.write("old.md", "old")
	step += 50 * time.Millisecond // too little for a step
	f.want(f.at(3*time.Second), "old.md")
}

// More documents than a Scanner remembers settle a part at a time.
func TestUnsettledDocumentsBeyondTheMemoryAreTakenLater(t *testing.T) {
	s := newScanFixture(t)
	root := &treeOf{listed{}, s.root}
	for i := range keptUnsettled + 10 {
		root.entries = append(root.entries, Entry{Key: fmt.Sprintf("%06d", i), Foreign: true, Fingerprint: state.Fingerprint{Size: 1, MTime: 1}})
	}
	scanner := NewScanner(root, s.opts)
	for i, want := range []Result{{Unsettled: keptUnsettled + 10, Postponed: 10}, {New: keptUnsettled, Unsettled: 10}, {New: 10}} {
		for j := range root.entries {
			root.entries[j].Seen = scanner.began.Add(time.Duration(1+3*i) * time.Second)
		}
		r, err := scanner.Scan(t.Context(), s.store, s.sync(), "")
		if err != nil || r.New != want.New || r.Unsettled != want.Unsettled || r.Postponed != want.Postponed || len(scanner.unsettled) > keptUnsettled {
			t.Errorf("scan %d: %d new, %d unsettled, %d postponed, %v", i, r.New, r.Unsettled, r.Postponed, err)
		}
	}
}

// A treeOf is a made-up listing of a directory.
type treeOf struct {
	listed
	DirectoryTree
}

// read reads the version of a document that the state knows.
func (f *serverFixture) read(key string) (string, error) {
	f.t.Helper()
	r, err := f.root.Open(f.t.Context(), key, f.store.known[key].Fingerprint)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

// Documents whose stamps never hold still are accepted when size and content agree twice.
func TestContentDecidesWhereStampsNeverHoldStill(t *testing.T) {
	for name, stamp := range map[string]func(n int64, fp *state.Fingerprint){
		"two replicas with other times": func(n int64, fp *state.Fingerprint) { fp.MTime += n % 2 * 2e6; fp.CTime = fp.MTime },
		"ctime is always now":           func(n int64, fp *state.Fingerprint) { fp.CTime = time.Now().UnixNano() + n },
		"inodes are always new":         func(n int64, fp *state.Fingerprint) { fp.Inode += uint64(n) },
		"each look changes mtime":       func(n int64, fp *state.Fingerprint) { fp.MTime += n * 1e6; fp.CTime = fp.MTime },
	} {
		t.Run(name, func(t *testing.T) {
			looks := int64(0)
			f := newServerFixture(t, true, func(_ string, fp state.Fingerprint) state.Fingerprint {
				looks++
				fp.MTime -= fp.MTime % 1e9
				fp.CTime = fp.MTime
				stamp(looks, &fp)
				return fp
			})
			f.write("a.md", "content")
			now, readings := time.Duration(0), 0
			synced := func(want string) {
				t.Helper()
				for readings = 0; readings < 4; {
					if now += 3 * time.Second; f.at(now) == "" {
						continue
					}
					readings++
					got, err := f.read("a.md")
					if err == nil {
						if got != want {
							t.Fatalf("read %q, want %q", got, want)
						}
						return
					}
					if _, again := f.read("a.md"); !errors.Is(err, state.ErrChanged) || !errors.Is(again, state.ErrChanged) {
						t.Fatalf("%v; read again at once: %v", err, again)
					}
				}
				t.Fatal("never accepted")
			}
			synced("content")
			if readings != 2 {
				t.Errorf("accepted after %d readings", readings)
			}
			if n, key := f.root.Unsteady(); n != 1 || key != "a.md" {
				t.Errorf("%d unsteady documents, such as %q", n, key)
			}
			if name != "each look changes mtime" { // where only a reading can tell
				for range 3 {
					now += 3 * time.Second
					f.want(f.at(now), "")
				}
			}
			if got, err := f.read("a.md"); err != nil || got != "content" {
				t.Errorf("a second reading: %q, %v", got, err)
			}
			now += 3 * time.Second
			f.offset = now
			f.write("a.md", "CONTENT")
			synced("CONTENT")
		})
	}
}

// A file that keeps its size while it is written, as downloaders do, is not taken before its content holds still.
func TestContentThatMovesIsNotTaken(t *testing.T) {
	for name, foreign := range map[string]bool{"on a file server": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t, foreign, stamped(0))
			f.opts.MaxWait = 10 * time.Second
			f.restart()
			now, readings := time.Duration(0), 0
			for i := range 30 {
				f.offset = now
				f.write("a.md", fmt.Sprintf("block %04d", i))
				if f.at(now) != "" {
					readings++
					if got, err := f.read("a.md"); !errors.Is(err, state.ErrChanged) {
						t.Fatalf("half of it was read: %q, %v", got, err)
					}
				}
				now += 1500 * time.Millisecond
			}
			if readings < 2 {
				t.Errorf("%d readings", readings)
			}
			// It is complete, and its stamps hold still. The first readings of it may have to be compared once more.
			for range 5 {
				if now += 3 * time.Second; f.at(now) != "" {
					if got, err := f.read("a.md"); err == nil {
						if got != "block 0029" {
							t.Errorf("read %q", got)
						}
						return
					}
				}
			}
			t.Error("never taken")
		})
	}
}
