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
	"github.com/kbsync/kbsync/state"
)

func (a *app) reindexCommand() *cobra.Command {
	o := passOptions{wait: true}
	var failed, stuck, all bool
	var olderThan string
	cmd := &cobra.Command{
		Use:   "reindex [NAME] [GLOB...]",
		Short: "Upload documents once more, whatever their content",
		Long: `reindex marks documents to be uploaded once more although their content is known, and syncs. The new source takes the
place of the old one when its training has completed; the old one stays in the knowledge base, superseded.

It needs a selection: globs of keys, --failed, --stuck, --older-than or --all.

  kbsync reindex handbook 'guides/**'
  kbsync reindex --failed`,
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
					return usageError(fmt.Sprintf("--older-than: %s is no age; write one such as 30d, 2w or 12h", quoted(olderThan)))
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
				return usageError("say which documents are to be uploaded once more: globs of keys, --failed, --stuck or --older-than 30d,\n" +
					"or --all for every document (each leaves its old source behind in the knowledge base)")
			}
			o.mark = marker(sel)
			return a.sync(cmd.Context(), cfg, o)
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "Documents that failed.")
	cmd.Flags().BoolVar(&stuck, "stuck", false, "Documents past the training deadline.")
	cmd.Flags().StringVar(&olderThan, "older-than", "", "Documents uploaded longer ago than this: 30d, 2w, 12h.")
	cmd.Flags().BoolVar(&all, "all", false, "Every document.")
	syncFlags(cmd)
	passFlags(cmd, &o)
	return cmd
}

func (a *app) retryCommand() *cobra.Command {
	o := passOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "retry [NAME]",
		Short: "Try again what failed, is stuck or uncertain",
		Long: `retry marks the documents that failed, are stuck in training or uncertain to be uploaded once more, and syncs. What is
uncertain may be in the knowledge base twice afterwards; kbsync sources --possible-duplicates lists it.`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			o.mark = marker(state.Selection{States: []state.DocumentState{state.Failed, state.Stuck, state.Uncertain}})
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

// loadNamed loads the config for arguments of which the first may name a sync and the rest are something else.
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
	if _, isName := cfg.Sync(args[0]); isName || isDirectory || looksLikePlace(args[0]) {
		cfg, err = a.load(cmd, args[0])
		return cfg, args[1:], err
	}
	return cfg, args, nil
}

// looksLikePlace tells a directory or a bucket that is given as a root from a glob of keys: keys begin with no dot-slash, no
// slash, no drive and no scheme.
func looksLikePlace(arg string) bool {
	return arg == "." || arg == ".." || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") || strings.HasPrefix(arg, "/") ||
		strings.Contains(arg, "://") ||
		strings.HasPrefix(arg, `.\`) || len(arg) > 2 && arg[1] == ':' && (arg[2] == '\\' || arg[2] == '/')
}

// keyMatcher matches keys with globs, as --include does.
func keyMatcher(globs []string) (func(string) bool, error) {
	for _, g := range globs {
		if !doublestar.ValidatePattern(g) {
			return nil, usageError(quoted(g) + " is no glob; write one such as 'guides/**' or '**/*.md'")
		}
	}
	return func(key string) bool {
		return slices.ContainsFunc(globs, func(g string) bool {
			ok, _ := doublestar.Match(g, key)
			return ok || g == key
		})
	}, nil
}

// parseAge reads 30d, 2w and what time.ParseDuration reads.
func parseAge(text string) (time.Duration, error) {
	for suffix, day := range map[string]time.Duration{"d": 1, "w": 7} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			days, err := strconv.ParseUint(n, 10, 16)
			return time.Duration(days) * day * 24 * time.Hour, err
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	return d, err
}
