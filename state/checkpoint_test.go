package state

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// The main file alone is a backup some seconds after the last write, although the state stays open.
func TestMainFileHasEverythingSoonAfterTheLastWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kbsync.db")
	copied := filepath.Join(t.TempDir(), "copy.db")
	synctest.Test(t, func(t *testing.T) {
		s := openUntilEnd(t, path)
		if _, err := s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * checkpointDelay)
		synctest.Wait()
		copyFile(t, path, copied)
	})
	wantSync(t, copied)
}

// A process that ends while another one has the state open leaves everything in the main file too.
func TestMainFileHasEverythingAfterClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kbsync.db")
	open := func() *Store {
		s, err := Open(t.Context(), Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, other := open(), open()
	if _, err := s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	copyFile(t, path, copied)
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the log is %v, %v", info, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	wantSync(t, copied)
}

// A reader in another process may have an open snapshot for a long time. Neither a write nor a close waits for it.
func TestCheckpointDoesNotWaitForReaders(t *testing.T) {
	r := newFixture(t)
	reader, err := r.sqlite().read.Conn(t.Context())
	r.must(err)
	defer func() { r.must(reader.Close()) }()
	_, err = reader.ExecContext(t.Context(), "BEGIN")
	r.must(err)
	var n int
	r.must(reader.QueryRowContext(t.Context(), "SELECT count(*) FROM syncs").Scan(&n))
	start := time.Now()
	s, err := Open(t.Context(), Options{Path: r.sqlite().path})
	r.must(err)
	_, err = s.Syncs.Ensure(t.Context(), "other", "/other", testDestination, false)
	r.must(err)
	r.must(s.Close())
	if took := time.Since(start); took > 20*time.Second { // the busy timeout is 30 s
		t.Errorf("it took %v", took)
	}
	_, err = reader.ExecContext(t.Context(), "ROLLBACK")
	r.must(err)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantSync(t *testing.T, path string) {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.Syncs.Get(t.Context(), "handbook"); err != nil {
		t.Errorf("the copy has not the sync: %v", err)
	}
}
