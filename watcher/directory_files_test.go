package watcher

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Each lookup takes a second, as on a network file system. Files come in order all the same, each with the time of its own lookup.
func TestFilesOfADirectoryAreLookedUpSeveralAtATime(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 600 {
		want = append(want, fmt.Sprintf("doc-%04d.md", i))
	}
	want = append(want, "doc-0300/inner.md", "few/1.md", "few/2.md")
	slices.Sort(want)
	put(t, dir, want...)
	put(t, dir, "doc-0301.tmp", "few/3.tmp") // not looked up
	synctest.Test(t, func(t *testing.T) {
		d := NewDirectory(dir, DirectoryOptions{})
		d.foreign = func(*folder, node, uint64) bool { return true }
		var looks, running, most atomic.Int64
		d.fault = func(key string) error {
			if key == "" || key[len(key)-1] == '/' {
				return nil
			}
			looks.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			if key == "doc-0444.md" {
				return syscall.EIO
			}
			return nil
		}
		began := time.Now()
		var keys []string
		failed, last := "", time.Time{}
		for e, err := range d.List(t.Context(), "") {
			switch {
			case err != nil:
				failed = fmt.Sprint(len(keys), ": ", err)
				keys = append(keys, "doc-0444.md")
			case e.Seen.After(time.Now()) || time.Since(e.Seen) > looksAhead*time.Second || e.Seen.Before(last):
				t.Errorf("%s was seen at %v", e.Key, e.Seen)
			default:
				keys, last = append(keys, e.Key), e.Seen
			}
		}
		if !slices.Equal(keys, want) || failed != `445: list "doc-0444.md": input/output error` {
			t.Errorf("got %d keys, and after %s", len(keys), failed)
		}
		if n := looks.Load(); n != int64(len(want)) {
			t.Errorf("%d lookups of %d files", n, len(want))
		}
		if took := time.Since(began); took > 90*time.Second || most.Load() > looksAtOnce {
			t.Errorf("it took %v, with up to %d lookups at a time", took, most.Load())
		}
		// A consumer that stops early waits for no more than what is looked at already.
		for range d.List(t.Context(), "") {
			break
		}
		if n := looks.Load() - int64(len(want)); n != looksAhead {
			t.Errorf("%d lookups for the first file", n)
		}
	})
}
