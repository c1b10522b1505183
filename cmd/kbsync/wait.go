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

	trackers := newTrackers(ctx, a, cfg, store, api, progress)
	var failures []error
	for _, s := range syncs {
		if !api.serves(s.Destination) {
			// Its sources are not this API's: asking for them there would tell lies.
			if len(args) > 0 {
				failures = append(failures, fmt.Errorf("sync %s belongs to %s, and the configured API is %s", s.Name, s.Destination, api.origin))
			}
			continue
		}
		if err := progress.expect(ctx, store, s.ID); err != nil {
			trackers.wait(false)
			return err
		}
		trackers.follow(s.Destination)
	}
	result := struct {
		Trained trainedView `json:"trained"`
		Syncs   []waited    `json:"syncs"`
	}{Trained: trackers.wait(true).view(), Syncs: []waited{}}
	ctx = context.WithoutCancel(ctx)
	for _, s := range syncs {
		if err := trackers.err(s.Destination.ID, true); err != nil {
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
		for _, e := range standing(s.Name, outstanding, "") {
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

// serves tells whether a destination is on this API.
func (p *api) serves(d state.Destination) bool {
	return d.Origin == p.origin && (d.Account == p.account || d.Account == "" || p.account == "")
}

// standing says what keeps a sync from being done, by the states of its outstanding documents.
func standing(name string, outstanding map[state.DocumentState]int, why string) []error {
	name = printable(name)
	var errs []error
	for _, row := range []struct {
		n    int
		code int
		text string
	}{
		{outstanding[state.Failed], exitFailed, "failed for good (kbsync status " + name + " says why; kbsync retry tries again)"},
		{outstanding[state.Stuck], exitTraining, "still in training after --train-timeout"},
		{outstanding[state.Uncertain], exitTemporary, "uncertain, for the answer to the upload was lost"},
		{outstanding[state.Pending] + outstanding[state.Uploading], exitTemporary, "still to be uploaded" + because(why)},
		{outstanding[state.Training], exitTemporary, "still in training (kbsync wait " + name + " waits for it)"},
	} {
		if row.n > 0 {
			errs = append(errs, &exitError{row.code, fmt.Errorf("%s %s", count(row.n, "document"), row.text)})
		}
	}
	return errs
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
