package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// newState returns the path of a state that does not exist yet, in a directory of its own.
func (h *harness) newState() (path string, err error) {
	h.states++
	dir := filepath.Join(h.dir, "run", fmt.Sprintf("state-%d", h.states))
	return filepath.Join(dir, "kbsync.db"), os.MkdirAll(dir, 0o700)
}

// sync returns a sync of a root. It sends as fast as it can: the limit of five requests a second is the account's, not the program's.
func (h *harness) sync(root, state string, more ...string) command {
	return h.kbsync("sync", root, state, more...)
}

func (h *harness) kbsync(name, root, state string, more ...string) command {
	args := []string{name, root, "--knowledge-base", "876", "--state", state, "--api-url", h.api.url(), "--rate", "off", "-q", "--accept-new-state",
		"--settle", h.scale.settle.String()}
	return command{path: h.programs.kbsync, args: append(args, more...)}
}

// uploads is a contestant that is judged by the documents a second from the first byte to the last acceptance. prepare returns its command
// before each run.
func (h *harness) uploads(name string, documents int, prepare func() (command, error)) contestant {
	return contestant{name: name, run: func(ctx context.Context) (sample, error) {
		c, err := prepare()
		if err != nil {
			return sample{}, err
		}
		if err := h.api.reset(ctx, settings{}); err != nil {
			return sample{}, err
		}
		u, err := h.run(ctx, c)
		if err != nil {
			return sample{}, err
		}
		got, err := h.api.counts(ctx)
		if err == nil && got.Documents != documents {
			err = fmt.Errorf("%d documents arrived, not %d", got.Documents, documents)
		}
		return sample{float64(got.Documents) / got.Last.Sub(got.First).Seconds(), u}, err
	}}
}

// minimal is the client without state and hash.
func (h *harness) minimal(c corpus, dir string) contestant {
	return h.uploads("minimal batching client", c.Files, func() (command, error) {
		return command{path: h.programs.peer, args: []string{"send", "-url", h.api.url(), dir}}, nil
	})
}

// first is a first sync of a corpus, with a new state each time.
func (h *harness) first(name string, c corpus, dir string, state *string) contestant {
	return h.uploads(name, c.Files, func() (command, error) {
		if *state != "" { // only the last one is of use
			if err := os.RemoveAll(filepath.Dir(*state)); err != nil {
				return command{}, err
			}
		}
		var err error
		*state, err = h.newState()
		return h.sync(dir, *state), err
	})
}

// knownB returns corpus B and the state of a whole sync of it.
func (h *harness) knownB(ctx context.Context) (dir, state string, err error) {
	dir, err = h.corpus(h.scale.b)
	if err != nil || h.known != "" {
		return dir, h.known, err
	}
	_, err = h.first("kbsync", h.scale.b, dir, &h.known).run(ctx)
	return dir, h.known, err
}

// unchanged is P1: a directory in which nothing has changed.
func (h *harness) unchanged(ctx context.Context) error {
	dir, state, err := h.knownB(ctx)
	if err != nil {
		return err
	}
	p, mirror := h.programs, filepath.Join(h.dir, "run", "copy of B")
	if p.rclone != "" {
		if _, err := h.run(ctx, command{path: p.rclone, args: []string{"copy", dir, mirror}}); err != nil {
			return err
		}
		defer os.RemoveAll(mirror)
	}
	const noTransfer = 9
	all, err := h.alternate(ctx, h.scale.rounds, "s",
		h.seconds("kbsync sync", "", h.sync(dir, state)),
		h.seconds("sorted walk in Go", "", command{path: p.peer, args: []string{"walk", dir}}),
		h.seconds("find -printf", absent("find", p.find), command{path: p.find, args: []string{dir, "-printf", "%p %s %T@\n"}}),
		h.seconds("rclone sync to a directory", p.rcloneMissing, command{path: p.rclone, args: []string{"sync", dir, mirror, "--error-on-no-transfer"}, exit: []int{noTransfer}}),
	)
	r := h.results.row("P1", fmt.Sprintf("%d files, nothing changed", h.scale.b.Files), all...)
	r.atMost("time compared with the sorted walk", all[0].value()/all[1].value(), "x", 1.25)
	r.atMost("peak memory", all[0].peak(), "MiB", 40)
	r.atMost("time compared with rclone", all[0].value()/all[3].value(), "x", 0.5)
	return err
}

