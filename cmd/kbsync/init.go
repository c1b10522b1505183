package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
)

func (a *app) initCommand() *cobra.Command {
	var knowledgeBase int64
	cmd := &cobra.Command{
		Use:   "init [ROOT]",
		Short: "Write a commented config file",
		Long: `init writes a config file that lists every setting with its default and its purpose. The file is kbsync.yaml, or the one
that --config names. init never overwrites a file.`,
		Example: `  kbsync init ./docs --knowledge-base 876
  kbsync init --config /etc/kbsync/kbsync.yaml`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			root := "./docs"
			if len(args) > 0 {
				root = args[0]
			}
			return a.writeConfig(cmp.Or(a.configPath, configNames()[0]), config.Sample(root, knowledgeBase))
		},
	}
	cmd.Flags().Int64Var(&knowledgeBase, "knowledge-base", 0, "Id of the knowledge base for the documents.")
	return cmd
}

func (a *app) writeConfig(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usageError(fmt.Sprintf("%s already exists; name another file with --config", console.Quoted(path)))
	}
	if err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		_ = os.Remove(path)
		return fmt.Errorf("write config: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	a.out.Note("wrote %s; next, run kbsync check, then kbsync plan to see the uploads", console.Printable(path))
	return nil
}
