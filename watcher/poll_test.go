package watcher

import (
	"testing"
	"testing/synctest"
	"time"
)

// A polled root is dirty again Poll after the end of its scan, however long that took.
func TestPolledRootWaitsForTheEndOfItsScan(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, err := NewDirectory(dir, DirectoryOptions{}).Watch(t.Context(), WatchOptions{NoEvents: true, Poll: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for range 3 {
			time.Sleep(time.Millisecond)
			if got := w.Take(); len(got) != 1 || got[0] != "" {
				t.Fatalf("dirty: %q", got)
			}
			time.Sleep(5 * time.Minute) // the scan
			if got := w.Take(); got != nil {
				t.Errorf("dirty during the scan: %q", got)
			}
			w.Scanned()
			time.Sleep(29 * time.Second)
			w.Scanned() // another scan does not put the poll off
			if got := w.Take(); got != nil {
				t.Errorf("dirty before the time: %q", got)
			}
			time.Sleep(time.Second)
		}
	})
}
