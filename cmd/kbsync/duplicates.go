package main

import (
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A duplicateView is a document that may be in the knowledge base twice.
type duplicateView struct {
	Sync       string    `json:"sync"`
	Key        string    `json:"key"`
	Class      string    `json:"class"`
	Batch      int64     `json:"batch"`
	ResentAs   int64     `json:"resent_as,omitempty"`
	SHA256     string    `json:"sha256"`
	At         time.Time `json:"at"`
	LeftBehind bool      `json:"left_behind"`
	// KnownSources are the ids of the sources with the same content that the inventory has. Any other source with this
	// content is the duplicate.
	KnownSources []int64 `json:"known_sources"`
}

func viewDuplicate(d state.PossibleDuplicate, known []int64) duplicateView {
	return duplicateView{d.Sync, d.Key, d.Class, d.Batch, d.ResentAs, hexOf(d.SHA256), d.At, d.LeftBehind, append([]int64{}, known...)}
}

func duplicateColumns() []column[duplicateView] {
	return []column[duplicateView]{
		{"class", true, func(v duplicateView) string { return v.Class }},
		{"sync", true, func(v duplicateView) string { return v.Sync }},
		{"key", true, func(v duplicateView) string { return v.Key }},
		{"batch", true, func(v duplicateView) string { return strconv.FormatInt(v.Batch, 10) }},
		{"resent_as", true, func(v duplicateView) string {
			if v.ResentAs == 0 {
				return ""
			}
			return strconv.FormatInt(v.ResentAs, 10)
		}},
		{"at", true, func(v duplicateView) string { return v.At.UTC().Format(time.RFC3339) }},
		{"left_behind", true, func(v duplicateView) string { return strconv.FormatBool(v.LeftBehind) }},
		{"sha256", false, func(v duplicateView) string { return v.SHA256 }},
		{"known_sources", true, func(v duplicateView) string { return idList(v.KnownSources) }},
	}
}

// idList formats ids with spaces between them.
func idList(ids []int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatInt(id, 10)
	}
	return strings.Join(texts, " ")
}

// listDuplicates yields the possible duplicates of a sync, or of all syncs if syncID is 0.
func listDuplicates(ctx context.Context, store *state.Store, syncID int64) iter.Seq2[duplicateView, error] {
	return func(yield func(duplicateView, error) bool) {
		var list []state.PossibleDuplicate
		for d, err := range store.Inventory.PossibleDuplicates(ctx, syncID) {
			if err != nil {
				yield(duplicateView{}, err)
				return
			}
			list = append(list, d)
		}
		known, err := findCopies(ctx, store, list)
		if err != nil {
			yield(duplicateView{}, err)
			return
		}
		for _, d := range list {
			if !yield(viewDuplicate(d, known.of(d)), nil) {
				return
			}
		}
	}
}

// copies are the sources in the inventory with the contents of possible duplicates.
type copies struct {
	destinations map[string]int64 // current destination by name of a sync
	sources      map[state.SHA256][]state.Source
}

func findCopies(ctx context.Context, store *state.Store, duplicates []state.PossibleDuplicate) (copies, error) {
	c := copies{map[string]int64{}, map[state.SHA256][]state.Source{}}
	if len(duplicates) == 0 {
		return c, nil
	}
	syncs, err := store.Syncs.All(ctx)
	if err != nil {
		return c, err
	}
	for _, s := range syncs {
		c.destinations[s.Name] = s.Destination.ID
	}
	for _, d := range duplicates {
		c.sources[d.SHA256] = nil
	}
	// Another sync to the same destination may have uploaded the same content.
	for s, err := range store.Inventory.Sources(ctx, state.SourceFilter{}) {
		if err != nil {
			return c, err
		}
		if list, ok := c.sources[s.SHA256]; ok && s.Standing != state.Gone {
			c.sources[s.SHA256] = append(list, s)
		}
	}
	return c, nil
}

// of returns the ids of the known sources with the content of a possible duplicate, at its destination: the destination of
// the batch that carried the content again, or else the current destination of the sync. For a forgotten sync without such
// a batch it returns the sources of all destinations.
func (c copies) of(d state.PossibleDuplicate) (ids []int64) {
	sources := c.sources[d.SHA256]
	destination := c.destinations[d.Sync]
	if i := slices.IndexFunc(sources, func(s state.Source) bool { return d.ResentAs != 0 && s.Batch == d.ResentAs }); i >= 0 {
		destination = sources[i].Destination.ID
	}
	for _, s := range sources {
		if s.Destination.ID == destination || destination == 0 {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
