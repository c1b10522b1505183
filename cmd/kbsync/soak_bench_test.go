package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// soakHooks start processes of their own, and one of them outlives the time limit.
const soakHooks = `    rescan: 10s
    hooks:
      on_success: sleep 0.2 & sleep 0.1
      on_failure: sleep 60 & sleep 60
      on_orphan: exit 1
      timeout: 1s
`

// A soakSample is what a process uses at one moment. Memory is in MiB: what is resident, the pages of the program's file among it, Go's
// heap in use, and what Go keeps of a former heap and has not returned yet.
type soakSample struct{ resident, program, heap, kept, files, goroutines, processes int }

// BenchmarkSoak watches a tree that changes all the time and uploads it to an API that fails all the time. As in a storm the watch is
// disturbed. The benchmark prints what the watch uses over time, then ends the faults and checks that everything on the root was
// uploaded. SOAK sets the duration, 20 s by default, and SOAK_OUT the directory for the samples and their plot.
func BenchmarkSoak(b *testing.B) {
	soak := envDuration(b, "SOAK", 20*time.Second)
	skipWithoutProc(b)
	f := newTreeFixture(b, "sqlite", 12)
	f.must(f.emulator.SetFaults(soakFaults))
	w := newStormWatch(f, 12)
	w.program, w.also = buildRelease(b), soakHooks
	w.start("--listen", ":0", "--metrics-file", filepath.Join(b.TempDir(), "metrics.prom"))
	defer w.show(b)
	_, address, _ := strings.Cut(w.log.text(), "msg=listening address=")
	address, _, _ = strings.Cut(address, "\n")
	var samples []soakSample
	operations := 0
	every := soak / 60
	defer func() { writeSoak(b, samples, every) }() // also of a soak that fails
	for began, next := time.Now(), time.Now().Add(every); time.Since(began) < soak; operations++ {
		f.change()
		time.Sleep(time.Duration(f.random.IntN(100)) * time.Millisecond)
		if w.random.IntN(disturbEvery) == 0 {
			w.disturb()
		}
		if time.Now().After(next) {
			next = next.Add(every)
			w.endShortage() // or the process may have no file for the connection
			samples = append(samples, sampleProcess(b, w.cmd.Process.Pid, address))
		}
	}
	w.endShortage()
	f.must(f.emulator.SetFaults(nil))
	// kbsync holds a document after two lost answers. Only retry sends it again.
	f.waitUntilSynced(3*time.Minute, func() {
		out, err := f.command("retry", "storm", "--config", w.config, "--wait=false").CombinedOutput()
		if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
			b.Fatalf("%v: %s", err, out)
		}
	})
	w.end()
	b.Logf("%v, %d operations; MiB resident, of the program's file, of the heap and kept of it, open files, goroutines and child processes: %v", soak, operations, samples)
	f.checkUploads(3)
	checkGrowth(b, samples)
}

func sampleProcess(tb testing.TB, pid int, address string) soakSample {
	tb.Helper()
	values := goMetrics(tb, address, "go_memstats_heap_inuse_bytes", "go_memstats_heap_idle_bytes", "go_memstats_heap_released_bytes",
		"go_goroutines")
	return soakSample{
		resident: residentKiB(tb, pid) / 1024, program: statusKiB(tb, pid, "RssFile") / 1024,
		heap: values[0] >> 20, kept: (values[1] - values[2]) >> 20,
		files: openFiles(tb, pid), goroutines: values[3], processes: children(tb, pid),
	}
}

// goMetrics reads values from the metrics that a process serves.
func goMetrics(tb testing.TB, address string, names ...string) []int {
	tb.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read to its end
	values := make([]int, len(names))
	for i, name := range names {
		_, rest, _ := strings.Cut(string(data), "\n"+name+" ")
		text, _, _ := strings.Cut(rest, "\n")
		n, numberErr := strconv.ParseFloat(text, 64)
		err = errors.Join(err, numberErr)
		values[i] = int(n)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return values
}

// children returns the number of processes that a process has started and that have not ended, or that it has not waited for.
func children(tb testing.TB, pid int) int {
	tb.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Fatal(err) // a thread may have ended
		}
		n += len(strings.Fields(string(pids)))
	}
	return n
}

// checkGrowth compares the last samples with those after the start. The first quarter fills caches and pools.
func checkGrowth(b *testing.B, samples []soakSample) {
	b.Helper()
	if len(samples) < 8 {
		return
	}
	for name, c := range map[string]struct {
		of     func(soakSample) int
		slack  int // for what comes and goes
		factor float64
	}{
		"memory (MiB)":    {func(s soakSample) int { return s.resident }, 0, 1.25},
		"open files":      {func(s soakSample) int { return s.files }, 5, 1},
		"goroutines":      {func(s soakSample) int { return s.goroutines }, 10, 1},
		"child processes": {func(s soakSample) int { return s.processes }, 2, 1},
	} {
		values := make([]int, len(samples))
		for i, s := range samples {
			values[i] = c.of(s)
		}
		n := len(values) / 4
		before, after := slices.Max(values[n:2*n]), slices.Max(values[len(values)-n:])
		if float64(after) > c.factor*float64(before)+float64(c.slack) {
			b.Errorf("%s grew from %d to %d", name, before, after)
		}
	}
}
