package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
)

func (a *app) watchCommand() *cobra.Command {
	o := passOptions{wait: true}
	oneTime := false
	cmd := &cobra.Command{
		Use:   "watch [NAME...]",
		Short: "Keep running, and keep the knowledge bases true to the roots",
		Long: `watch works on all syncs of the config, or on the syncs that are named, until it is stopped. It notices changes as they
happen, lists each root at an interval as well (--rescan), uploads documents that have settled, and follows the training. A
sync that fails waits and tries again, and delays no other sync.

SIGHUP reloads the config, SIGTERM and SIGINT shut down cleanly, SIGUSR1 writes the status to the log.`,
		Example: `  kbsync watch --listen :9090
  kbsync watch --one-time`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !oneTime {
				a.signals.reloadOnHangup() // as early as possible
			}
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			if oneTime {
				return a.sync(cmd.Context(), cfg, o)
			}
			return a.watch(cmd.Context(), cfg, o, func() (*config.Config, error) { return a.read(cmd, args...) })
		},
	}
	settingFlags(cmd.Flags(), config.ScopeSync, config.ScopeWatch)
	acceptFlags(cmd, &o)
	cmd.Flags().BoolVar(&oneTime, "one-time", false, "Make one pass, wait for the training, and end with the code of kbsync sync.")
	return cmd
}

// watch works on the selected syncs until ctx ends. read reads the config again.
func (a *app) watch(ctx context.Context, cfg *config.Config, o passOptions, read func() (*config.Config, error)) (err error) {
	if _, err := selected(cfg); err != nil {
		return err
	}
	if o.uploadOnly && !cfg.SharedState() {
		return engine.WithClass(engine.ClassUsage, errors.New("worker needs a state in PostgreSQL (--state postgres://…), "+
			"which it shares with the process that scans"))
	}
	// Before all else, because a signal without a receiver ends the process.
	dump, end := dumpRequests()
	defer end()
	a.out.FixLog() // a reload does not change --log-format
	file := &tokenWatch{}
	file.changed(cfg) // before the file is read for the first time
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	store, err := a.open(ctx, cfg, false)
	if err != nil {
		return errors.Join(err, api.close())
	}
	defer closeStore(store, &err)
	options := engine.DaemonOptions{
		Options: a.engineOptions(cfg, store, api, o),
		Load: func() (*config.Config, error) {
			cfg, err := read()
			if err != nil {
				return nil, err
			}
			_, err = selected(cfg)
			return cfg, err
		},
		Loaded:       a.applyLog,
		TokenChanged: file.changed,
		MatchKeys:    keyMatcher,
		Reload:       a.signals.reloadOnHangup(),
		Dump:         dump,
	}
	if !a.useEmulator {
		options.Connect = func(ctx context.Context, cfg *config.Config) (*engine.API, error) {
			api, err := a.connect(ctx, cfg)
			if err != nil {
				return nil, err
			}
			api.shareRate(store)
			return api.engine(cfg), nil
		}
	}
	if options.ListenToken, err = a.listenToken(cfg); err != nil {
		return errors.Join(err, api.close())
	}
	return engine.RunDaemon(ctx, options)
}

// A tokenWatch notices that the token file of the API has changed.
type tokenWatch struct{ seen os.FileInfo }

// changed reports whether the file has changed since the last call. If it cannot be read, the next request reports why.
func (w *tokenWatch) changed(cfg *config.Config) bool {
	if cfg.API.TokenFile == "" {
		return false
	}
	info, err := os.Stat(cfg.API.TokenFile)
	if err != nil {
		return false
	}
	before := w.seen
	w.seen = info
	return before != nil && (!os.SameFile(before, info) || !before.ModTime().Equal(info.ModTime()) || before.Size() != info.Size())
}
