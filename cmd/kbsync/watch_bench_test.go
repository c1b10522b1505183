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
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// BenchmarkLatency prints the time from the close of a file to the arrival of its content in a quiet tree, with a settle time of
// 200 ms and no wait for a batch. LATENCY_FILES is the number of files.
func BenchmarkLatency(b *testing.B) {
	files := number(b, "LATENCY_FILES", 100)
	root := b.TempDir()
	k := newKilling(b, root)
	e := k.emulator
	for i := range 1000 {
		path := filepath.Join(root, strconv.Itoa(i%50), fmt.Sprintf("doc%d.md", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "document %d", i), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	cmd := k.command("watch", root, "--knowledge-base", "876", "--settle", "200ms", "--batch-wait", "0s", "--rate", "off")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	arrival := func(sum [sha256.Size]byte, known int) time.Time {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			if all := e.Accepted(); len(all) > known {
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
	for deadline := time.Now().Add(time.Minute); len(e.Accepted()) < 1000; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("the first documents never arrived\n%s", log.String())
		}
	}
	for b.Loop() {
		var took []time.Duration
		for i := range files {
			data := fmt.Appendf(nil, "latency %d %d", b.N, i)
			known := len(e.Accepted())
			if err := os.WriteFile(filepath.Join(root, strconv.Itoa(i%50), fmt.Sprintf("new%d.md", i)), data, 0o600); err != nil {
				b.Fatal(err)
			}
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

// BenchmarkIdle prints the processor time and memory that a watch of 100,000 files takes while nothing happens. IDLE is for how
// long, 10 s if it is not set; IDLE_FILES is the number of files.
func BenchmarkIdle(b *testing.B) {
	idle := duration(b, "IDLE", 10*time.Second)
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		b.Skip("there is no /proc here")
	}
	files := number(b, "IDLE_FILES", 100_000)
	k := newKilling(b, corpus(b, files, 200))
	cmd := k.command("watch", k.root, "--knowledge-base", "876", "--include", "**", "--rate", "off", "--poll-min", "100ms", "--batch-documents", "100", "--listen", ":0")
	cmd.Path = released(b)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	store, err := state.Open(b.Context(), state.Options{Path: filepath.Join(k.dir, "kbsync.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
		syncs, err := store.Syncs.All(b.Context())
		if err == nil && len(syncs) == 1 {
			if counts, err := store.Documents.Counts(b.Context(), syncs[0].ID); err == nil && counts[state.Completed] >= files {
				break
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the first pass does not end\n%s", lastLines(log.String(), 20))
		}
	}
	time.Sleep(5 * time.Second) // for what the first pass left to be done
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

// released builds the program as a release has it: the test's own has the tests in memory.
func released(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "kbsync")
	if out, err := exec.Command("go", "build", "-tags", "disable_grpc_modules", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return program
}

// duration is number, of a time.
func duration(b *testing.B, name string, otherwise time.Duration) time.Duration {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return d
}

func processorTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// The name of the program, in brackets, may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func residentKiB(tb testing.TB, pid int) int {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatal("no VmRSS")
	return 0
}
