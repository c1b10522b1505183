package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/state"
)

func (a *app) sourcesCommand() *cobra.Command {
	var orphaned, superseded, duplicates bool
	cmd := &cobra.Command{
		Use:   "sources [NAME]",
		Short: "List the sources that kbsync created",
		Long: `sources prints the inventory: every source that kbsync ever created in a knowledge base. The API cannot remove a source.
--orphaned and --superseded list the ids to remove by hand in ReplyCX; afterwards run kbsync sources ack ID...`,
		Args:        atMost(1),
		Annotations: map[string]string{allowsCSV: "yes"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if duplicates && (orphaned || superseded) {
				return usageError("--possible-duplicates cannot be combined with --orphaned or --superseded")
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
					return printRows(a.out, duplicateColumns(), listDuplicates(ctx, store, filter.SyncID))
				}
				if orphaned {
					filter.Standings = append(filter.Standings, state.Orphaned)
				}
				if superseded {
					filter.Standings = append(filter.Standings, state.Superseded)
				}
				return printRows(a.out, sourceColumns(), mapped(store.Inventory.Sources(ctx, filter), viewSource))
			})
		},
	}
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

// A sourceView is a row of the inventory.
type sourceView struct {
	ID            int64      `json:"id"`
	Sync          string     `json:"sync"`
	Key           string     `json:"key"`
	Origin        string     `json:"origin"`
	Account       string     `json:"account"`
	KnowledgeBase int64      `json:"knowledge_base"`
	Name          string     `json:"name"`
	Type          string     `json:"type"`
	Status        string     `json:"status"`
	Errors        string     `json:"errors,omitempty"`
	Standing      string     `json:"standing"`
	SHA256        string     `json:"sha256"`
	Batch         int64      `json:"batch"`
	CreatedAt     time.Time  `json:"created_at"`
	SettledAt     *time.Time `json:"settled_at"`
	AckedAt       *time.Time `json:"acked_at"`
}

func viewSource(s state.Source) sourceView {
	return sourceView{
		ID: s.ID, Sync: s.Sync, Key: s.Key,
		Origin: s.Destination.Origin, Account: s.Destination.Account, KnowledgeBase: s.Destination.KnowledgeBase,
		Name: s.Name, Type: s.Type, Status: s.Status, Errors: s.Errors, Standing: string(s.Standing), SHA256: hexOf(s.SHA256),
		Batch: s.Batch, CreatedAt: s.CreatedAt, SettledAt: timeOrNil(s.OutcomeAt), AckedAt: timeOrNil(s.AckedAt),
	}
}

// A column of rows. The table has only the brief columns, the CSV has all columns.
type column[T any] struct {
	name  string
	brief bool
	text  func(T) string
}

func sourceColumns() []column[sourceView] {
	return []column[sourceView]{
		{"id", true, func(v sourceView) string { return strconv.FormatInt(v.ID, 10) }},
		{"standing", true, func(v sourceView) string { return v.Standing }},
		{"status", true, func(v sourceView) string { return v.Status }},
		{"knowledge_base", true, func(v sourceView) string { return strconv.FormatInt(v.KnowledgeBase, 10) }},
		{"sync", true, func(v sourceView) string { return v.Sync }},
		{"key", true, func(v sourceView) string { return v.Key }},
		{"name", false, func(v sourceView) string { return v.Name }},
		{"type", false, func(v sourceView) string { return v.Type }},
		{"errors", false, func(v sourceView) string { return v.Errors }},
		{"created_at", true, func(v sourceView) string { return v.CreatedAt.UTC().Format(time.RFC3339) }},
		{"settled_at", false, func(v sourceView) string { return formatOptional(v.SettledAt) }},
		{"acked_at", false, func(v sourceView) string { return formatOptional(v.AckedAt) }},
		{"sha256", false, func(v sourceView) string { return v.SHA256 }},
		{"batch", false, func(v sourceView) string { return strconv.FormatInt(v.Batch, 10) }},
		{"origin", false, func(v sourceView) string { return v.Origin }},
		{"account", false, func(v sourceView) string { return v.Account }},
	}
}

