package watcher

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// corpusB creates 100,000 files in 4,051 directories.
func corpusB(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	n := 0
	for i := range 50 {
		for j := range 80 {
			sub := filepath.Join(dir, fmt.Sprintf("dir%02d", i), fmt.Sprintf("sub%02d", j))
			if err := os.MkdirAll(sub, 0o700); err != nil {
				b.Fatal(err)
			}
			for k := range 25 {
				if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("document-%02d.md", k)), []byte("x"), 0o600); err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
	}
	b.Logf("%d files", n)
	return dir
}

// referenceWalk is a sorted walk with ReadDir and Info, for comparison.
func referenceWalk(dir string) (n int, size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n++
		size += info.Size()
		return nil
	})
	if err != nil {
		panic(err)
	}
	return n, size
}

// BenchmarkUnchanged compares a scan of 100,000 unchanged files with a plain walk.
func BenchmarkUnchanged(b *testing.B) {
	dir := corpusB(b)
	d := NewDirectory(dir, DirectoryOptions{})
	var known []state.KnownDocument
	for e, err := range d.List(b.Context(), "") {
		if err != nil {
			b.Fatal(err)
		}
		known = append(known, state.KnownDocument{Key: e.Key, Fingerprint: e.Fingerprint})
	}
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			if n, _ := referenceWalk(dir); n != len(known) {
				b.Fatal(n)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			drain(b, d.List(b.Context(), ""))
		}
	})
	b.Run("list and diff", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b)()
		for b.Loop() {
			for c, err := range changesOf(d.List(b.Context(), ""), stream(known, nil)) {
				b.Fatal(c, err)
			}
		}
	})
}

// BenchmarkUnchangedScan is BenchmarkUnchanged with the state on disk.
func BenchmarkUnchangedScan(b *testing.B) {
	d := NewDirectory(corpusB(b), DirectoryOptions{})
	store, err := state.Open(b.Context(), state.Options{Path: filepath.Join(b.TempDir(), "kbsync.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	sync, err := store.Syncs.Ensure(b.Context(), "docs", "", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
	if err != nil {
		b.Fatal(err)
	}
	scanner := NewScanner(d, ScanOptions{})
	if _, err := scanner.Scan(b.Context(), store.Scans, sync, ""); err != nil {
		b.Fatal(err)
	}
	defer reportCPU(b)()
	for b.Loop() {
		if r, err := scanner.Scan(b.Context(), store.Scans, sync, ""); err != nil || r.New+r.Changed > 0 {
			b.Fatal(r, err)
		}
	}
}

func drain[T any](b *testing.B, seq iter.Seq2[T, error]) {
	for _, err := range seq {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// reportCPU reports the CPU time of an iteration, which depends less on other load of the machine than the wall time.
func reportCPU(b *testing.B) func() {
	before := cpuTime()
	return func() { b.ReportMetric(float64((cpuTime()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }
}

// BenchmarkIdle watches 100,000 unchanged files. It reports the share of one core, the heap in use, and the time to set the watches.
func BenchmarkIdle(b *testing.B) {
	d := NewDirectory(corpusB(b), DirectoryOptions{})
	before := heapInUse()
	for b.Loop() {
		began := time.Now()
		w, err := d.Watch(b.Context(), WatchOptions{})
		if err != nil {
			b.Fatal(err)
		}
		<-w.Wake()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-begin")
		if s := w.Stats(); s.Directories != 4051 {
			b.Fatalf("%+v", s)
		}
		b.ReportMetric(float64(heapInUse()-before)/(1<<20), "MiB")
		cpu := cpuTime()
		time.Sleep(10 * time.Second)
		b.ReportMetric(float64(cpuTime()-cpu)/float64(10*time.Second)*100, "%core")
		if dirty := w.Take(); len(dirty) != 1 || dirty[0] != "" {
			b.Fatalf("dirty: %q", dirty)
		}
		w.Close()
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// BenchmarkWake measures the time from the close of a file to the wakeup that names it.
func BenchmarkWake(b *testing.B) {
	dir := b.TempDir()
	put(b, dir, "a/b/c.md")
	d := NewDirectory(dir, DirectoryOptions{})
	w, err := d.Watch(b.Context(), WatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	<-w.Wake()
	w.Take()
	for i := 0; b.Loop(); i++ {
		key := fmt.Sprintf("a/b/%d.md", i)
		write(b, filepath.Join(dir, key), "x")
		for !slices.Contains(w.Take(), key) {
			<-w.Wake()
		}
	}
}
