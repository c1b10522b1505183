package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) stateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Back up, restore and check the inventory",
		Long: `The state is the only inventory of the uploads, because the API cannot list sources. If you lose it, kbsync uploads every
document again and the knowledge base holds each one twice. Back the state up regularly.`,
		Example: `  kbsync state backup
  kbsync state check`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Sprintf("unknown command kbsync state %s; write kbsync state backup, snapshot, export, import, adopt or check", console.Printable(args[0])))
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError("write kbsync state backup, snapshot, export, import, adopt or check")
		},
	}
	cmd.AddCommand(a.backupCommand(), a.snapshotCommand(), a.exportCommand(), a.importCommand(), a.adoptCommand(), a.stateCheckCommand())
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the state as JSON lines",
		Example: `  kbsync state export kbsync.jsonl
  kbsync state export | gzip >kbsync.jsonl.gz`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, true, func(ctx context.Context, store *state.Store) error {
				if len(args) == 0 || args[0] == "-" {
					return store.Export(ctx, a.out.Stdout)
				}
				if err := atomicfile.Write(args[0], func(w io.Writer) error { return store.Export(ctx, w) }); err != nil {
					return fmt.Errorf("export state: %w", err)
				}
				return nil
			})
		},
	}
}

func (a *app) importCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "import FILE | URL",
		Short: "Read an export into an empty state",
		Long: `import reads an export from a file, from stdin with -, or the newest snapshot in a bucket, into an empty state. It imports the
whole export or nothing.`,
		Example: `  kbsync state import kbsync.jsonl
  kbsync state import kbsync.jsonl --state postgres://kbsync@db.example/kbsync
  kbsync state import 's3://backups?prefix=kbsync/&region=eu-west-1'`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in, done, err := a.openExport(cmd.Context(), args[0], name)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			return a.withStore(cmd, false, func(ctx context.Context, store *state.Store) error {
				err := store.Import(ctx, in)
				if errors.Is(err, state.ErrNotEmpty) {
					return usageError("the state already holds an inventory, and import cannot merge two; name another state with --state")
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", defaultSnapshotName, "Name of the snapshots in a bucket, as for kbsync state snapshot.")
	return cmd
}

func (a *app) stateCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Verify the file of the state and its consistency",
		Example: `  kbsync state check`,
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd, true, func(ctx context.Context, store *state.Store) error {
				findings, err := store.Check(ctx)
				if err != nil {
					return err
				}
				result := struct {
					Findings []string `json:"findings"`
				}{append([]string{}, findings...)}
				if err := a.out.Result(result, func(w io.Writer) {
					for _, f := range findings {
						fmt.Fprintln(w, console.Printable(f))
					}
					if len(findings) == 0 {
						fmt.Fprintln(w, "the state is sound")
					}
				}); err != nil {
					return err
				}
				if len(findings) > 0 {
					return engine.WithClass(engine.ClassOther, fmt.Errorf("%s in the state; restore a backup with kbsync state import", console.Count(len(findings), "finding")))
				}
				return nil
			})
		},
	}
}
