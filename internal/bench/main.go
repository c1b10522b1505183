// Command bench measures kbsync beside the programs that people would pick instead, on one machine and in one run: `make bench`. It
// makes the corpora, finds or installs the other programs, runs each of them and kbsync in turn, and writes a table (results.md,
// results.json) and plots (SVG). It judges each row by the target of the issue about performance, and fails only if a program fails:
// a slow machine is no fault.
//
// The file for each part: corpus.go the files, programs.go the other programs, server.go the servers, measure.go one run of one program,
// results.go the table, plot.go the plots, and rows_*.go and growth.go what is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A harness is one run of the benchmarks.
type harness struct {
	scale    scale
	source   string // the repository
	dir      string // of corpora, states and buckets
	tools    string // of installed programs
	programs programs
	api      *api
	log      io.Writer
	results  *results
	states   int // that were made
	// known is the state of a whole sync of corpus B.
	known string
}

func run(ctx context.Context, args []string, log io.Writer) error {
	h := &harness{log: log}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	name := flags.String("scale", "full", "size of the corpora: full, quick or tiny")
	million := flags.Bool("million", false, "also measure 1,000,000 documents, which takes half an hour and 10 GB more")
	rounds := flags.Int("rounds", 0, "runs of each program; 0 for the number of the scale")
	only := flags.String("only", "", "rows to measure, separated by commas, such as P1,P5; all if empty")
	out := flags.String("out", "bin/bench", "directory of the results")
	flags.StringVar(&h.source, "source", "../..", "the repository")
	flags.StringVar(&h.dir, "dir", "", "directory of the corpora, kept for the next run; a temporary one if empty")
	flags.StringVar(&h.tools, "tools", "bin/peers", "directory of the installed programs")
	flags.StringVar(&h.programs.kbsync, "kbsync", "bin/kbsync", "the program to measure; make build makes it")
	flags.StringVar(&h.programs.lean, "kbsync-nocloud", "", "the program without buckets")
	install := flags.Bool("install", true, "install rclone if it is missing; needs the Go module proxy and some minutes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var ok bool
	if h.scale, ok = scales[*name]; !ok {
		return fmt.Errorf("unknown scale %q", *name)
	}
	if *million {
		h.scale.growth = append(h.scale.growth, 1_000_000)
		h.scale.million = true
	}
	if *rounds > 0 {
		h.scale.rounds = *rounds
		h.scale.slowRounds, h.scale.growthRuns = min(h.scale.slowRounds, *rounds), min(h.scale.growthRuns, *rounds)
	}
	for _, path := range []*string{&h.source, out, &h.tools, &h.programs.kbsync} {
		if err := h.resolve(path); err != nil {
			return err
		}
	}
	remove, err := h.place()
	if err != nil {
		return err
	}
	defer remove()
	if err := h.findPrograms(ctx, *install); err != nil {
		return err
	}
	h.results = newResults(ctx, h, *name)
	if h.api, err = h.serveAPI(ctx); err != nil {
		return err
	}
	defer h.api.stop()
	failed := h.measure(ctx, *only)
	return errors.Join(failed, h.results.write(*out))
}

// resolve makes a path absolute. A relative path is below the repository, because the program runs in the directory of its module.
func (h *harness) resolve(path *string) error {
	if *path == "" {
		return nil
	}
	if path != &h.source && !filepath.IsAbs(*path) {
		*path = filepath.Join(h.source, *path)
	}
	var err error
	*path, err = filepath.Abs(*path)
	return err
}

// place makes the directory of the run. The returned function removes what the next run has no use for.
func (h *harness) place() (remove func(), err error) {
	if err := h.resolve(&h.programs.lean); err != nil {
		return nil, err
	}
	if h.dir == "" {
		h.dir, err = os.MkdirTemp("", "kbsync-bench-*")
		return func() { os.RemoveAll(h.dir) }, err
	}
	if err := h.resolve(&h.dir); err != nil {
		return nil, err
	}
	// The states of an earlier run belong to its API, whose address is not this one's.
	remove = func() { os.RemoveAll(filepath.Join(h.dir, "run")) }
	remove()
	return remove, os.MkdirAll(h.dir, 0o700)
}

// measure measures the rows. A row that fails does not keep the others from being measured.
func (h *harness) measure(ctx context.Context, only string) error {
	wanted := map[string]bool{}
	for id := range strings.SplitSeq(only, ",") {
		wanted[id] = true
	}
	var all error
	for _, part := range []struct {
		ids     string
		measure func(ctx context.Context) error
	}{
		{"P1", h.unchanged},
		{"P2,P10", h.firstSync},
		{"P2b,P12", h.firstSyncOfMany},
		{"P2c", h.largeFiles},
		{"P3", h.oneLargeFile},
		{"P11", h.oneChange},
		{"P12", h.unchangedTogether},
		{"P5,P5b,P4", h.buckets},
		{"P6", h.latency},
		{"P8", h.idle},
		{"P9", h.version},
		{"P7", h.statusRequests},
		{"growth,P4", h.growth},
		{"workers", h.workers},
	} {
		need := only == ""
		for id := range strings.SplitSeq(part.ids, ",") {
			need = need || wanted[id]
		}
		if !need {
			continue
		}
		begun := time.Now()
		h.logf("%s", part.ids)
		if err := part.measure(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", part.ids, err))
			h.logf("%s failed: %v", part.ids, err)
		}
		h.logf("%s took %.1f s", part.ids, time.Since(begun).Seconds())
		if ctx.Err() != nil {
			return errors.Join(all, ctx.Err())
		}
	}
	return all
}

func (h *harness) logf(format string, args ...any) { fmt.Fprintf(h.log, format+"\n", args...) }
