package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

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
	uploadOnly        bool // other processes scan

	// Of plan: the file to keep the plan in, and the arguments and flags that shape it.
	planOut   string
	planArgs  []string
	planFlags map[string][]string
	// approve, if not nil, decides on the documents that a scan has found before they are uploaded. The command apply sets it.
	approve func(ctx context.Context, store *state.Store, pass engine.PassResult) error
	// mark, if not nil, marks documents before the pass. The commands reindex and retry set it.
	mark func(ctx context.Context, store *state.Store, sync state.Sync) (int, error)
}

func (a *app) syncCommand() *cobra.Command {
	o := passOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "sync [NAME | ROOT]",
		Short: "Upload new and changed documents once, and wait for their training",
		Long: `sync makes one pass over each sync of the config, over the sync NAME, or over the directory ROOT: it lists the root, uploads
new and changed documents, follows the training until it has ended, and prints a summary. The exit code is 0 only if every
document is uploaded and trained.`,
		Example: `  kbsync sync ./docs --knowledge-base 876
  kbsync sync handbook --max-duration 30m
  kbsync sync ./docs --knowledge-base 876 --emulator`,
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
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "Only show the plan, as kbsync plan does.")
	return cmd
}

// passFlags adds the flags of a command that runs a pass.
func passFlags(cmd *cobra.Command, o *passOptions) {
	cmd.Flags().BoolVar(&o.wait, "wait", true, "Wait for the training of the uploaded documents.")
	acceptFlags(cmd, o)
}

func acceptFlags(cmd *cobra.Command, o *passOptions) {
	cmd.Flags().BoolVar(&o.acceptDestination, "accept-new-destination", false,
		"Upload every document to the configured knowledge base, although the sync belongs to another one.")
	cmd.Flags().BoolVar(&o.acceptState, "accept-new-state", false,
		"Upload with a new, an older or another inventory than the last one, or with one in memory or in a container's own layer. Documents that it does not know are uploaded again.")
	cmd.Flags().BoolVar(&o.acceptRoot, "accept-new-root", false,
		"Accept another directory in the place of the root, although most known documents are missing in it.")
}

// sync runs one pass over the selected syncs, waits for the training unless --wait=false is set, and prints a summary.
func (a *app) sync(ctx context.Context, cfg *config.Config, o passOptions) (err error) {
	began := a.now()
	if _, err := selected(cfg); err != nil {
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
	defer progress.End()
	options := a.engineOptions(cfg, store, api, o)
	run := engine.RunOnce(ctx, engine.RunOptions{Options: options, Began: began, Wait: o.wait, Mark: o.mark, Approve: o.approve, Progress: progress.engine(store)})

	result := runSummary{Trained: trainedView(run.Trained), Syncs: []*summary{}}
	result.Requests = run.Trained.Requests
	var outcomes []error
	for _, p := range run.Passes {
		// The counts of a run that was interrupted are printed as well.
		s := summarize(context.WithoutCancel(ctx), store, o, p)
		result.Syncs = append(result.Syncs, s)
		result.Requests += s.Requests + s.asked
		result.class = engine.Worse(result.class, s.class)
		outcomes = append(outcomes, s.err())
	}
	result.ExitCode = codeOf(result.class)
	engine.ReportPasses(a.signals.hard, options, run.Passes, outcomes)
	result.Seconds = a.now().Sub(began).Seconds()
	result.Emulator = api.emulator.report()
	progress.End()
	return errors.Join(result.err(), a.out.Result(result, result.print))
}

// engineOptions returns the options of the engine.
func (a *app) engineOptions(cfg *config.Config, store *state.Store, api *api, o passOptions) engine.Options {
	api.shareRate(store)
	return engine.Options{
		Config:   cfg,
		Store:    store,
		API:      api.engine(cfg),
		Logger:   a.out.Log,
		Now:      a.now,
		Cut:      a.signals.hard,
		Accept:   engine.Accept{Destination: o.acceptDestination, Root: o.acceptRoot, State: o.acceptState},
		OwnFiles: a.emulatorFiles(cfg),

		UploadOnly: o.uploadOnly,
		Tracer:     a.traces.tracer(),

		Environ:  a.env,
		Version:  buildVersion(),
		ExitCode: codeOf,
	}
}

// shareRate shares the rate of the account with the processes that share the state, which must be open for writing.
func (p *api) shareRate(store *state.Store) { p.limiter.Share(store, p.origin+" "+p.account) }

// engine returns the connection as the engine uses it.
func (p *api) engine(cfg *config.Config) *engine.API {
	api := &engine.API{Client: p.client, Origin: p.origin, Account: p.account, Local: p.emulator != nil || cfg.API.Local(),
		Embedded: p.emulator != nil, Close: p.close}
	if p.token != nil {
		api.HasNewToken = p.token.isNew
		if p.token.command != nil {
			api.RenewToken = p.token.renew
		}
	}
	return api
}

// openRoot opens the root of a sync with its filter. It reads no document.
func (a *app) openRoot(cfg *config.Config, s config.Sync) (*engine.CountingRoot, error) {
	return engine.OpenRoot(a.signals.soft, cfg, s, a.emulatorFiles(cfg)...)
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
