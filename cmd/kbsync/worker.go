package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
)

func (a *app) workerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker [NAME...]",
		Short: "Keep running, and upload for the processes that scan",
		Long: `worker uploads the documents of buckets and follows the training, for the syncs of the config or the syncs that are named, until
it is stopped. It scans no root: that is the work of kbsync watch. The state must be in PostgreSQL, where all processes share the
work. The documents of a directory are uploaded by the process that watches it.

SIGHUP reloads the config, SIGTERM and SIGINT shut down cleanly, SIGUSR1 writes the status to the log.`,
		Example: `  kbsync worker --state postgres://kbsync@db.example/kbsync`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a.signals.reloadOnHangup() // as early as possible
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			if a.useEmulator {
				return engine.WithClass(engine.ClassUsage, errors.New("worker cannot use --emulator: each process would have an emulator of its own"))
			}
			return a.watch(cmd.Context(), cfg, passOptions{wait: true, uploadOnly: true},
				func() (*config.Config, error) { return a.read(cmd, args...) })
		},
	}
	settingFlags(cmd.Flags(), config.ScopeSync, config.ScopeWatch)
	return cmd
}
