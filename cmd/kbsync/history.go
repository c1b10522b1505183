package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// A documentView is one document with its history.
type documentView struct{ statuspage.DocumentView }

// resavedText says that a document was saved again.
func resavedText(v statuspage.ResavedView) string {
	text := fmt.Sprintf("saved again with only its metadata changed (found at %s); it keeps the content %s", console.Moment(v.Since), shortHash(v.Content))
	if v.SentAt != nil {
		text += ", uploaded at " + console.Moment(*v.SentAt)
	}
	return text
}

// documentStatus prints the history of the document with a key. Only one of the syncs may have it.
func (a *app) documentStatus(ctx context.Context, store *state.Store, syncs []state.Sync, key string) error {
	var names []string
	var found documentView
	for _, s := range syncs {
		d, err := store.Documents.Get(ctx, s.ID, key)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if found, err = viewDocument(ctx, store, s, d); err != nil {
			return err
		}
		names = append(names, console.Printable(s.Name))
	}
	switch {
	case len(names) > 1:
		return usageError(fmt.Sprintf("the syncs %s have a document %s; name one of them: kbsync status %s %s",
			strings.Join(names, " and "), console.Quoted(key), names[0], console.Printable(key)))
	case len(names) == 1:
		return a.out.Result(found, found.print)
	case len(syncs) == 1:
		return usageError(fmt.Sprintf("sync %s has no document %s; kbsync explain shows why", console.Printable(syncs[0].Name), console.Quoted(key)))
	}
	return usageError(fmt.Sprintf("there is no sync and no document %s; kbsync status lists the syncs, and kbsync explain shows why "+
		"a document is not known", console.Quoted(key)))
}

func viewDocument(ctx context.Context, store *state.Store, s state.Sync, d state.Document) (documentView, error) {
	v, err := statuspage.ReadDocument(ctx, store, s, d)
	return documentView{v}, err
}

func (v documentView) print(w io.Writer) {
	fmt.Fprintf(w, "%s in %s: %s\n", console.Printable(v.Key), console.Printable(v.Sync), v.State)
	if v.Reason != "" {
		fmt.Fprintf(w, "  %s\n", console.Printable(v.Reason))
	}
	fmt.Fprintf(w, "  %s", console.Bytes(v.Size))
	if v.SHA256 != "" {
		fmt.Fprintf(w, ", sha256 %s", v.SHA256)
	}
	fmt.Fprintln(w)
	if v.Resaved != nil {
		fmt.Fprintf(w, "  %s\n", resavedText(*v.Resaved))
	}
	if v.ChangedAt != nil {
		fmt.Fprintf(w, "  last change recorded at %s\n", console.Moment(*v.ChangedAt))
	}
	if v.NextAttempt != nil {
		fmt.Fprintf(w, "  %s; next attempt at %s\n", console.Count(v.Attempts, "failed attempt"), console.Moment(*v.NextAttempt))
	}
	printTable(w, "versions:", len(v.Versions), func(i int) []string {
		x := v.Versions[i]
		until, why := "now", x.Reason
		if x.Until != nil {
			until = "until " + console.Moment(*x.Until)
		}
		if x.UploadedFor != (state.DocumentName{Sync: v.Sync, Key: v.Key}) {
			uploaded := "uploaded for " + x.UploadedFor.Key
			if x.UploadedFor.Sync != v.Sync {
				uploaded += " in " + x.UploadedFor.Sync
			}
			why = strings.TrimSuffix(uploaded+"; "+why, "; ")
		}
		return []string{until, shortHash(x.SHA256), console.Bytes(x.Size), x.State, console.Printable(why)}
	})
	printTable(w, "sources:", len(v.Sources), func(i int) []string {
		s := v.Sources[i]
		since := ""
		if s.LeftAt != nil {
			since = "since " + console.Moment(*s.LeftAt)
		}
		if len(s.ReplacedBy) > 0 {
			since += ", replaced by " + idList(s.ReplacedBy)
		}
		return []string{sourceID(s.ID), s.Standing, s.Status, shortHash(s.SHA256), console.Moment(s.CreatedAt), console.Printable(s.Name), since}
	})
	printTable(w, "history:", len(v.History), func(i int) []string {
		e := v.History[i]
		row := []string{console.Moment(e.At), console.Printable(e.What), shortHash(e.SHA256), "", ""}
		if e.Batch != 0 {
			row[3] = "batch " + strconv.FormatInt(e.Batch, 10)
		}
		if e.Source != 0 {
			row[4] = "source " + sourceID(e.Source)
		}
		return row
	})
}

func printTable(w io.Writer, title string, rows int, row func(int) []string) {
	if rows == 0 {
		return
	}
	fmt.Fprintln(w, title)
	var table [][]string
	for i := range rows {
		cells := row(i)
		cells[0] = "  " + cells[0]
		table = append(table, cells)
	}
	console.Table(w, table)
}

// shortHash returns the first digits of a hash, enough to tell the versions of a document apart.
func shortHash(sum string) string {
	if len(sum) < 8 {
		return "-"
	}
	return sum[:8]
}
