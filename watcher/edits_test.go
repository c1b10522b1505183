package watcher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// An editFixture has documents that were uploaded, and counts the ones that were compared.
type editFixture struct {
	*scanFixture
	edited   map[string]bool // keys with another content
	compared int
}

func newEditFixture(t *testing.T, n int) *editFixture {
	f := &editFixture{scanFixture: newScanFixture(t), edited: map[string]bool{}}
	f.opts.MaxChange = Limit{Percent: 50, ByPercent: true, Always: 20}
	f.opts.Edited = func(_ context.Context, _ state.Sync, documents []state.Change) (edited int, _ error) {
		f.compared += len(documents)
		for _, d := range documents {
			if f.edited[d.Key] {
				edited++
			}
		}
		return edited, nil
	}
	for i := range n {
		write(t, f.path(i), fmt.Sprintf("text %04d", i))
	}
	f.scan("", fmt.Sprintf("%d new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled", n))
	return f
}

func (f *editFixture) path(i int) string {
	return filepath.Join(f.dir, fmt.Sprintf("%04d.md", i))
}

// touch changes the times of documents, and with edit their content too.
func (f *editFixture) touch(from, to int, edit bool) {
	f.t.Helper()
	for i := from; i < to; i++ {
		at := time.Now().Add(-time.Duration(i+1) * time.Second)
		if err := os.Chtimes(f.path(i), at, at); err != nil {
			f.t.Fatal(err)
		}
		f.edited[fmt.Sprintf("%04d.md", i)] = edit
	}
}

func (f *editFixture) rewrite(from, to int, text string) {
	f.t.Helper()
	for i := from; i < to; i++ {
		write(f.t, f.path(i), text)
	}
}

