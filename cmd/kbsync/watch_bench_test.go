package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// startWatch starts a watch with a log and ends it with the benchmark.
func startWatch(f *fixture, cmd *exec.Cmd) (log *bytes.Buffer) {
	f.Helper()
	log = &bytes.Buffer{}
	cmd.Stderr = log
	f.must(cmd.Start())
	f.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	return log
}

// BenchmarkLatency prints the time from the close of a file to the arrival of its content, in a quiet tree, with a settle
// time of 200 ms and no wait for a batch. LATENCY_FILES sets the number of files.
func BenchmarkLatency(b *testing.B) {
	files := envInt(b, "LATENCY_FILES", 100)
	f := newFixture(b, b.TempDir())
	for i := range 1000 {
		path := filepath.Join(f.root, strconv.Itoa(i%50), fmt.Sprintf("doc%d.md", i))
		f.must(os.MkdirAll(filepath.Dir(path), 0o700))
		f.must(os.WriteFile(path, fmt.Appendf(nil, "document %d", i), 0o600))
	}
	log := startWatch(f, f.command("watch", f.root, "--knowledge-base", "876", "--settle", "200ms", "--batch-wait", "0s", "--rate", "off"))
	arrival := func(sum [sha256.Size]byte, known int) time.Time {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			if all := f.emulator.Accepted(); len(all) > known {
				for _, a := range all[known:] {
					if a.SHA256 == sum {
						return a.Accepted
					}
				}
			}
		}
		b.Fatalf("a file never arrived\n%s", log.String())
		return time.Time{}
	}
	for deadline := time.Now().Add(time.Minute); len(f.emulator.Accepted()) < 1000; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("the first documents never arrived\n%s", log.String())
		}
	}
	for b.Loop() {
		var took []time.Duration
		for i := range files {
			data := fmt.Appendf(nil, "latency %d %d", b.N, i)
			known := len(f.emulator.Accepted())
			f.must(os.WriteFile(filepath.Join(f.root, strconv.Itoa(i%50), fmt.Sprintf("new%d.md", i)), data, 0o600))
			closed := time.Now()
			took = append(took, arrival(sha256.Sum256(data), known).Sub(closed))
		}
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		b.Logf("from close to arrival, %d files: p50 %v, p99 %v, most %v", files, p50, p99, took[len(took)-1])
		b.ReportMetric(float64(p50.Milliseconds()), "p50-ms")
		b.ReportMetric(float64(p99.Milliseconds()), "p99-ms")
	}
}

// BenchmarkIdle prints the processor time and the memory of a watch of 100,000 files while nothing changes. IDLE sets the
// duration, 10 s by default, and IDLE_FILES the number of files.
func BenchmarkIdle(b *testing.B) {
	idle := envDuration(b, "IDLE", 10*time.Second)
	skipWithoutProc(b)
	files := envInt(b, "IDLE_FILES", 100_000)
	f := newFixture(b, corpus(b, files, 200))
	cmd := f.command("watch", f.root, "--knowledge-base", "876", "--include", "**", "--rate", "off", "--poll-min", "100ms",
		"--batch-documents", "100", "--listen", ":0")
	cmd.Path = buildRelease(b)
	log := startWatch(f, cmd)
	waitForCompleted(b, f, files, log)
	time.Sleep(5 * time.Second) // the watch finishes the work that follows its first pass
	for b.Loop() {
		before := processorTime(b, cmd.Process.Pid)
		time.Sleep(idle)
		used := processorTime(b, cmd.Process.Pid) - before
		share := 100 * used.Seconds() / idle.Seconds()
		resident := residentKiB(b, cmd.Process.Pid)
		b.Logf("%d files, %v idle: %v of a processor, which is %.2f %%; %d MiB resident", files, idle, used, share, resident/1024)
		b.ReportMetric(share, "%core")
		b.ReportMetric(float64(resident)/1024, "MiB")
		if share >= 1 {
			b.Errorf("it takes %.2f %% of a processor", share)
		}
		if resident > 100<<10 {
			b.Errorf("it takes %d MiB", resident/1024)
		}
	}
}

// waitForCompleted waits until the state holds that many completed documents.
func waitForCompleted(b *testing.B, f *fixture, documents int, log *bytes.Buffer) {
	b.Helper()
	// The watch may not have made the state yet, and only a store that may write makes one.
	store, err := state.Open(b.Context(), state.Options{Path: f.state})
	f.must(err)
	defer store.Close()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
		syncs, err := store.Syncs.All(b.Context())
		if err == nil && len(syncs) == 1 {
			if counts, err := store.Documents.Counts(b.Context(), syncs[0].ID); err == nil && counts[state.Completed] >= documents {
				return
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the first pass does not end\n%s", lastLines(log.String(), 20))
		}
	}
}