// firstSync is P2 and P10: the first sync of small files, and the state after it.
func (h *harness) firstSync(ctx context.Context) error {
	c := h.scale.a
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	var state string
	all, err := h.alternate(ctx, h.scale.rounds, "files/s", h.first("kbsync sync", c, dir, &state), h.minimal(c, dir))
	if err != nil {
		return err
	}
	r := h.results.row("P2", fmt.Sprintf("first sync of %d files of 4 KiB, training is instant", c.Files)+h.age(c), all...)
	r.atLeast("rate from the first byte to the last acceptance", all[0].value(), "files/s", 20_000)
	r.atLeast("the same, to pass", all[0].value(), "files/s", 15_000)
	r.atMost("whole run", median(all[0].Seconds), "s", 1.2)
	r.atLeast("rate compared with the minimal client", all[0].value()/all[1].value(), "x", 0.3)
	r.atMost("peak memory", all[0].peak(), "MiB", 0)

	info, err := os.Stat(state)
	if err != nil {
		return err
	}
	size := float64(info.Size()-c.keys()) / float64(c.Files)
	h.results.row("P10", fmt.Sprintf("state of %d documents, all trained", c.Files)).atMost("bytes a document beyond its key", size, "bytes", 250)
	return nil
}

// config writes a config with one sync for each quarter of a corpus. The roots are links, because kbsync keeps a small file beside each
// root, and a corpus stays as it is.
func (h *harness) config(dir, state string) (path string, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "api:\n  url: %q\n  rate: \"off\"\nstate: %q\nsyncs:\n", h.api.url(), state)
	for i := range quarters {
		quarter := fmt.Sprintf("q%d", i)
		link := filepath.Join(filepath.Dir(state), quarter)
		if err := os.Symlink(filepath.Join(dir, quarter), link); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  - name: quarter-%d\n    root: %q\n    knowledge_base: 876\n    settle: %v\n", i, link, h.scale.settle)
	}
	path = filepath.Join(filepath.Dir(state), "kbsync.yaml")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}

// firstSyncOfMany is P2b, and P12 for a first sync: many small files, in one sync or in four at once.
func (h *harness) firstSyncOfMany(ctx context.Context) error {
	c := h.scale.b
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	// The rate of P2 in the same rounds, because a machine may be slower some minutes later.
	few, err := h.corpus(h.scale.a)
	if err != nil {
		return err
	}
	var state, fewState string
	all, err := h.alternate(ctx, h.scale.rounds, "files/s",
		h.first("kbsync sync", c, dir, &state),
		h.uploads("kbsync, four syncs at once", c.Files, func() (command, error) {
			state, err := h.newState()
			if err != nil {
				return command{}, err
			}
			config, err := h.config(dir, state)
			return command{path: h.programs.kbsync, args: []string{"sync", "--config", config, "-q", "--accept-new-state"}}, err
		}),
		h.minimal(c, dir),
		h.first("kbsync sync of P2", h.scale.a, few, &fewState),
	)
	if err != nil {
		return err
	}
	if h.known == "" {
		h.known = state
	}
	r := h.results.row("P2b", fmt.Sprintf("first sync of %d files of 1 KiB", c.Files)+h.age(c), all[0], all[2], all[3])
	r.atLeast("rate compared with P2", all[0].value()/all[3].value(), "x", 0.9)
	r.atLeast("rate compared with the minimal client", all[0].value()/all[2].value(), "x", 0)
	r.atMost("peak memory", all[0].peak(), "MiB", 0)
	r = h.results.row("P12 first", fmt.Sprintf("first sync of four quarters of %d files at once", c.Files), all[1], all[0])
	r.atMost("whole run compared with one sync", median(all[1].Seconds)/median(all[0].Seconds), "x", 1.2)
	return nil
}

// unchangedTogether is P12 for an unchanged directory.
func (h *harness) unchangedTogether(ctx context.Context) error {
	dir, state, err := h.knownB(ctx)
	if err != nil {
		return err
	}
	apart, err := h.newState()
	if err != nil {
		return err
	}
	config, err := h.config(dir, apart)
	if err != nil {
		return err
	}
	together := command{path: h.programs.kbsync, args: []string{"sync", "--config", config, "-q", "--accept-new-state"}}
	if _, err := h.run(ctx, together); err != nil {
		return err
	}
	all, err := h.alternate(ctx, h.scale.rounds, "s", h.seconds("kbsync, four syncs at once", "", together), h.seconds("kbsync sync", "", h.sync(dir, state)))
	r := h.results.row("P12", fmt.Sprintf("four quarters of %d files at once, nothing changed", h.scale.b.Files), all...)
	r.atMost("time compared with one sync", all[0].value()/all[1].value(), "x", 1.2)
	r.atMost("peak memory", all[0].peak(), "MiB", 0)
	return err
}

