package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

func (a *app) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [NAME | ROOT]",
		Short: "Check config, state, roots and token without changing anything",
		Long: `check reads the config, opens the state, lists each root, checks that the subscriptions for notifications exist (if it can do
so without taking a message), and sends one status request with the token. It cannot check the knowledge base: the API
reports a missing one only at the first upload.`,
		Example: `  kbsync check
  kbsync check ./docs --knowledge-base 876`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			return a.check(cmd.Context(), cfg)
		},
	}
	syncFlags(cmd)
	return cmd
}

// A checkResult is the result of one check.
type checkResult struct {
	What  string `json:"what"`
	OK    bool   `json:"ok"`
	Found string `json:"found"`
	// LeftOut counts what the listing of a root left out, and Warnings is what may be wrong with its rules.
	LeftOut  *leftOutView `json:"left_out,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
}

func (a *app) check(ctx context.Context, cfg *config.Config) (err error) {
	var list []checkResult
	var failures []error
	add := func(what, found string, err error) {
		c := checkResult{What: what, OK: err == nil, Found: found}
		if err != nil {
			c.Found = err.Error()
			failures = append(failures, fmt.Errorf("%s: %w", what, err))
		}
		list = append(list, c)
	}

	found := "no file; kbsync uses the defaults, the environment and the flags"
	if cfg.Path != "" {
		found = cfg.Path + " is valid"
	}
	add("config", found, nil)
	store, err := a.open(ctx, cfg, true)
	if err == nil {
		defer closeStore(store, &err)
		found, err = checkState(ctx, cfg, store)
	}
	add("state", found, err)
	for _, name := range cfg.Selected {
		s, _ := cfg.Sync(name)
		found, left, warnings, err := a.checkRoot(ctx, cfg, s)
		add("root of "+name, found, err)
		list[len(list)-1].LeftOut, list[len(list)-1].Warnings = left, warnings
		if s.Notifications != "" {
			found, err := checkNotifications(ctx, s)
			add("notifications of "+name, found, err)
		}
	}
	found, err = a.checkToken(ctx, cfg, store)
	add("token", found, err)
	for _, name := range cfg.Selected {
		s, _ := cfg.Sync(name)
		found := fmt.Sprintf("%d; not checked, because the API reports a missing one only at the first upload", s.KnowledgeBase)
		add("knowledge base of "+name, found, nil)
	}
	if err := a.out.Result(list, func(w io.Writer) {
		for _, c := range list {
			mark := "ok"
			if !c.OK {
				mark = "FAILED"
			}
			fmt.Fprintf(w, "%-6s %s: %s\n", mark, console.Printable(c.What), console.Printable(c.Found))
			for _, row := range c.LeftOut.rows() {
				fmt.Fprintf(w, "       left out %s\n", row)
			}
			for _, warning := range c.Warnings {
				fmt.Fprintf(w, "%-6s %s: %s\n", "warn", console.Printable(c.What), console.Printable(warning))
			}
		}
	}); err != nil {
		return err
	}
	return engine.JoinErrors(failures)
}

func checkState(ctx context.Context, cfg *config.Config, store *state.Store) (string, error) {
	syncs, err := store.Syncs.All(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, with %s", cfg.State, console.Count(len(syncs), "sync")), nil
}

// checkRoot lists a root. It returns what it found, what the listing left out, and what may be wrong with the rules.
func (a *app) checkRoot(ctx context.Context, cfg *config.Config, s config.Sync) (found string, _ *leftOutView, warnings []string, _ error) {
	root, err := a.openRoot(cfg, s)
	if err != nil {
		return "", nil, nil, err
	}
	defer func() { _ = root.Close() }()
	documents, skipped, unlisted := 0, 0, 0
	var first error
	var left watcher.LeftOut
	for e, err := range root.Survey(ctx, &left) {
		if partial, ok := errors.AsType[*watcher.ListError](err); ok {
			if unlisted++; first == nil {
				first = partial
			}
			continue
		}
		if err != nil {
			return "", nil, nil, err
		}
		if documents++; e.Skip != "" {
			skipped++
		}
	}
	if unlisted > 0 {
		return "", nil, nil, engine.WithClass(engine.ClassTemporary, fmt.Errorf("cannot list %s: %w", console.Count(unlisted, "part"), first))
	}
	found = fmt.Sprintf("%s, %s", s.Root, console.Count(documents, "document"))
	if skipped > 0 {
		found += fmt.Sprintf(", %d of them skipped", skipped)
	}
	view := viewLeftOut(&left)
	return found, view, view.warnings(documents), nil
}

func checkNotifications(ctx context.Context, s config.Sync) (string, error) {
	if err := watcher.CheckSubscription(s.Notifications); err != nil {
		return "", engine.WithClass(engine.ClassUsage, err)
	}
	found, err := watcher.CheckNotifications(ctx, s.Notifications, s.Name)
	if err != nil {
		return "", engine.WithClass(engine.ClassTemporary, err)
	}
	return found, nil
}

// checkToken asks for the status of a known source, or of id 0 if there is none.
func (a *app) checkToken(ctx context.Context, cfg *config.Config, store *state.Store) (_ string, err error) {
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	var id int64
	if store != nil {
		syncs, err := store.Syncs.All(ctx)
		if err != nil {
			return "", err
		}
		for _, s := range syncs {
			if id == 0 && api.engine(cfg).Serves(s.Destination) {
				if id, err = store.Inventory.AnySource(ctx, s.Destination.ID); err != nil {
					return "", err
				}
			}
		}
	}
	if _, err := api.client.SourceStatus(ctx, []int64{id}); err != nil {
		return "", err
	}
	found := "accepted by " + api.origin
	if api.account != "" {
		found += ", account " + api.account
	}
	return found, nil
}
