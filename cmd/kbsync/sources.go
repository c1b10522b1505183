package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/state"
)

func (a *app) sourcesCommand() *cobra.Command {
	var orphaned, superseded, leftBehind, duplicates bool
	cmd := &cobra.Command{
		Use:   "sources [NAME]",
		Short: "List the sources that kbsync created",
		Long: `sources prints the inventory: every source that kbsync ever created in a knowledge base. The API cannot remove a source.
--left-behind lists the sources that answer wrongly: no document has their content any more, or a newer source has it, too.
Remove them by hand in ReplyCX; afterwards run kbsync sources ack ID... With -o html the list is a page with check boxes that writes this command.`,
		Example: `  kbsync sources --left-behind
  kbsync sources --left-behind -o html >worksheet.html
  kbsync sources handbook --json`,
		Args:        atMost(1),
		Annotations: map[string]string{printsRows: "yes"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if duplicates && (orphaned || superseded || leftBehind) {
				return usageError("--possible-duplicates cannot be combined with --left-behind, --orphaned or --superseded")
			}
			return a.withStore(cmd, true, func(ctx context.Context, store *state.Store) error {
				var filter state.SourceFilter
				if len(args) > 0 {
					s, err := findSync(ctx, store, args[0])
					if err != nil {
						return err
					}
					filter.SyncID = s.ID
				}
				if duplicates {
					return a.printDuplicates(store.Inventory.PossibleDuplicates(ctx, filter.SyncID))
				}
				if orphaned || leftBehind {
					filter.Standings = append(filter.Standings, state.Orphaned)
				}
				if superseded || leftBehind {
					filter.Standings = append(filter.Standings, state.Superseded)
				}
				filter.Answering = leftBehind
				return a.printSources(mapped(store.Inventory.Worksheet(ctx, filter), viewRow), len(filter.Standings) > 0)
			})
		},
	}
	cmd.Flags().BoolVar(&leftBehind, "left-behind", false, "List only sources to remove by hand: superseded and orphaned ones whose training has not failed.")
	cmd.Flags().BoolVar(&orphaned, "orphaned", false, "List only sources whose document is gone.")
	cmd.Flags().BoolVar(&superseded, "superseded", false, "List only sources whose document has a newer content.")
	cmd.Flags().BoolVar(&duplicates, "possible-duplicates", false, "List the documents that may be in the knowledge base twice.")
	cmd.AddCommand(a.ackCommand())
	return cmd
}

// withStore runs a command that needs only the state.
func (a *app) withStore(cmd *cobra.Command, readOnly bool, do func(context.Context, *state.Store) error) (err error) {
	cfg, err := a.load(cmd)
	if err != nil {
		return err
	}
	store, err := a.open(cmd.Context(), cfg, readOnly)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	return do(cmd.Context(), store)
}

func formatOptional(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// formatDay formats the local day of a time.
func formatDay(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.DateOnly)
}

// mapped applies view to each row of a stream.
func mapped[T, V any](rows iter.Seq2[T, error], view func(T) V) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		for row, err := range rows {
			if !yield(view(row), err) {
				return
			}
		}
	}
}

func (a *app) ackCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "ack ID... | -",
		Short: "Record that sources were removed by hand",
		Long: `ack records that a person removed sources from the knowledge base, so that sources no longer lists them as left behind.
Documents that still have the content of such a source become pending, and the next sync uploads them again. With - it reads
the ids from stdin, separated by spaces or lines.`,
		Example: `  kbsync sources ack 330783 330784
  kbsync sources ack - <ids.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("missing the ids of the removed sources; usage: " + cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "-" {
				text, err := io.ReadAll(a.stdin)
				if err != nil {
					return fmt.Errorf("read ids: %w", err)
				}
				args = strings.Fields(string(text))
			}
			ids := map[int64]bool{}
			for _, text := range args {
				id, err := parseSourceID(text)
				if err != nil {
					return err
				}
				ids[id] = true
			}
			return a.withStore(cmd, false, func(ctx context.Context, store *state.Store) error { return a.ack(ctx, store, name, ids) })
		},
	}
	cmd.Flags().StringVar(&name, "sync", "", "The sync of the sources. Needed if two destinations have the same id.")
	return cmd
}

func (a *app) ack(ctx context.Context, store *state.Store, name string, ids map[int64]bool) error {
	var filter state.SourceFilter
	if name != "" {
		s, err := findSync(ctx, store, name)
		if err != nil {
			return err
		}
		filter.SyncID = s.ID
	}
	destinations := map[int64]int64{} // by source
	for s, err := range store.Inventory.Sources(ctx, filter) {
		if err != nil {
			return err
		}
		if !ids[s.ID] {
			continue
		}
		if d, ok := destinations[s.ID]; ok && d != s.Destination.ID {
			return usageError(fmt.Sprintf("two destinations have a source %s; name the sync with --sync", sourceID(s.ID)))
		}
		destinations[s.ID] = s.Destination.ID
	}
	byDestination := map[int64][]int64{}
	for id := range ids {
		d, ok := destinations[id]
		if !ok {
			return usageError(fmt.Sprintf("the inventory has no source %s; kbsync sources lists the ids", sourceID(id)))
		}
		byDestination[d] = append(byDestination[d], id)
	}
	pending := 0
	for d, ids := range byDestination {
		n, err := store.Inventory.MarkSourcesGone(ctx, d, ids)
		if err != nil {
			return err
		}
		pending += n
	}
	result := struct {
		Acknowledged int `json:"acknowledged"`
		Pending      int `json:"pending"`
	}{len(destinations), pending}
	return a.out.Result(result, func(w io.Writer) {
		fmt.Fprintf(w, "%s recorded as removed\n", console.Count(len(destinations), "source"))
		if pending > 0 {
			fmt.Fprintf(w, "the next sync uploads %s with the same content again\n", console.Count(pending, "document"))
		}
	})
}