// largeFiles is the throughput of files of 5 MiB. It has no target.
func (h *harness) largeFiles(ctx context.Context) error {
	c := h.scale.c
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	var state string
	kbsync, minimal := h.first("kbsync sync", c, dir, &state), h.minimal(c, dir)
	for _, one := range []*contestant{&kbsync, &minimal} {
		run := one.run
		one.run = func(ctx context.Context) (sample, error) {
			s, err := run(ctx)
			s.value *= float64(c.Size) / 1e6 // from files a second
			return s, err
		}
	}
	all, err := h.alternate(ctx, h.scale.rounds, "MB/s", kbsync, minimal)
	r := h.results.row("P2c", fmt.Sprintf("first sync of %d files of %d KiB", c.Files, c.Size>>10), all...)
	r.atLeast("rate compared with the minimal client", all[0].value()/all[1].value(), "x", 0)
	r.atMost("peak memory", all[0].peak(), "MiB", 0)
	return err
}

// oneLargeFile is P3: one file, from the cache of the kernel and from the disk. A program is judged by the time from its start to the
// acceptance, because kbsync then waits for the end of the training.
func (h *harness) oneLargeFile(ctx context.Context) error {
	c, p := h.scale.d, h.programs
	dir, err := h.corpus(c)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, filepath.FromSlash(c.key(0)))
	for _, cold := range []bool{false, true} {
		before := func(ctx context.Context) error { return nil }
		id, name, reason := "P3", "warm", ""
		if cold {
			id, name = "P3 cold", "cold"
			before = func(ctx context.Context) error {
				_, err := h.run(ctx, command{path: p.peer, args: []string{"evict", file}})
				return err
			}
			if err := before(ctx); err != nil {
				reason = firstLine(err.Error())
			}
		}
		prepared := func(name, missing string, prepare func() (command, error)) contestant {
			return contestant{name, missing, func(ctx context.Context) (sample, error) {
				c, err := prepare()
				if err != nil {
					return sample{}, err
				}
				if err := before(ctx); err != nil {
					return sample{}, err
				}
				started := time.Now()
				u, err := h.run(ctx, c)
				if err != nil {
					return sample{}, err
				}
				got, err := h.api.counts(ctx)
				return sample{got.Last.Sub(started).Seconds(), u}, err
			}}
		}
		all, err := h.alternate(ctx, h.scale.rounds, "s",
			prepared("kbsync sync", reason, func() (command, error) {
				state, err := h.newState()
				return h.sync(dir, state, "--max-size", "off"), err
			}),
			prepared("curl -F", orElse(reason, absent("curl", p.curl)), func() (command, error) {
				return command{path: p.curl, args: []string{"--silent", "--fail", "-F", "0=@" + file, h.api.url() + "/api/v1/ai/knowledge-base/1/upload/sources"}}, nil
			}),
		)
		if err != nil {
			return err
		}
		r := h.results.row(id, fmt.Sprintf("one file of %d MiB, %s", c.Size>>20, name), all...)
		r.atMost("time to the acceptance compared with curl", all[0].value()/all[1].value(), "x", 1)
		r.atMost("peak memory", all[0].peak(), "MiB", 40)
	}
	return nil
}

func orElse(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

// version is P9: the start of the program, and its size.
func (h *harness) version(ctx context.Context) error {
	p, reason := h.programs, ""
	if p.lean == "" {
		reason = "no program without buckets was given"
	}
	all, err := h.alternate(ctx, h.scale.rounds, "s",
		h.seconds("kbsync version", "", command{path: p.kbsync, args: []string{"version"}}),
		h.seconds("kbsync version, without buckets", reason, command{path: p.lean, args: []string{"version"}}),
	)
	if err != nil {
		return err
	}
	r := h.results.row("P9", "`kbsync version`", all...)
	r.atMost("time", 1000*all[0].value(), "ms", 10)
	r.atMost("peak memory", all[0].peak(), "MiB", 33)
	r.atMost("program", megabytes(p.kbsync), "MB", 53)
	r.atMost("peak memory without buckets", all[1].peak(), "MiB", 14)
	r.atMost("program without buckets", megabytes(p.lean), "MB", 20)
	return nil
}

// megabytes returns the size of a file; NaN if there is none.
func megabytes(path string) float64 {
	info, err := os.Stat(path)
	if err != nil {
		return math.NaN()
	}
	return float64(info.Size()) / 1e6
}
