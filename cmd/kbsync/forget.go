package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) forgetCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget NAME",
		Short: "Remove a sync from the state",
		Long: `forget removes a sync from the state. Its sources stay in the knowledge base, because the API cannot remove them. They
become orphans; remove them by hand (kbsync sources --orphaned lists them). A later sync of the same root shares them again.
If a process was killed while it uploaded the sync, forget ends its requests, so that other syncs do not wait for them.`,
		Example: `  kbsync forget handbook
  kbsync sources handbook --orphaned`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, false, func(ctx context.Context, store *state.Store) error {
				return a.forget(ctx, store, args[0], yes)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask for confirmation.")
	return cmd
}

func (a *app) forget(ctx context.Context, store *state.Store, name string, yes bool) (err error) {
	s, err := findSync(ctx, store, name)
	if err != nil {
		return err
	}
	if !yes {
		if !console.IsTerminal(a.stdin) {
			return usageError(fmt.Sprintf("forget removes sync %s from the state and makes its sources orphans; confirm with --yes",
				console.Printable(s.Name)))
		}
		fmt.Fprintf(a.out.Stderr, "Forget sync %s of %s? Its sources stay in the knowledge base. [y/N] ", console.Printable(s.Name), console.Printable(s.Root))
		answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
		if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
			return engine.WithClass(engine.ClassOther, errors.New("cancelled; nothing has changed"))
		}
	}
	lock, err := store.Lock(ctx, s.Name, engine.LockPatience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	uncertain, err := store.Journal.Recover(ctx, s.ID)
	if err != nil {
		return err
	}
	if err := store.Syncs.Forget(ctx, s.ID); err != nil {
		return err
	}
	_, orphaned, err := store.Inventory.CountLeftBehind(ctx, s.ID)
	if err != nil {
		return err
	}
	result := struct {
		Sync     string `json:"sync"`
		Orphaned int    `json:"orphaned"`
		// Unanswered are the uploads that a killed process has left: their documents may be in the knowledge base.
		Unanswered int `json:"unanswered"`
	}{s.Name, orphaned, uncertain}
	return a.out.Result(result, func(w io.Writer) {
		fmt.Fprintf(w, "forgot %s; %s left in the knowledge base (kbsync sources --orphaned)\n",
			console.Printable(s.Name), console.Count(orphaned, "source"))
		if uncertain > 0 {
			fmt.Fprintf(w, "%s had no answer when kbsync ended; the documents may be in the knowledge base (kbsync sources --possible-duplicates)\n",
				console.Count(uncertain, "request"))
		}
	})
}
