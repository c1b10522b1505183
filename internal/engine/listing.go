package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A ListedSource is a source in the knowledge base, as far as a person knows it.
type ListedSource struct {
	ID   int64 // negative if it is unknown
	Key  string
	Name string
	// SHA256 is the content; zero if it is unknown. A source of a known content is no other document's.
	SHA256 state.SHA256
}

// A Listing has the sources in a knowledge base by the ways in which a document may be found in it. It is in memory.
type Listing struct {
	rows      []listedRow
	byKey     map[string][]int
	byName    map[string][]int
	byContent map[state.SHA256][]int
}

type listedRow struct {
	ListedSource
	answer state.SourceAnswer
	there  bool // the API knows it in the knowledge base
	used   bool // it is in the inventory
}

// NewListing returns a listing of sources. Ids that come twice are one.
func NewListing(sources []ListedSource) *Listing {
	slices.SortStableFunc(sources, func(a, b ListedSource) int { return cmp.Compare(a.ID, b.ID) })
	l := &Listing{byKey: map[string][]int{}, byName: map[string][]int{}, byContent: map[state.SHA256][]int{}}
	for _, src := range sources {
		if n := len(l.rows); n > 0 && src.ID > 0 && l.rows[n-1].ID == src.ID {
			continue
		}
		l.rows = append(l.rows, listedRow{ListedSource: src, there: src.ID < 0})
	}
	return l
}

// HasNamesOnly reports whether a source of the listing can be found by its name only.
func (l *Listing) HasNamesOnly() bool {
	return slices.ContainsFunc(l.rows, func(r listedRow) bool { return r.Key == "" && r.SHA256 == state.SHA256{} })
}

// verify asks the API for the status of each source, and notes the names that it returns. It returns the ids that the API does not
// know in the knowledge base. An answer may lack a source by mistake, so such an id is asked for once more, alone.
func (l *Listing) verify(ctx context.Context, ask replycx.StatusFunc, knowledgeBase int64) (missing []int64, err error) {
	for first := 0; first < len(l.rows); first += replycx.MaxStatusIDs {
		chunk := l.rows[first:min(first+replycx.MaxStatusIDs, len(l.rows))]
		var ids []int64
		for i := range chunk {
			if chunk[i].ID > 0 {
				ids = append(ids, chunk[i].ID)
			}
		}
		found, err := replycx.CollectStatuses(ctx, ids, ask)
		if err != nil {
			return missing, err
		}
		for i := range chunk {
			row := &chunk[i]
			if row.ID < 0 {
				continue
			}
			status, ok := found.Found[row.ID]
			if !ok {
				again, err := replycx.CollectStatuses(ctx, []int64{row.ID}, ask)
				if err != nil {
					return missing, err
				}
				status, ok = again.Found[row.ID]
			}
			if !ok || status.KnowledgeBaseID != 0 && status.KnowledgeBaseID != knowledgeBase {
				missing = append(missing, row.ID)
				continue
			}
			row.verified(status)
		}
	}
	l.index()
	return missing, nil
}

func (r *listedRow) verified(s replycx.SourceStatus) {
	r.there = true
	if s.Name != "" {
		r.Name = s.Name
	}
	r.answer = state.SourceAnswer{ID: r.ID, Type: "file", Name: r.Name, Status: string(s.Status)}
	switch {
	case s.Status.Is(replycx.StatusCompleted):
		r.answer.Outcome = state.TrainingCompleted
	case s.Status.Is(replycx.StatusFailed):
		r.answer.Outcome = state.TrainingFailed
	}
}

func (l *Listing) index() {
	for i, r := range l.rows {
		switch {
		case !r.there:
			continue
		case r.Key != "":
			l.byKey[r.Key] = append(l.byKey[r.Key], i)
		case r.Name != "":
			l.byName[r.Name] = append(l.byName[r.Name], i)
		}
		if r.SHA256 != (state.SHA256{}) {
			l.byContent[r.SHA256] = append(l.byContent[r.SHA256], i)
		}
	}
}

// A match is what a listing has about a document.
type match struct {
	found bool
	// sources have its content; none if only their existence is known.
	sources []state.SourceAnswer
	former  []state.SourceAnswer
	changed bool // the listing has only other contents of it
}

// match finds a document. A source with its content is its own, under whatever key it was uploaded. Of the sources without a
// known content that have its key or name, the newest is its own, and the others are former ones.
func (l *Listing) match(key, name string, content state.SHA256) match {
	named := l.byKey[key]
	if len(named) == 0 {
		named = l.byName[name]
	}
	var m match
	var own []int
	for _, i := range named {
		if l.rows[i].SHA256 == (state.SHA256{}) {
			own = append(own, i)
		}
	}
	if same := l.byContent[content]; len(same) > 0 {
		own = same
	} else if len(own) > 0 {
		own = own[len(own)-1:] // the rows are in the order of the ids
	}
	m.found = len(own) > 0
	m.changed = !m.found && len(named) > 0
	for _, i := range own {
		if l.rows[i].ID > 0 {
			m.sources = append(m.sources, l.rows[i].answer)
		}
	}
	for _, i := range named {
		// A source of another known content may be another document's.
		unknown := l.rows[i].SHA256 == state.SHA256{}
		if m.found && unknown && !slices.Contains(own, i) && l.rows[i].ID > 0 && !l.rows[i].used {
			m.former = append(m.former, l.rows[i].answer)
		}
	}
	return m
}

// use notes that the sources of an adopted document are in the inventory.
func (l *Listing) use(d state.Adoption) {
	for _, src := range slices.Concat(d.Sources, d.Former) {
		i, found := slices.BinarySearchFunc(l.rows, src.ID, func(r listedRow, id int64) int { return cmp.Compare(r.ID, id) })
		if found {
			l.rows[i].used = true
		}
	}
}

// unused returns the sources of the listing that no document has.
func (l *Listing) unused() (sources []state.SourceAnswer) {
	for _, r := range l.rows {
		if r.there && !r.used && r.ID > 0 {
			sources = append(sources, r.answer)
		}
	}
	return sources
}
