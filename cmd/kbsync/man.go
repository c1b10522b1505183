package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages",
		Long: `man writes a man page for each command to a directory, which it creates if it does not exist. The date of the pages is
SOURCE_DATE_EPOCH, a number of seconds, if that variable is set, so that two builds write equal pages.`,
		Example: `  kbsync man ~/.local/share/man/man1
  man kbsync-sync`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			header := &doc.GenManHeader{Source: "kbsync " + strings.TrimPrefix(buildVersion(), "v"), Manual: "kbsync"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			return nil
		},
	}
}
