package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"time"
)

// A usage is what a program cost. The harness decodes it.
type usage struct {
	Seconds float64 `json:"seconds"` // from its start to its end
	CPU     float64 `json:"cpu"`     // seconds, user and system
	Peak    int64   `json:"peak"`    // resident bytes; 0 if the system does not report them
	Exit    int     `json:"exit"`
}

// measured runs a program. The kernel reports the peak of a program as at least the size of the process that started it, so this small
// process starts it, and not the harness.
func measured(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	file := flags.String("usage", "", "file to write the usage to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("the program is missing")
	}
	cmd := exec.CommandContext(ctx, flags.Arg(0), flags.Args()[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begun := time.Now()
	err := cmd.Run()
	took := time.Since(begun)
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return err
	}
	state := cmd.ProcessState
	data, err := json.Marshal(usage{took.Seconds(), (state.UserTime() + state.SystemTime()).Seconds(), peakOf(state), state.ExitCode()})
	if err != nil {
		return err
	}
	return os.WriteFile(*file, data, 0o600)
}
