package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// soakFaults make a few requests of a hundred fail, in every way that the emulator knows.
var soakFaults = &emulator.Faults{Seed: 1, Rules: []emulator.Fault{
	{Operation: emulator.OpUpload, Probability: .02, Status: 503, RetryAfter: "1"},
	{Operation: emulator.OpUpload, Probability: .01, Status: 429, RetryAfter: "1"},
	{Operation: emulator.OpUpload, Probability: .01, Reset: true, At: emulator.Middle},
	{Operation: emulator.OpUpload, Probability: .005, Status: 502, At: emulator.After},
	{Operation: emulator.OpUpload, Probability: .005, Status: 500, At: emulator.Read},
	{Operation: emulator.OpUpload, Probability: .005, Answer: "truncated"},
	{Operation: emulator.OpUpload, Probability: .005, DropFields: 1},
	{Operation: emulator.OpUpload, Probability: .02, Latency: 2 * time.Second},
	{Operation: emulator.OpStatus, Probability: .05, Status: 500},
	{Operation: emulator.OpStatus, Probability: .02, Status: 429, RetryAfter: "1"},
	{Operation: emulator.OpStatus, Probability: .02, Reset: true},
	{Operation: emulator.OpStatus, Probability: .02, DropSources: 1},
	{Operation: emulator.OpStatus, Probability: .02, Word: "cooking"},
	{Operation: emulator.OpStatus, Probability: .02, Answer: "html"},
}}

// BenchmarkSoak watches a tree that changes all the time and uploads it to an API that fails all the time. It prints the
// memory and the open files of the watch over time, then ends the faults and checks that everything on the root was uploaded.
// SOAK sets the duration, 20 s by default.
func BenchmarkSoak(b *testing.B) {
	soak := envDuration(b, "SOAK", 20*time.Second)
	skipWithoutProc(b)
	f := newTreeFixture(b, "sqlite", 12)
	f.must(f.emulator.SetFaults(soakFaults))
	config := filepath.Join(b.TempDir(), "kbsync.yaml")
	f.must(os.WriteFile(config, fmt.Appendf(nil,
		"syncs:\n  - name: soak\n    root: %s\n    knowledge_base: 876\n    include: ['**/*.md']\n", f.root), 0o600))
	cmd := f.command("watch", "soak", "--rate", "off", "--max-delete", "off", "--listen", ":0", "--config", config,
		"--metrics-file", filepath.Join(b.TempDir(), "metrics.prom"), "--settle", treeSettle.String(), "--batch-wait", "50ms",
		"--rescan", "10s", "--poll-min", "50ms", "--poll-max", "500ms", "--min-reupload-interval", "200ms")
	cmd.Path = buildRelease(b)
	log := &tailBuffer{}
	cmd.Stderr = log
	f.must(cmd.Start())
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if b.Failed() {
			b.Logf("log of the watch:\n%s", lastLines(string(log.data), 60))
		}
	}()
	var resident, files []int
	operations := 0
	every := soak / 20
	for began, next := time.Now(), time.Now().Add(every); time.Since(began) < soak; operations++ {
		f.change()
		time.Sleep(time.Duration(f.random.IntN(100)) * time.Millisecond)
		if time.Now().After(next) {
			next = next.Add(every)
			resident = append(resident, residentKiB(b, cmd.Process.Pid)/1024)
			files = append(files, openFiles(b, cmd.Process.Pid))
		}
	}
	f.must(f.emulator.SetFaults(nil))
	// kbsync holds a document after two lost answers. Only retry sends it again.
	f.waitUntilSynced(3*time.Minute, func() {
		out, err := f.command("retry", "soak", "--config", config, "--wait=false").CombinedOutput()
		if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
			b.Fatalf("%v: %s", err, out)
		}
	})
	f.must(cmd.Process.Signal(os.Interrupt))
	ended = true
	if err := cmd.Wait(); err != nil {
		b.Errorf("the watch ended with %v", err)
	}
	f.checkUploads(3)
	b.Logf("%v, %d operations; MiB resident: %v; open files: %v", soak, operations, resident, files)
	checkGrowth(b, resident, files)
}

// checkGrowth compares the last samples with those after the start. The first quarter fills caches and pools.
func checkGrowth(b *testing.B, resident, files []int) {
	b.Helper()
	if len(resident) < 8 {
		return
	}
	growth := func(samples []int) (before, after int) {
		n := len(samples) / 4
		return slices.Max(samples[n : 2*n]), slices.Max(samples[len(samples)-n:])
	}
	if before, after := growth(files); after > before+5 {
		b.Errorf("open files grew from %d to %d", before, after)
	}
	if before, after := growth(resident); 4*after > 5*before {
		b.Errorf("memory grew from %d to %d MiB", before, after)
	}
}
