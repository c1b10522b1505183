package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/state"
)

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup [FILE]",
		Short: "Copy the file of the state while it is in use",
		Long: `backup writes a consistent copy of the state to FILE, or beside the state, where it keeps the last three copies. It may run
while another kbsync works. kbsync watch makes such a copy every day, and a new version of kbsync makes one before it changes
the schema. To restore a copy, end all kbsync processes, remove the state's files that end in -wal and -shm, and put the copy in the place of
the state.

A PostgreSQL state is backed up with pg_dump, or with kbsync state export.`,
		Example: `  kbsync state backup
  kbsync state backup /mnt/backup/kbsync.db`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, true, func(ctx context.Context, store *state.Store) (err error) {
				path := ""
				if len(args) > 0 {
					path, err = args[0], store.Backup(ctx, args[0])
				} else if path, err = store.BackupBeside(ctx, 0); err == nil && path == "" {
					err = state.ErrNoCopy
				}
				if errors.Is(err, state.ErrNoCopy) {
					return usageError("there is no file to copy: a PostgreSQL state is backed up with pg_dump or kbsync state export, " +
						"and a new state after its first sync")
				}
				if err != nil {
					return err
				}
				return a.reportCopy(path)
			})
		},
	}
}

func (a *app) reportCopy(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	result := struct {
		File  string `json:"file"`
		Bytes int64  `json:"bytes"`
	}{path, info.Size()}
	return a.out.Result(result, func(w io.Writer) {
		fmt.Fprintf(w, "copied the state to %s, %s\n", console.Printable(path), console.Bytes(info.Size()))
	})
}
