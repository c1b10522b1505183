package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// A growth is what a number of documents costs.
type growth struct {
	Documents  int     `json:"documents"`
	First      *series `json:"first_sync"` // in seconds
	Unchanged  *series `json:"nothing_changed"`
	Walk       *series `json:"sorted_walk"`
	StateBytes int64   `json:"state_bytes"`
	BytesEach  float64 `json:"state_bytes_each"` // beyond the key
}

// A workerRate is the rate of a number of workers.
type workerRate struct {
	What    string  `json:"what"`
	Number  int     `json:"number"`
	Rate    float64 `json:"documents_per_second"`
	Missing string  `json:"missing,omitempty"`
}

// growth measures more and more documents in a directory, and is P4 for a directory.
func (h *harness) growth(ctx context.Context) error {
	for _, n := range h.scale.growth {
		g, err := h.grow(ctx, n)
		if err != nil {
			return err
		}
		h.results.Growth = append(h.results.Growth, g)
	}
	all := h.results.Growth
	if len(all) < 2 {
		return nil
	}
	few, many := all[len(all)-2], all[len(all)-1]
	if len(all) > 3 { // 1,000,000 documents are compared with 10,000
		few = all[1]
	}
	r := h.results.row("P4 directory", fmt.Sprintf("%d files in a directory, compared with %d", many.Documents, few.Documents))
	r.atMost("peak memory, nothing changed, compared", many.Unchanged.peak()/few.Unchanged.peak(), "x", 1.2)
	r.atMost("peak memory, nothing changed", many.Unchanged.peak(), "MiB", 60)
	linear := float64(many.Documents) / float64(few.Documents)
	logarithmic := linear * math.Log(float64(many.Documents)) / math.Log(float64(few.Documents))
	r.atMost("time, nothing changed, compared with linear growth", many.Unchanged.value()/few.Unchanged.value()/linear, "x", 1.3)
	r.atMost("time, nothing changed, compared with n log n", many.Unchanged.value()/few.Unchanged.value()/logarithmic, "x", 1)
	r.atMost("time of the first sync compared with n log n", many.First.value()/few.First.value()/logarithmic, "x", 1)
	r.atMost("state compared with n log n", float64(many.StateBytes)/float64(few.StateBytes)/logarithmic, "x", 1)
	if !h.scale.million {
		return nil
	}
	metrics, err := h.goBench(ctx, "internal/cloudtest", ".", "BenchmarkUnchangedMillion", nil)
	if err != nil {
		return err
	}
	r = h.results.row("P4 generated", "1,000,000 generated objects, nothing changed, compared with 10,000 (`make bench-million`)")
	r.atMost("peak memory compared", metrics.get("peak-ratio"), "x", 1.04)
	r.atMost("peak memory", metrics.get("peak-MiB"), "MiB", 54)
	r.atMost("time compared with linear growth", metrics.get("time-ratio"), "x", 1.3)
	return nil
}

func (h *harness) grow(ctx context.Context, n int) (*growth, error) {
	c := corpus{"G" + strconv.Itoa(n), n, 1 << 10}
	if n == h.scale.b.Files {
		c = h.scale.b
	}
	dir, err := h.corpus(c)
	if err != nil {
		return nil, err
	}
	var state string
	first := h.first("kbsync sync", c, dir, &state)
	all, err := h.alternate(ctx, h.scale.growthRuns, "s", contestant{name: "first sync", run: func(ctx context.Context) (sample, error) {
		s, err := first.run(ctx)
		s.value = s.usage.Seconds
		return s, err
	}})
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(state)
	if err != nil {
		return nil, err
	}
	later, err := h.alternate(ctx, h.scale.growthRuns, "s", h.seconds("nothing changed", "", h.sync(dir, state)),
		h.seconds("sorted walk", "", command{path: h.programs.peer, args: []string{"walk", dir}}))
	if err != nil {
		return nil, err
	}
	return &growth{n, all[0], later[0], later[1], info.Size(), float64(info.Size()-c.keys()) / float64(n)}, nil
}

// workers measures the rate of several requests at once, and of several processes on PostgreSQL.
func (h *harness) workers(ctx context.Context) error {
	c := h.scale.a
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("requests at once (--transfers), API takes %v", h.scale.workerDelay)
	for _, n := range h.scale.workers {
		if err := h.api.reset(ctx, settings{Delay: h.scale.workerDelay}); err != nil {
			return err
		}
		state, err := h.newState()
		if err != nil {
			return err
		}
		if _, err := h.run(ctx, h.sync(dir, state, "--transfers", strconv.Itoa(n))); err != nil {
			return err
		}
		got, err := h.api.counts(ctx)
		if err != nil {
			return err
		}
		rate := float64(got.Documents) / got.Last.Sub(got.First).Seconds()
		h.results.Workers = append(h.results.Workers, &workerRate{What: what, Number: n, Rate: rate})
	}
	if !h.scale.postgres {
		return nil
	}
	what = "processes on PostgreSQL with one request at once each, API takes 200 ms (`make postgres-workers`)"
	metrics, err := h.goBench(ctx, ".", "./cmd/kbsync", "BenchmarkPostgresWorkers",
		[]string{"POSTGRES_WORKER_TRANSFERS=1", "POSTGRES_WORKER_DOCUMENTS=400", "TEST_SERVERS=all"})
	if err != nil { // mostly because there is no PostgreSQL
		h.results.Workers = append(h.results.Workers, &workerRate{What: what, Missing: firstLine(err.Error())})
		return nil
	}
	for _, n := range []int{1, 2, 4, 8} {
		h.results.Workers = append(h.results.Workers, &workerRate{What: what, Number: n, Rate: metrics.get(fmt.Sprintf("documents/s-%d", n))})
	}
	return nil
}

// statusRequests is P7, which the benchmark of the tracker measures with a clock of its own.
func (h *harness) statusRequests(ctx context.Context) error {
	var metrics metrics
	if h.scale.benchmarks {
		var err error
		if metrics, err = h.goBench(ctx, ".", "./tracker", "BenchmarkP7Requests", nil); err != nil {
			return err
		}
	}
	r := h.results.row("P7", "10,000 sources that train five minutes (`go test -run '^$' -bench P7 ./tracker`)")
	r.atMost("status requests", metrics.get("requests"), "", 500)
	return nil
}

// metrics are the numbers of a benchmark, by their unit. Of several benchmarks the last one counts.
type metrics map[string]float64

func (m metrics) get(unit string) float64 {
	if value, ok := m[unit]; ok {
		return value
	}
	return math.NaN()
}

// goBench runs a benchmark of the repository, or of a module in it, once.
func (h *harness) goBench(ctx context.Context, module, pkg, name string, env []string) (metrics, error) {
	cmd := exec.CommandContext(ctx, "go", "-C", module, "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", "1x", "-timeout", "2h", pkg)
	cmd.Dir = h.source
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, errors.New(strings.TrimSpace(string(last(out))))
	}
	return parseMetrics(string(out)), nil
}

func parseMetrics(out string) metrics {
	m := metrics{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 { // after the name and the number of runs
			if value, err := strconv.ParseFloat(fields[i], 64); err == nil {
				m[fields[i+1]] = value
			}
		}
	}
	return m
}
