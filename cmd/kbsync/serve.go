package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/statuspage"
)

// defaultListen is the address of kbsync serve without --listen.
const defaultListen = "127.0.0.1:9090"

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Show the status page of a state, without a watch",
		Long: `serve shows the pages and the metrics of a state until it is stopped. It only reads the state: it scans nothing, sends no request and
has no buttons. Use it where kbsync sync runs from cron, or to look at a copy of a state. kbsync watch --listen has the pages
with buttons.`,
		Example: `  kbsync serve --listen :9090`,
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			cfg.Listen = cmp.Or(cfg.Listen, defaultListen)
			return a.serve(cmd.Context(), cfg)
		},
	}
	for _, s := range config.Settings() {
		if s.Name == "listen" || strings.HasPrefix(s.Name, "listen-") {
			cmd.Flags().Var(&setting{Setting: s}, s.Name, s.Usage)
		}
	}
	return cmd
}

// serve shows the state until ctx ends.
func (a *app) serve(ctx context.Context, cfg *config.Config) (err error) {
	if file := cfg.StateFile(); file != "" {
		// A state that does not exist reads as an empty one, also after another process has created it.
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return engine.WithClass(engine.ClassUsage, fmt.Errorf("the state %s does not exist; name it with --state, or run kbsync sync first", console.Quoted(file)))
		}
	}
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	token, err := a.listenToken(cfg)
	if err != nil {
		return err
	}
	page, err := statuspage.New(statuspage.Options{
		State: store, Log: a.out.Log, Version: buildVersion(), Token: token, ReadLocally: cfg.ListenRead == "loopback", ReadOnly: true,
	})
	if err != nil {
		return err
	}
	page.Metrics.Reloaded(true)
	l, err := statuspage.Listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	a.out.Log.Info("listening", "address", l.Addr().String())
	return statuspage.Serve(ctx, l, page, a.out.Log)
}
