package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// reopen opens the fixture's state by another path, as another process would.
func (r *fixture) reopen(path string) *Store {
	r.t.Helper()
	return r.open(Options{Path: path})
}

// takeLock takes the lock of the fixture's sync.
func (r *fixture) takeLock() *fileLock {
	r.t.Helper()
	l, err := r.sqlite().lockFile(r.t.Context(), r.sync.Name, 0)
	r.must(err)
	return l
}

func (r *fixture) wantLocked(s *Store) {
	r.t.Helper()
	l, err := s.Lock(r.t.Context(), r.sync.Name, 150*time.Millisecond)
	if !errors.Is(err, ErrLocked) {
		if err == nil {
			_ = l.Unlock()
		}
		r.t.Fatalf("the second lock returns %v", err)
	}
	r.t.Log(err)
}

// wantNoSeal begins a batch of a new document before spoil and seals it afterwards.
func (r *fixture) wantNoSeal(want error, spoil func()) {
	r.t.Helper()
	r.put("a.md")
	docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
	b, seals := spec(r, docs)
	id, err := r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	spoil()
	err = r.s.Journal.Seal(r.ctx(), id, seals)
	if !errors.Is(err, want) {
		r.t.Fatalf("Seal returns %v, want %v", err, want)
	}
	r.t.Log(err)
	if _, err := r.s.Journal.Begin(r.ctx(), b); !errors.Is(err, want) {
		r.t.Errorf("Begin returns %v, want %v", err, want)
	}
	if _, err := r.s.Journal.Recover(r.ctx(), r.sync.ID); !errors.Is(err, want) {
		r.t.Errorf("Recover returns %v, want %v", err, want)
	}
	r.must(r.s.Journal.Refuse(r.ctx(), id, Refusal{Message: "not sealed", Disposition: Requeue}))
	// A new connection for reading would open the file that is at the path now.
	var sealed, pending int
	r.must(r.s.update(r.ctx(), func(t *tx) error {
		return t.one(`SELECT (SELECT count(*) FROM batches WHERE sealed_at <> 0),
			(SELECT count(*) FROM documents WHERE state = {doc.pending})`, nil, &sealed, &pending)
	}))
	if sealed != 0 || pending != 1 {
		r.t.Errorf("%d batches are sealed and %d documents pending", sealed, pending)
	}
}

func TestLockIsTheSameByAnyPathToTheState(t *testing.T) {
	r := newFixture(t)
	dir := t.TempDir()
	for name, target := range map[string]string{"dir": filepath.Dir(r.sqlite().path), "kbsync.db": r.sqlite().path} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	l := r.takeLock()
	r.wantLocked(r.reopen(filepath.Join(dir, "kbsync.db")))
	r.wantLocked(r.reopen(filepath.Join(dir, "dir", "kbsync.db")))
	r.must(l.Unlock())
	r.must(r.takeLock().Unlock())
}

// A link may lead to a state that does not exist yet.
func TestStateIsCreatedWhereALinkLeads(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	if err := os.Symlink(filepath.Join("link", "sub", "real.db"), filepath.Join(dir, "kbsync.db")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Path: filepath.Join(dir, "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "real", "sub", "real.db")); err != nil {
		t.Error(err)
	}
}
