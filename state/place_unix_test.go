//go:build unix

package state

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestRemovedLockFileEndsTheSeals(t *testing.T) {
	r := newFixture(t)
	l := r.takeLock()
	r.wantNoSeal(ErrLockLost, func() { r.must(os.Remove(l.path)) })
	r.must(l.Unlock())
	l = r.takeLock()
	r.upload(map[string]string{"a.md": "A"})
	r.must(l.Unlock())
}

func TestReplacedLockFileEndsTheSeals(t *testing.T) {
	r := newFixture(t)
	l := r.takeLock()
	r.wantNoSeal(ErrLockLost, func() {
		r.must(os.Remove(l.path))
		r.must(os.WriteFile(l.path, nil, 0o600))
	})
	r.must(l.Unlock())
}

// The lock of another sync is none of this sync's business.
func TestRemovedLockFileOfAnotherSyncEndsNoSeal(t *testing.T) {
	r := newFixture(t)
	l := r.takeLock()
	other, err := r.sqlite().lockFile(t.Context(), "other", 0)
	r.must(err)
	r.must(os.Remove(other.path))
	r.put("a.md")
	r.upload(map[string]string{"a.md": "A"})
	r.must(other.Unlock())
	r.must(l.Unlock())
}

// The first holder may have a sealed request on its way. A second holder would send it again.
func TestRemovedLockFileAdmitsNoSecondHolder(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has locks of an open file description")
	}
	r := newFixture(t)
	l := r.takeLock()
	r.must(os.Remove(l.path))
	r.wantLocked(r.s)
	other := r.reopen(r.sqlite().path)
	r.wantLocked(other)
	hard := filepath.Join(filepath.Dir(r.sqlite().path), "second-name.db")
	r.must(os.Link(r.sqlite().path, hard))
	file := lockRange{}
	if err := file.lock(hard, l.offset); !errors.Is(err, errHeld) {
		t.Errorf("by another name of the database: %v", err)
	}
	r.must(file.close())
	r.must(l.Unlock())
	l, err := other.backend.(*sqliteDB).lockFile(t.Context(), r.sync.Name, 0)
	r.must(err)
	r.must(l.Unlock())
}

// A process waits for a lock whose file is removed meanwhile. It must not end up with a file that no other process finds.
func TestWaitForARemovedLockFileTakesTheOneInItsPlace(t *testing.T) {
	r := newFixture(t)
	first := r.takeLock()
	other := r.reopen(r.sqlite().path)
	waited := make(chan *fileLock)
	go func() {
		l, err := other.backend.(*sqliteDB).lockFile(t.Context(), r.sync.Name, time.Minute)
		if err != nil {
			t.Error(err)
		}
		waited <- l
	}()
	time.Sleep(50 * time.Millisecond) // either way the result is the same
	r.must(os.Remove(first.path))
	r.must(first.Unlock())
	second := <-waited
	r.must(second.placed.check())
	r.wantLocked(r.s)
	r.must(second.Unlock())
}

func TestStateThatIsNotInItsPlaceEndsTheSeals(t *testing.T) {
	for name, spoil := range map[string]func(r *fixture, link string){
		"removed":       func(r *fixture, _ string) { r.must(os.Remove(r.sqlite().path)) },
		"moved":         func(r *fixture, _ string) { r.must(os.Rename(r.sqlite().path, r.sqlite().path+".old")) },
		"log removed":   func(r *fixture, _ string) { r.must(os.Remove(r.sqlite().path + "-wal")) },
		"index removed": func(r *fixture, _ string) { r.must(os.Remove(r.sqlite().path + "-shm")) },
		"directory moved": func(r *fixture, _ string) {
			dir := filepath.Dir(r.sqlite().path)
			r.must(os.Rename(dir, dir+".old"))
		},
		"replaced": func(r *fixture, _ string) {
			r.must(os.WriteFile(r.sqlite().path+".new", nil, 0o600))
			r.must(os.Rename(r.sqlite().path+".new", r.sqlite().path))
		},
		"link changed": func(r *fixture, link string) {
			r.must(os.WriteFile(link+".new", nil, 0o600))
			r.must(os.Rename(link+".new", link))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			link := filepath.Join(t.TempDir(), "kbsync.db")
			r.must(os.Symlink(r.sqlite().path, link))
			linked := &fixture{t: t, s: r.reopen(link), sync: r.sync, next: r.next}
			linked.wantNoSeal(ErrMoved, func() { spoil(linked, link) })
		})
	}
}

func TestStateThatIsBackInItsPlaceIsSealedAgain(t *testing.T) {
	r := newFixture(t)
	r.wantNoSeal(ErrMoved, func() { r.must(os.Rename(r.sqlite().path, r.sqlite().path+".old")) })
	r.must(os.Rename(r.sqlite().path+".old", r.sqlite().path))
	r.upload(map[string]string{"a.md": "A"})
}