func TestMaxChange(t *testing.T) {
	t.Run("other sizes need no comparison", func(t *testing.T) {
		f := newEditFixture(t, 60)
		f.rewrite(0, 30, "another text")
		f.scan("", "0 new 30 changed 30 unchanged 0 removed 0 renamed 0 unsettled")
		f.rewrite(0, 31, "yet another text")
		f.halts(GuardMaxChange, "31 of 60", "--max-change 50%", "run again with --max-change 31", "0000.md")
		f.halts(GuardMaxChange, "31 of 60") // nothing was recorded, so that the next scan finds the same
		if len(f.store.puts) > 0 || f.compared > 0 {
			t.Errorf("recorded %v, compared %d", f.store.puts, f.compared)
		}
		f.opts.MaxChange = Limit{Count: 31}
		f.scan("", "0 new 31 changed 29 unchanged 0 removed 0 renamed 0 unsettled")
	})
	t.Run("the free twenty belong to the default", func(t *testing.T) {
		f := newEditFixture(t, 25)
		f.rewrite(0, 20, "another text")
		f.scan("", "0 new 20 changed 5 unchanged 0 removed 0 renamed 0 unsettled")
		f.rewrite(0, 2, "yet another text")
		f.opts.MaxChange = Limit{Percent: 4, ByPercent: true}
		f.halts(GuardMaxChange, "2 of 25", "--max-change 4%")
	})
	t.Run("empty documents are left out only afterwards", func(t *testing.T) {
		f := newEditFixture(t, 60)
		f.rewrite(0, 60, "")
		f.halts(GuardMaxChange, "60 of 60", "60 of them are empty now")
		if k := f.store.known["0000.md"]; k.Skip != "" {
			t.Errorf("recorded: %+v", k)
		}
		f.opts.MaxChange = Limit{Count: 60}
		f.scan("", "0 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
		if k := f.store.known["0000.md"]; k.Skip != "empty" {
			t.Errorf("not recorded: %+v", k)
		}
	})
	t.Run("a touched tree is no change", func(t *testing.T) {
		f := newEditFixture(t, 60)
		f.touch(0, 25, false)
		f.scan("", "0 new 25 changed 35 unchanged 0 removed 0 renamed 0 unsettled")
		if f.compared > 0 {
			t.Errorf("compared %d documents, although all together are within the limit", f.compared)
		}
		f.touch(0, 60, false)
		f.scan("", "0 new 60 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
		if f.compared == 0 {
			t.Error("no document was compared")
		}
	})
	t.Run("documents that may only have been saved again are compared", func(t *testing.T) {
		f := newEditFixture(t, 60)
		f.opts.Resizable = func(string, int64) bool { return true }
		f.rewrite(0, 60, "another text")
		f.scan("", "0 new 60 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
		if f.compared == 0 {
			t.Error("no document was compared")
		}
	})
	t.Run("documents of the same size are compared until they decide", func(t *testing.T) {
		f := newEditFixture(t, 3000)
		f.touch(0, 3000, true)
		f.halts(GuardMaxChange, "3000 of 3000", "--max-change 3000") // at most: a run with that number passes
		if f.compared <= 1500 || f.compared > 1500+checkAtOnce {
			t.Errorf("compared %d documents", f.compared)
		}
		f.opts.Edited = nil // everything counts
		f.halts(GuardMaxChange, "3000 of 3000")
		f.opts.MaxChange = Limit{Count: 3000}
		f.scan("", "0 new 3000 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	})
	t.Run("a guard of removals keeps the edits out too", func(t *testing.T) {
		f := newEditFixture(t, 60)
		f.rewrite(0, 5, "another text")
		f.rewrite(5, 10, "")
		for i := 20; i < 60; i++ {
			if err := os.Remove(f.path(i)); err != nil {
				t.Fatal(err)
			}
		}
		f.halts(GuardMaxDelete, "40 of 60")
		if k := f.store.known["0005.md"]; len(f.store.puts) > 0 || k.Skip != "" {
			t.Errorf("recorded %v, %+v", f.store.puts, k)
		}
		f.opts.MaxDelete = Limit{Count: 40}
		f.scan("", "0 new 5 changed 10 unchanged 40 removed 0 renamed 0 unsettled")
	})
	t.Run("documents that were never uploaded do not count", func(t *testing.T) {
		f := newEditFixture(t, 60)
		for key, k := range f.store.known {
			k.NeverUploaded = true
			f.store.known[key] = k
		}
		f.rewrite(0, 60, "another text")
		f.scan("", "0 new 60 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	})
	t.Run("a part is weighed with the whole root", func(t *testing.T) {
		f := newEditFixture(t, 100)
		for i := range 30 {
			write(t, filepath.Join(f.dir, "sub", fmt.Sprintf("%d.md", i)), "text")
		}
		f.scan("", "30 new 0 changed 100 unchanged 0 removed 0 renamed 0 unsettled")
		for i := range 30 {
			write(t, filepath.Join(f.dir, "sub", fmt.Sprintf("%d.md", i)), "another text")
		}
		f.scan("sub/", "0 new 30 changed 100 unchanged 0 removed 0 renamed 0 unsettled")
	})
}

// More edits than are kept in memory are recorded by listing again.
func TestMoreEditsThanAreKept(t *testing.T) {
	s := newScanFixture(t)
	s.opts.MaxChange = Limit{Percent: 100, ByPercent: true}
	const n = keptEdits + 500
	root := listed{identity: "1"}
	for i := range n {
		key := fmt.Sprintf("%05d", i)
		root.entries = append(root.entries, Entry{Key: key, Fingerprint: state.Fingerprint{Size: 2}})
		s.store.known[key] = state.KnownDocument{Key: key, Fingerprint: state.Fingerprint{Size: 1}}
	}
	root.entries[7].Skip = "empty"
	r, err := NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if err != nil || r.Changed != n-1 || len(s.store.puts) != n-1 || s.store.known["00007"].Skip != "empty" {
		t.Errorf("%d changed, %d recorded, %v", r.Changed, len(s.store.puts), err)
	}
}

// A directory that stays behind empty is weighed as the root is, whatever its share.
func TestVacantDirectory(t *testing.T) {
	make := func(t *testing.T, n int) *scanFixture {
		s := newScanFixture(t)
		for i := range 100 {
			put(t, s.dir, fmt.Sprintf("%03d.md", i))
		}
		for i := range n {
			put(t, s.dir, fmt.Sprintf("mount/deep/%d.md", i))
		}
		put(t, s.dir, "mountain/a.md")
		s.scan("", fmt.Sprintf("%d new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled", 101+n))
		return s
	}
	empty := func(s *scanFixture, dir string) {
		if err := os.RemoveAll(filepath.Join(s.dir, dir)); err != nil {
			s.t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	t.Run("empty", func(t *testing.T) {
		s := make(t, aFew+1)
		empty(s, "mount")
		s.halts(GuardEmptyDirectory, `"mount/"`, "held 6 documents", "--allow-empty")
		s.opts.AllowEmpty = true
		s.scan("", "0 new 0 changed 101 unchanged 6 removed 0 renamed 0 unsettled")
	})
	t.Run("with an empty directory in it", func(t *testing.T) {
		s := make(t, aFew+1)
		empty(s, "mount/deep")
		s.halts(GuardEmptyDirectory, `"mount/"`)
	})
	t.Run("a few", func(t *testing.T) {
		s := make(t, aFew)
		empty(s, "mount")
		s.scan("", "0 new 0 changed 101 unchanged 5 removed 0 renamed 0 unsettled")
	})
	t.Run("gone", func(t *testing.T) {
		s := make(t, aFew+1)
		if err := os.RemoveAll(filepath.Join(s.dir, "mount")); err != nil {
			t.Fatal(err)
		}
		s.scan("", "0 new 0 changed 101 unchanged 6 removed 0 renamed 0 unsettled")
	})
	t.Run("left out by a filter", func(t *testing.T) {
		s := make(t, aFew+1)
		write(t, filepath.Join(s.dir, "mount", ignoreName), "*\n")
		s.scan("", "0 new 0 changed 101 unchanged 6 removed 0 renamed 0 unsettled")
	})
	t.Run("renamed", func(t *testing.T) {
		s := make(t, 30)
		if err := os.Rename(filepath.Join(s.dir, "mount", "deep"), filepath.Join(s.dir, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		s.scan("", "30 new 0 changed 101 unchanged 30 removed 30 renamed 0 unsettled")
	})
	t.Run("as a part", func(t *testing.T) {
		s := make(t, aFew+1)
		empty(s, "mount")
		_, err := s.try("mount/")
		if !isGuard(err, GuardEmptyDirectory) {
			t.Errorf("got %v", err)
		}
	})
}

// A plan asks the guards and writes nothing.
func TestChangesAsksTheGuards(t *testing.T) {
	for want, happens := range map[Guard]func(f *editFixture){
		"":                  func(f *editFixture) { f.touch(0, 60, false) },
		GuardMaxChange:      func(f *editFixture) { f.rewrite(0, 60, "") },
		GuardMaxDelete:      func(f *editFixture) { clearRoot(f, 40) },
		GuardEmpty:          func(f *editFixture) { clearRoot(f, 60) },
		GuardEmptyDirectory: func(f *editFixture) { clearRoot(f, 0) },
	} {
		f := newEditFixture(t, 60)
		if want == GuardEmptyDirectory {
			for i := range 10 {
				put(t, f.dir, fmt.Sprintf("sub/%d.md", i))
			}
			f.scan("", "10 new 0 changed 60 unchanged 0 removed 0 renamed 0 unsettled")
			for i := range 10 {
				if err := os.Remove(filepath.Join(f.dir, "sub", fmt.Sprintf("%d.md", i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		happens(f)
		f.store.fail = fmt.Errorf("a plan must not write")
		var r Result
		for _, err := range NewScanner(f.root, f.opts).Changes(t.Context(), f.store, f.sync(), "", &r) {
			if err != nil {
				t.Fatal(err)
			}
		}
		got := Guard("")
		if r.Halted != nil {
			got = r.Halted.Guard
		}
		if got != want {
			t.Errorf("the guard is %q, want %q: %v", got, want, r.Halted)
		}
	}
}

func clearRoot(f *editFixture, n int) {
	for i := range n {
		if err := os.Remove(f.path(i)); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestLimit(t *testing.T) {
	half := Limit{Percent: 50, ByPercent: true}
	for _, test := range []struct {
		limit    Limit
		n, known int
		exceeded bool
	}{
		{half, 5, 10, false}, {half, 6, 10, true}, {Limit{Percent: 50, ByPercent: true, Always: 20}, 20, 20, false},
		{Limit{Percent: 50, ByPercent: true, Always: 20}, 21, 41, true}, {Limit{Count: 3}, 3, 1000, false}, {Limit{Count: 3}, 4, 1000, true},
		{Limit{}, 1, 1000, true}, {Limit{}, 0, 0, false}, {Limit{Percent: 100, ByPercent: true}, 1000, 1000, false},
	} {
		if got := test.limit.exceeded(test.n, test.known); got != test.exceeded {
			t.Errorf("%v of %d by %s: %v", test.n, test.known, test.limit, got)
		}
	}
	if !strings.Contains(half.String(), "50%") {
		t.Error(half)
	}
}