func formatOptional(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
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

// printRows prints a stream of rows as a table, CSV or JSON. CSV and JSON keep one row in memory. A table needs the width
// of its columns, so printRows writes it in chunks.
func printRows[T any](out *output, columns []column[T], rows iter.Seq2[T, error]) error {
	switch out.format {
	case formatJSON:
		return printJSON(out.stdout, rows)
	case formatCSV:
		return printCSV(out.stdout, columns, rows)
	}
	if out.quiet {
		return nil
	}
	brief := slices.DeleteFunc(columns, func(c column[T]) bool { return !c.brief })
	const chunk = 1000
	var lines [][]string
	flush := func() error {
		var b bytes.Buffer
		table(&b, lines)
		lines = lines[:0]
		_, err := out.stdout.Write(b.Bytes())
		return err
	}
	lines = append(lines, names(brief))
	n := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		n++
		cells := make([]string, len(brief))
		for i, c := range brief {
			cells[i] = printable(c.text(row))
		}
		if lines = append(lines, cells); len(lines) >= chunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		_, err := io.WriteString(out.stdout, "none\n")
		return err
	}
	return flush()
}

func names[T any](columns []column[T]) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.name
	}
	return out
}

func printJSON[T any](w io.Writer, rows iter.Seq2[T, error]) error {
	before := "[\n  "
	for row, err := range rows {
		if err != nil {
			return err
		}
		var b bytes.Buffer
		b.WriteString(before)
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(row); err != nil {
			return err
		}
		if _, err := w.Write(bytes.TrimRight(b.Bytes(), "\n")); err != nil {
			return err
		}
		before = ",\n  "
	}
	end := "\n]\n"
	if strings.HasPrefix(before, "[") {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}

func printCSV[T any](w io.Writer, columns []column[T], rows iter.Seq2[T, error]) error {
	c := csv.NewWriter(w)
	if err := c.Write(names(columns)); err != nil {
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = harmlessCell(column.text(row))
		}
		if err := c.Write(cells); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// harmlessCell prevents a spreadsheet from reading the name of a document as a formula.
func harmlessCell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

func (a *app) ackCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "ack ID...",
		Short: "Record that sources were removed by hand",
		Long: `ack records that a person removed sources from the knowledge base, so that sources no longer lists them as left behind.
Documents that still have the content of such a source become pending, and the next sync uploads them again.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("missing the ids of the removed sources; usage: " + cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ids := make([]int64, len(args))
			for i, text := range args {
				id, err := strconv.ParseInt(text, 10, 64)
				if err != nil || id <= 0 {
					return usageError(quoted(text) + " is not the id of a source; kbsync sources lists the ids")
				}
				ids[i] = id
			}
			return a.withStore(cmd, false, func(ctx context.Context, store *state.Store) error { return a.ack(ctx, store, name, ids) })
		},
	}
	cmd.Flags().StringVar(&name, "sync", "", "The sync of the sources. Needed if two destinations have the same id.")
	return cmd
}

func (a *app) ack(ctx context.Context, store *state.Store, name string, ids []int64) error {
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
		if !slices.Contains(ids, s.ID) {
			continue
		}
		if d, ok := destinations[s.ID]; ok && d != s.Destination.ID {
			return usageError(fmt.Sprintf("two destinations have a source %d; name the sync with --sync", s.ID))
		}
		destinations[s.ID] = s.Destination.ID
	}
	byDestination := map[int64][]int64{}
	for _, id := range ids {
		d, ok := destinations[id]
		if !ok {
			return usageError(fmt.Sprintf("the inventory has no source %d; kbsync sources lists the ids", id))
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
	return a.out.result(result, func(w io.Writer) {
		fmt.Fprintf(w, "%s recorded as removed\n", count(len(destinations), "source"))
		if pending > 0 {
			fmt.Fprintf(w, "the next sync uploads %s with the same content again\n", count(pending, "document"))
		}
	})
}
