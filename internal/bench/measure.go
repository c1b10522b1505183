package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// A command is a program to run.
type command struct {
	path string
	args []string
	env  []string // in addition to the environment of the harness
	dir  string
	exit []int // the exit codes of a success; 0 if empty
}

// A usage is what a program cost; peer run writes it.
type usage struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	Peak    int64   `json:"peak"`
	Exit    int     `json:"exit"`
}

// run runs a program and returns its cost.
func (h *harness) run(ctx context.Context, c command) (usage, error) {
	file := filepath.Join(h.dir, "run", "usage.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(ctx, h.programs.peer, append([]string{"run", "-usage", file, "--", c.path}, c.args...)...)
	cmd.Env, cmd.Dir = h.environment(c.env), c.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &out
	err := cmd.Run()
	if err != nil {
		return usage{}, fmt.Errorf("run %s: %w\n%s", c.path, err, last(out.Bytes()))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return usage{}, err
	}
	var u usage
	if err := json.Unmarshal(data, &u); err != nil {
		return usage{}, err
	}
	if good := c.exit; !slices.Contains(append(good, 0), u.Exit) || len(good) > 0 && !slices.Contains(good, u.Exit) {
		return u, fmt.Errorf("%s %v ended with %d\n%s", filepath.Base(c.path), c.args, u.Exit, last(out.Bytes()))
	}
	return u, nil
}

// last returns the end of an output.
func last(out []byte) []byte { return out[max(0, len(out)-2000):] }

// environment returns the environment of a program: that of the harness without settings of the programs, and with a home of its own.
func (h *harness) environment(more []string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(h.dir, "run", "home"), "TMPDIR=" + h.dir, "LANG=C",
		"REPLYCX_TOKEN=x.y.z", "RCLONE_CONFIG=" + os.DevNull,
		"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	return append(env, more...)
}

// A sample is the result of one run.
type sample struct {
	value float64 // in the unit of the row
	usage usage
}

// A contestant is a program that takes part in a row.
type contestant struct {
	name    string
	missing string // why it does not run; empty if it does
	run     func(ctx context.Context) (sample, error)
}

// seconds is a contestant that is judged by the time of one command.
func (h *harness) seconds(name, missing string, c command) contestant {
	return contestant{name, missing, func(ctx context.Context) (sample, error) {
		u, err := h.run(ctx, c)
		return sample{u.Seconds, u}, err
	}}
}

// alternate runs the contestants in turn, so that a change of the machine during the run meets all of them. Each round begins with
// another one.
func (h *harness) alternate(ctx context.Context, rounds int, unit string, contestants ...contestant) ([]*series, error) {
	all := make([]*series, len(contestants))
	for i, c := range contestants {
		all[i] = &series{Program: c.name, Unit: unit, Missing: c.missing}
	}
	for round := range rounds {
		for i := range contestants {
			at := (i + round) % len(contestants)
			if contestants[at].missing != "" {
				continue
			}
			s, err := contestants[at].run(ctx)
			if err != nil {
				return all, fmt.Errorf("%s: %w", contestants[at].name, err)
			}
			all[at].add(s)
		}
	}
	return all, nil
}
