package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/state"
)

func (a *app) reindexCommand() *cobra.Command {
	o := passOptions{wait: true}
	var failed, stuck, all bool
	var olderThan string
	cmd := &cobra.Command{
		Use:   "reindex [NAME] [GLOB...]",
		Short: "Upload documents once more, even if they did not change",
		Long: `reindex marks documents and then syncs. The sync uploads marked documents once more although it knows their content. The
new source replaces the old one when its training has completed. The old source stays in the knowledge base, superseded.

reindex needs a selection: globs of keys, --failed, --stuck, --older-than or --all.`,
		Example: `  kbsync reindex handbook 'guides/**'
  kbsync reindex --older-than 90d
  kbsync reindex handbook --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel := state.Selection{}
			if failed {
				sel.States = append(sel.States, state.Failed)
			}
			if stuck {
				sel.States = append(sel.States, state.Stuck)
			}
			if olderThan != "" {
				age, err := parseAge(olderThan)
				if err != nil {
					return usageError(fmt.Sprintf("--older-than: invalid age %s; write for example 30d, 2w or 12h", console.Quoted(olderThan)))
				}
				sel.OlderThan = a.now().Add(-age)
			}
			cfg, globs, err := a.loadNamed(cmd, args)
			if err != nil {
				return err
			}
			if len(globs) > 0 {
				if sel.Match, err = keyMatcher(globs); err != nil {
					return err
				}
			}
			chosen := failed || stuck || olderThan != "" || len(globs) > 0
			if chosen == all {
				return usageError("select the documents to upload once more: globs of keys, --failed, --stuck or --older-than 30d,\n" +
					"or --all for every document (each document leaves its old source behind in the knowledge base)")
			}
			o.mark = marker(sel)
			return a.sync(cmd.Context(), cfg, o)
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "Select documents that failed.")
	cmd.Flags().BoolVar(&stuck, "stuck", false, "Select documents past the training deadline.")
	cmd.Flags().StringVar(&olderThan, "older-than", "", "Select documents whose upload is older: 30d, 2w, 12h.")
	cmd.Flags().BoolVar(&all, "all", false, "Select every document.")
	syncFlags(cmd)
	passFlags(cmd, &o)
	return cmd
}

func (a *app) retryCommand() *cobra.Command {
	o := passOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "retry [NAME]",
		Short: "Upload failed, stuck and uncertain documents again",
		Long: `retry marks the documents that failed, are stuck in training or are uncertain, and then syncs. The sync uploads them once
more, and looks again at documents that were blocked. Uncertain documents may then be in the knowledge base twice; kbsync sources --possible-duplicates lists them.`,
		Example: `  kbsync retry
  kbsync retry handbook`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			mark := marker(state.Troubled())
			o.mark = func(ctx context.Context, store *state.Store, s state.Sync) (int, error) {
				blocked, err := store.Queue.ReopenBlocked(ctx, s.ID)
				if err != nil {
					return 0, err
				}
				marked, err := mark(ctx, store, s)
				return blocked + marked, err
			}
			return a.sync(cmd.Context(), cfg, o)
		},
	}
	syncFlags(cmd)
	passFlags(cmd, &o)
	return cmd
}

func marker(sel state.Selection) func(context.Context, *state.Store, state.Sync) (int, error) {
	return func(ctx context.Context, store *state.Store, s state.Sync) (int, error) {
		n, err := store.Queue.Mark(ctx, s.ID, sel)
		if err != nil {
			return 0, fmt.Errorf("mark documents: %w", err)
		}
		return n, nil
	}
}

// loadNamed loads the config. If the first argument names a sync or a root, loadNamed selects it; it returns the other
// arguments.
func (a *app) loadNamed(cmd *cobra.Command, args []string) (*config.Config, []string, error) {
	if len(args) == 0 {
		cfg, err := a.load(cmd)
		return cfg, nil, err
	}
	cfg, err := a.load(cmd)
	if err != nil {
		return nil, nil, err
	}
	info, err := os.Stat(args[0])
	isDirectory := err == nil && info.IsDir()
	if _, isName := cfg.Sync(args[0]); isName || isDirectory || looksLikeRoot(args[0]) {
		cfg, err = a.load(cmd, args[0])
		return cfg, args[1:], err
	}
	return cfg, args, nil
}

// looksLikeRoot reports whether an argument is a directory or a bucket and not a glob of keys. No key begins with a
// dot-slash, a slash, a drive or a scheme.
func looksLikeRoot(arg string) bool {
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(arg, prefix) }
	hasDrive := len(arg) > 2 && arg[1] == ':' && (arg[2] == '\\' || arg[2] == '/')
	return arg == "." || arg == ".." || hasDrive || strings.Contains(arg, "://") ||
		slices.ContainsFunc([]string{"./", "../", "/", `.\`}, hasPrefix)
}

// keyMatcher matches keys with globs, as --include does.
func keyMatcher(globs []string) (func(string) bool, error) {
	for _, g := range globs {
		if !doublestar.ValidatePattern(g) {
			return nil, usageError("invalid glob " + console.Quoted(g) + "; write for example 'guides/**' or '**/*.md'")
		}
	}
	return func(key string) bool {
		return slices.ContainsFunc(globs, func(g string) bool {
			ok, _ := doublestar.Match(g, key)
			return ok || g == key
		})
	}, nil
}

// parseAge reads days (30d), weeks (2w) and the formats of time.ParseDuration.
func parseAge(text string) (time.Duration, error) {
	for suffix, days := range map[string]time.Duration{"d": 1, "w": 7} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			return time.Duration(n) * days * 24 * time.Hour, err
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	return d, err
}
