package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// copyState copies a state that no process uses, for a work that changes it.
func (h *harness) copyState(from string) (to string, err error) {
	if to, err = h.newState(); err != nil {
		return "", err
	}
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return to, errors.Join(err, out.Close())
}

// oneChange is P11: cron, one changed file, and a training that takes a second.
func (h *harness) oneChange(ctx context.Context) error {
	c := h.scale.b
	dir, known, err := h.knownB(ctx)
	if err != nil {
		return err
	}
	state, err := h.copyState(known)
	if err != nil {
		return err
	}
	block, edition, requests, dayAgo := text(), 0, 0, time.Now().Add(-24*time.Hour)
	defer func() { _ = c.save(dir, block, 0, 0, dayAgo) }() // a corpus that stays changed costs the next row one hash
	all, err := h.alternate(ctx, h.scale.rounds, "s", contestant{name: "kbsync sync", run: func(ctx context.Context) (sample, error) {
		edition++
		if err := c.save(dir, block, 0, edition, dayAgo.Add(time.Duration(edition)*time.Second)); err != nil {
			return sample{}, err
		}
		time.Sleep(h.settled()) // cron comes later than the change
		if err := h.api.reset(ctx, settings{Train: time.Second}); err != nil {
			return sample{}, err
		}
		u, err := h.run(ctx, h.sync(dir, state))
		if err != nil {
			return sample{}, err
		}
		got, err := h.api.counts(ctx)
		if err == nil && got.Documents != 1 {
			err = fmt.Errorf("%d documents arrived, not 1", got.Documents)
		}
		requests = max(requests, got.Uploads+got.Statuses)
		return sample{u.Seconds, u}, err
	}})
	if err != nil {
		return err
	}
	r := h.results.row("P11", fmt.Sprintf("one changed file of %d, training takes 1 s", c.Files), all...)
	r.atMost("whole run", all[0].value(), "s", 2)
	r.atMost("requests", float64(requests), "", 3)
	return nil
}

// A watching is a watch that runs.
type watching struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// watch starts a watch.
func (h *harness) watch(ctx context.Context, root, state string, more ...string) (*watching, error) {
	c := h.kbsync("watch", root, state, more...)
	w := &watching{cmd: exec.CommandContext(ctx, c.path, c.args...)}
	w.cmd.Env, w.cmd.Stderr = h.environment(nil), &w.log
	return w, w.cmd.Start()
}

// stop ends the watch. An error has the log of the watch.
func (w *watching) stop(err error) error {
	_ = w.cmd.Process.Signal(os.Interrupt)
	_ = w.cmd.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, last(w.log.Bytes()))
	}
	return nil
}

// latency is P6: the time from the close of a file to the arrival of its upload, beyond the settle time.
func (h *harness) latency(ctx context.Context) error {
	c := corpus{"W", h.scale.watched, 1 << 10}
	if err := os.RemoveAll(filepath.Join(h.dir, c.Name+".json")); err != nil { // an earlier run has added files
		return err
	}
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	if err := h.api.reset(ctx, settings{Arrivals: true}); err != nil {
		return err
	}
	const quiet = 200 * time.Millisecond
	state, err := h.newState()
	if err != nil {
		return err
	}
	w, err := h.watch(ctx, dir, state, "--settle", quiet.String(), "--batch-wait", "0s")
	if err != nil {
		return err
	}
	all := &series{Program: "kbsync watch", Unit: "ms"}
	err = h.closeFiles(ctx, c, dir, quiet, all)
	if err := w.stop(err); err != nil {
		return err
	}
	r := h.results.row("P6", fmt.Sprintf("close of a file to its arrival, beyond a settle time of %v, %d files", quiet, len(all.Values)), all)
	r.atMost("p50", median(all.Values), "ms", 10)
	r.atMost("p99", slices.Sorted(slices.Values(all.Values))[len(all.Values)*99/100], "ms", 21)
	return nil
}

