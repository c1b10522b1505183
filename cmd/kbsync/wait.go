package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) waitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait [NAME]",
		Short: "Wait until no document is in training",
		Long: `wait follows the training of uploaded documents until it has ended. It uploads nothing. Its exit code is that of a sync that
finds no changes.`,
		Example: `  kbsync sync --wait=false
  kbsync wait --train-timeout 30m`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), cfg, args)
		},
	}
	syncFlags(cmd)
	return cmd
}

// A waitResult is the result of wait.
type waitResult struct {
	Trained trainedView  `json:"trained"`
	Syncs   []waitedSync `json:"syncs"`
}

// A waitedSync counts the documents of one sync after the wait.
type waitedSync struct {
	Sync      string                      `json:"sync"`
	Documents map[state.DocumentState]int `json:"documents"`
}

func (a *app) wait(ctx context.Context, cfg *config.Config, args []string) (err error) {
	store, err := a.open(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	syncs, err := findSyncs(ctx, store, args)
	if err != nil {
		return err
	}
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	progress := a.startProgress()
	defer progress.End()

	connection := api.engine(cfg)
	trackers := engine.NewTrackers(ctx, a.engineOptions(cfg, store, api, passOptions{}), progress.tracked)
	var failures []error
	for _, s := range syncs {
		if !connection.Serves(s.Destination) {
			// This API may have other sources with the same ids.
			if len(args) > 0 {
				failures = append(failures, fmt.Errorf("sync %s belongs to %s, and the configured API is %s", s.Name, s.Destination, api.origin))
			}
			continue
		}
		if err := progress.expect(ctx, store, s.ID); err != nil {
			trackers.Wait(false)
			return err
		}
		trackers.Follow(s.Destination)
	}
	result := waitResult{Trained: trainedView(trackers.Wait(true)), Syncs: []waitedSync{}}
	ctx = context.WithoutCancel(ctx)
	for _, s := range syncs {
		if err := trackers.Err(s.Destination.ID, true); err != nil {
			failures = append(failures, err)
		}
		errs, err := result.add(ctx, store, s)
		if err != nil {
			return err
		}
		failures = append(failures, errs...)
	}
	progress.End()
	return errors.Join(engine.JoinErrors(failures), a.out.Result(result, result.print))
}

// add counts the documents of a sync. It returns the reasons why the sync is not done.
func (r *waitResult) add(ctx context.Context, store *state.Store, s state.Sync) (failures []error, err error) {
	outstanding, err := store.Documents.Outstanding(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	w := waitedSync{s.Name, map[state.DocumentState]int{}}
	for st, n := range outstanding {
		if n > 0 {
			w.Documents[st] = n
		}
	}
	r.Syncs = append(r.Syncs, w)
	for _, e := range engine.Remaining(console.Printable(s.Name), outstanding, "") {
		failures = append(failures, fmt.Errorf("%s: %w", s.Name, e))
	}
	blocked, err := engine.Blocked(ctx, store, console.Printable(s.Name), s.ID)
	if blocked != nil {
		failures = append(failures, fmt.Errorf("%s: %w", s.Name, blocked))
	}
	return failures, err
}

func (r waitResult) print(w io.Writer) {
	parts := []string{fmt.Sprintf("%d completed", r.Trained.Completed)}
	if r.Trained.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", r.Trained.Failed))
	}
	if r.Trained.Stuck > 0 {
		parts = append(parts, fmt.Sprintf("%d stuck", r.Trained.Stuck))
	}
	fmt.Fprintf(w, "sources whose training ended: %s\n", strings.Join(parts, ", "))
}
