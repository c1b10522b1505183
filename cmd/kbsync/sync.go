package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

// passOptions are the flags of commands that run a pass.
type passOptions struct {
	wait              bool
	dryRun            bool
	acceptDestination bool
	acceptRoot        bool
	acceptState       bool
	// mark, if not nil, marks documents before the pass: of reindex and retry.
	mark func(ctx context.Context, store *state.Store, sync state.Sync) (int, error)
}

func (a *app) syncCommand() *cobra.Command {
	o := passOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "sync [NAME | ROOT]",
		Short: "Upload what is new or changed, once, and wait for its training",
		Long: `sync makes one pass over each sync of the config, or over the one that is named, or over a directory: it lists the root,
uploads what is new or has changed, follows the training until it has ended, and sums up. Its exit code tells how the
knowledge base stands: 0 says that everything is in it and trained.

  kbsync sync ./docs --knowledge-base 876`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			if o.dryRun {
				return a.plan(cmd.Context(), cfg, o)
			}
			return a.sync(cmd.Context(), cfg, o)
		},
	}
	syncFlags(cmd)
	passFlags(cmd, &o)
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "Only show what would be done, as kbsync plan does.")
	return cmd
}

// passFlags adds the flags of a command that runs a pass.
func passFlags(cmd *cobra.Command, o *passOptions) {
	cmd.Flags().BoolVar(&o.wait, "wait", true, "Wait for the training of what was uploaded.")
	acceptFlags(cmd, o)
}

func acceptFlags(cmd *cobra.Command, o *passOptions) {
	cmd.Flags().BoolVar(&o.acceptDestination, "accept-new-destination", false, "Upload everything to the knowledge base that is configured now, although the sync belongs to another one.")
	cmd.Flags().BoolVar(&o.acceptState, "accept-new-state", false, "Begin an inventory in memory or in a container's own layer, although it may be lost, and everything uploaded again then.")
	cmd.Flags().BoolVar(&o.acceptRoot, "accept-new-root", false, "Go on when another directory is where the root was, although most known documents are missing in it.")
}

// parallelSyncs is how many syncs are worked at a time.
const parallelSyncs = 4

// sync runs one pass over the selected syncs: first each finds out what changed and uploads it, several at a time and
// independently, while a tracker a destination follows the training; then the training is waited for.
func (a *app) sync(ctx context.Context, cfg *config.Config, o passOptions) (err error) {
	began := a.now()
	syncs, err := selected(cfg)
	if err != nil {
		return err
	}
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	store, err := a.open(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)

	progress := a.startProgress()
	defer progress.end()
	if cfg.MaxDuration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, began.Add(cfg.MaxDuration), engine.ErrMaxDuration)
		defer cancel()
	}
	trackers := newTrackers(ctx, a, cfg, store, api, progress)
	passes := make([]*pass, len(syncs))
	var group errgroup.Group
	group.SetLimit(parallelSyncs)
	for i, s := range syncs {
		p := &pass{app: a, cfg: cfg, config: s, options: o, store: store, api: api, trackers: trackers, progress: progress, began: began}
		passes[i] = p
		group.Go(func() error {
			p.err = p.run(ctx)
			return nil // one sync's failure is no other's
		})
	}
	_ = group.Wait()
	trained := trackers.wait(o.wait)

	result := runSummary{Trained: trained.view(), Syncs: []*summary{}}
	result.Requests = trained.Requests
	// The counts are told even of a run that was interrupted.
	ctx = context.WithoutCancel(ctx)
	for _, p := range passes {
		s := p.summarize(ctx, trackers)
		result.Syncs = append(result.Syncs, s)
		result.Requests += s.Requests + s.asked
		result.class = engine.Worse(result.class, s.class)
	}
	result.ExitCode = codeOf(result.class)
	a.tellOfPasses(a.signals.hard, cfg, store, passes, result.Syncs)
	result.Seconds = a.now().Sub(began).Seconds()
	result.Emulator = api.emulator.report()
	progress.end()
	if err := a.out.result(result, result.print); err != nil {
		return err
	}
	return result.err()
}

// selected returns the syncs that the arguments chose.
func selected(cfg *config.Config) ([]config.Sync, error) {
	var syncs []config.Sync
	for _, name := range cfg.Selected {
		s, ok := cfg.Sync(name)
		if ok {
			syncs = append(syncs, s)
		}
	}
	if len(syncs) == 0 {
		return nil, usageError("there is nothing to sync: name a directory and its knowledge base, such as\n" +
			"  kbsync sync ./docs --knowledge-base 876\nor write a config with kbsync init")
	}
	return syncs, nil
}

// sleep waits for d, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