func (h *harness) closeFiles(ctx context.Context, c corpus, dir string, quiet time.Duration, all *series) error {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		got, err := h.api.counts(ctx)
		if err != nil {
			return err
		}
		if got.Documents >= c.Files {
			break
		}
		if time.Since(begun) > time.Minute {
			return fmt.Errorf("%d of %d documents arrived in a minute", got.Documents, c.Files)
		}
	}
	for i := range h.scale.closes {
		key := filepath.ToSlash(filepath.Join(filepath.Dir(c.key(i%c.Files)), fmt.Sprintf("new-%d.md", i)))
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(key)), fmt.Appendf(nil, "new document %d\n", i), 0o600); err != nil {
			return err
		}
		closed := time.Now()
		at, err := h.api.arrival(ctx, strings.ReplaceAll(key, "/", "__"))
		if err != nil {
			return err
		}
		all.Values = append(all.Values, float64((at.Sub(closed)-quiet).Microseconds())/1000)
	}
	return nil
}

// idle is P8: a watch of many files while nothing happens.
func (h *harness) idle(ctx context.Context) error {
	dir, known, err := h.knownB(ctx)
	if err != nil {
		return err
	}
	work := fmt.Sprintf("%d files watched, nothing happens for %v", h.scale.b.Files, h.scale.idle)
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		h.results.row("P8", work, &series{Program: "kbsync watch", Missing: "this system has no /proc"})
		return nil
	}
	state, err := h.copyState(known)
	if err != nil {
		return err
	}
	w, err := h.watch(ctx, dir, state, "--listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	share, resident, peak := math.NaN(), 0.0, 0.0
	err = func() error {
		pid := w.cmd.Process.Pid
		if h.scale.idle >= time.Minute {
			if err := untilCopied(ctx, state); err != nil {
				return err
			}
		}
		if err := untilQuiet(pid, min(time.Second, h.scale.idle)); err != nil {
			return err
		}
		before, err := processorTime(pid)
		if err != nil {
			return err
		}
		time.Sleep(h.scale.idle)
		after, err := processorTime(pid)
		share = 100 * (after - before).Seconds() / h.scale.idle.Seconds()
		resident, peak = statusMiB(pid, "VmRSS"), statusMiB(pid, "VmHWM")
		return errors.Join(err, ctx.Err()) // an interrupt of the harness has killed the watch
	}()
	if err := w.stop(err); err != nil {
		return err
	}
	r := h.results.row("P8", work, &series{Program: "kbsync watch", Unit: "% of a core", Values: []float64{share}, PeakMiB: []float64{peak}})
	r.atMost("processor", share, "% of a core", 0.07)
	r.atMost("resident memory", resident, "MiB", 60)
	return nil
}

// untilCopied waits until watch has copied the state beside itself, a minute after its start. It does so once a day, and the copy would
// be most of the work of a quiet minute.
func untilCopied(ctx context.Context, state string) error {
	for range 120 {
		copies, err := filepath.Glob(state + ".backup-*")
		if err != nil || len(copies) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return errors.New("after two minutes the state is not copied")
}

// untilQuiet waits until a process has done nothing at five looks in a row. On a busy machine it may do nothing at one of them
// because it has no turn.
func untilQuiet(pid int, step time.Duration) error {
	before, quiet := time.Duration(-1), 0
	for range 300 {
		now, err := processorTime(pid)
		if err != nil {
			return err
		}
		quiet++
		if before < 0 || now-before >= 20*time.Millisecond {
			quiet = 0
		}
		if quiet == 5 {
			return nil
		}
		before = now
		time.Sleep(step)
	}
	return fmt.Errorf("the watch is still busy after %v", 300*step)
}

// processorTime returns the processor time of a running process. The kernel counts it in hundredths of a second.
func processorTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, may have spaces. The state follows it, and eleven fields later the times.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	ticks := 0
	for _, text := range fields[11:13] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("read times of process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// statusMiB returns a size of a process; 0 if the kernel has none of that name.
func statusMiB(pid int, name string) float64 {
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), name), " kB"), 64)
	return kib / 1024
}
