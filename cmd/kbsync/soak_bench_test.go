package main

import (
	"bytes"
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

// soakFaults is an API that has a bad day: a few requests of a hundred go wrong, in every way there is.
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

// BenchmarkSoak (C12) has a watch follow a tree that changes all the time, into an API that fails all the time, and prints how its
// memory and its open files develop; then the faults end, and everything has to be as on the root. SOAK is for how long, 20 s if
// it is not set.
func BenchmarkSoak(b *testing.B) {
	soak := duration(b, "SOAK", 20*time.Second)
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		b.Skip("there is no /proc here")
	}
	dir := b.TempDir()
	w := newWeather(b, 12)
	k := newKilling(b, w.root)
	w.must(k.emulator.SetFaults(soakFaults))
	cmd := k.command("watch", "soak", "--rate", "off", "--max-delete", "off", "--listen", ":0", "--metrics-file", filepath.Join(dir, "metrics.prom"),
		"--config", filepath.Join(dir, "kbsync.yaml"), "--settle", stormSettle.String(), "--batch-wait", "50ms", "--rescan", "10s",
		"--poll-min", "50ms", "--poll-max", "500ms", "--min-reupload-interval", "200ms")
	w.must(os.WriteFile(filepath.Join(dir, "kbsync.yaml"), fmt.Appendf(nil, "syncs:\n  - name: soak\n    root: %s\n    knowledge_base: 876\n    include: ['**/*.md']\n", w.root), 0o600))
	cmd.Path = released(b)
	log := &tail{}
	cmd.Stderr = log
	w.must(cmd.Start())
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if b.Failed() {
			b.Logf("the watch said:\n%s", lastLines(string(log.data), 60))
		}
	}()
	var resident, files []int
	operations := 0
	every := soak / 20
	for begin, next := time.Now(), time.Now().Add(every); time.Since(begin) < soak; operations++ {
		w.operate()
		time.Sleep(time.Duration(w.chance.IntN(100)) * time.Millisecond)
		if time.Now().After(next) {
			next = next.Add(every)
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
			w.must(err)
			resident = append(resident, residentKiB(b, cmd.Process.Pid)/1024)
			files = append(files, len(open))
		}
	}
	w.must(k.emulator.SetFaults(nil))
	// What was lost twice is held for a person.
	k.converge(w, 3*time.Minute, func() {
		out, err := k.command("retry", "soak", "--config", filepath.Join(dir, "kbsync.yaml"), "--wait=false").CombinedOutput()
		if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
			b.Fatalf("%v: %s", err, out)
		}
	})
	w.must(cmd.Process.Signal(os.Interrupt))
	ended = true
	if err := cmd.Wait(); err != nil {
		b.Errorf("the watch ended with %v", err)
	}
	k.weigh(w, 3)
	b.Logf("%v, %d operations; MiB resident: %v; open files: %v", soak, operations, resident, files)
	if len(resident) < 8 {
		return
	}
	// The first quarter is for what is filled once: caches, pools.
	grown := func(samples []int) (before, after int) {
		n := len(samples) / 4
		return slices.Max(samples[n : 2*n]), slices.Max(samples[len(samples)-n:])
	}
	if before, after := grown(files); after > before+5 {
		b.Errorf("open files grew from %d to %d", before, after)
	}
	if before, after := grown(resident); 4*after > 5*before {
		b.Errorf("memory grew from %d to %d MiB", before, after)
	}
}

// A tail keeps the end of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 1 << 16
	t.data = append(t.data, p...)
	if len(t.data) > 2*most {
		t.data = bytes.Clone(t.data[len(t.data)-most:])
	}
	return len(p), nil
}
