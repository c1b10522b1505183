package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) waitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait [NAME]",
		Short: "Wait until nothing is in training",
		Long: `wait follows the training of what was uploaded until it has ended, and uploads nothing. Its exit code is that of a sync
that finds nothing new.`,
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

// A waited is one sync after the wait.
type waited struct {
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
	defer progress.end()

	connection := api.engine(cfg)
	trackers := engine.NewTrackers(ctx, a.engineOptions(cfg, store, api, passOptions{}), progress.tracked)
	var failures []error
	for _, s := range syncs {
		if !connection.Serves(s.Destination) {
			// Its sources are not this API's: asking for them there would tell lies.
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
	result := struct {
		Trained trainedView `json:"trained"`
		Syncs   []waited    `json:"syncs"`
	}{Trained: trainedView(trackers.Wait(true)), Syncs: []waited{}}
	ctx = context.WithoutCancel(ctx)
	for _, s := range syncs {
		if err := trackers.Err(s.Destination.ID, true); err != nil {
			failures = append(failures, err)
		}
		outstanding, err := store.Documents.Outstanding(ctx, s.ID)
		if err != nil {
			return err
		}
		w := waited{s.Name, map[state.DocumentState]int{}}
		for st, n := range outstanding {
			if n > 0 {
				w.Documents[st] = n
			}
		}
		result.Syncs = append(result.Syncs, w)
		for _, e := range engine.Remaining(printable(s.Name), outstanding, "") {
			failures = append(failures, fmt.Errorf("%s: %w", s.Name, e))
		}
	}
	progress.end()
	if err := a.out.result(result, func(w io.Writer) {
		t := result.Trained
		parts := []string{fmt.Sprintf("%d completed", t.Completed)}
		if t.Failed > 0 {
			parts = append(parts, fmt.Sprintf("%d failed", t.Failed))
		}
		if t.Stuck > 0 {
			parts = append(parts, fmt.Sprintf("%d stuck", t.Stuck))
		}
		fmt.Fprintf(w, "sources whose training ended: %s\n", strings.Join(parts, ", "))
	}); err != nil {
		return err
	}
	return engine.JoinErrors(failures)
}
