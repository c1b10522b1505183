package statuspage

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// unknownPrefix is the beginning of the name of a source whose id is unknown.
const unknownPrefix = "unknown-"

// SourceID formats the id of a source. A source without a known id has a number of its own.
func SourceID(id int64) string {
	if id < 0 {
		return unknownPrefix + strconv.FormatInt(-id, 10)
	}
	return strconv.FormatInt(id, 10)
}

// ParseSourceID is the inverse of SourceID.
func ParseSourceID(text string) (int64, error) {
	digits, unknown := strings.CutPrefix(text, unknownPrefix)
	id, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || id == 0 || unknown && id < 0 {
		return 0, fmt.Errorf("%w: %s is not the id of a source", ErrInvalid, strconv.Quote(text))
	}
	if unknown {
		id = -id
	}
	return id, nil
}

// A sourceRow is a source to remove.
type sourceRow struct {
	SourceView
	Destination int64 `json:"destination"` // the parameter destination of the trigger ack
}

// A duplicateRow is a document that may be in the knowledge base twice.
type duplicateRow struct {
	Key      string    `json:"key"`
	Class    string    `json:"class"`
	Batch    int64     `json:"batch"`
	ResentAs int64     `json:"resent_as,omitempty"`
	SHA256   string    `json:"sha256"`
	At       time.Time `json:"at"`
	// KnownSources are the ids of the sources with the same content that the inventory has.
	KnownSources []int64 `json:"known_sources"`
}

// A sourceList is a page of the sources to remove.
type sourceList struct {
	Sync    string      `json:"sync"`
	Sources []sourceRow `json:"sources"`
	// Next is the parameter from of the next page; empty if there is none.
	Next           string         `json:"next,omitempty"`
	Duplicates     []duplicateRow `json:"possible_duplicates"`
	MoreDuplicates bool           `json:"more_possible_duplicates,omitempty"`
}

// findSources reads the sources that a request asks for.
func (p *Page) findSources(r *http.Request) (list sourceList, v url.Values, names []string, err error) {
	v, err = parameters(r, "sync", "standing", "from", "limit")
	if err != nil {
		return list, v, nil, err
	}
	s, names, err := p.chosenSync(r.Context(), v.Get("sync"))
	if err != nil {
		return list, v, names, err
	}
	list = sourceList{Sync: s.Name, Sources: []sourceRow{}, Duplicates: []duplicateRow{}}
	filter, err := sourceFilter(s.ID, v)
	if err != nil {
		return list, v, names, err
	}
	limit, err := rowLimit(v)
	if err != nil || s.ID == 0 {
		return list, v, names, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	rows, next, err := firstRows(p.opts.State.Inventory.Worksheet(ctx, filter), limit)
	if err != nil {
		return list, v, names, err
	}
	if next != nil {
		list.Next = fmt.Sprintf("%d/%d", next.Destination.ID, next.ID)
	}
	for _, row := range rows {
		list.Sources = append(list.Sources, sourceRow{ViewSource(row), row.Destination.ID})
	}
	duplicates, more, err := firstRows(p.opts.State.Inventory.PossibleDuplicates(ctx, s.ID), shownRows)
	for _, d := range duplicates {
		list.Duplicates = append(list.Duplicates, duplicateRow{d.Key, d.Class, d.Batch, d.ResentAs, hexOf(d.SHA256), d.At, append([]int64{}, d.KnownSources...)})
	}
	list.MoreDuplicates = more != nil
	return list, v, names, err
}

// sourceFilter returns the filter of the parameters of a request.
func sourceFilter(syncID int64, v url.Values) (state.SourceFilter, error) {
	filter := state.SourceFilter{SyncID: syncID, Answering: true}
	switch standing := state.Standing(v.Get("standing")); standing {
	case "":
		filter.Standings = []state.Standing{state.Superseded, state.Orphaned}
	case state.Superseded, state.Orphaned:
		filter.Standings = []state.Standing{standing}
	default:
		return filter, fmt.Errorf("%w: standing must be superseded or orphaned", ErrInvalid)
	}
	if from := v.Get("from"); from != "" {
		if _, err := fmt.Sscanf(from, "%d/%d", &filter.FromDestination, &filter.FromID); err != nil {
			return filter, fmt.Errorf("%w: from must be the field next of the page before", ErrInvalid)
		}
	}
	return filter, nil
}

// firstRows returns the first rows of a stream, and the one after them; nil if there is none.
func firstRows[T any](rows iter.Seq2[T, error], limit int) (first []T, next *T, err error) {
	for row, err := range rows {
		if err != nil {
			return nil, nil, err
		}
		if len(first) == limit {
			return first, &row, nil
		}
		first = append(first, row)
	}
	return first, nil, nil
}

type sourcesData struct {
	frame
	sourceList
	SyncNames []string
	Standing  string
	Standings []state.Standing
	Groups    []sourceGroup
	First     string
	Next      string
}

// A sourceGroup are the sources of one destination, whose ids belong together.
type sourceGroup struct {
	Sync, Origin, Account string
	KnowledgeBase         int64
	Action                string
	Rows                  []sourceRow
}

// Document returns the address of a document of the sync.
func (g *sourceGroup) Document(key string) string { return documentLink(g.Sync, key) }

func (p *Page) serveSources(w http.ResponseWriter, r *http.Request) {
	list, v, names, err := p.findSources(r)
	if err != nil {
		p.refusePage(w, err)
		return
	}
	data := &sourcesData{
		frame: p.frame("Sources to remove", "sources"), sourceList: list, SyncNames: names,
		Standing: v.Get("standing"), Standings: []state.Standing{state.Superseded, state.Orphaned},
	}
	data.Live = true
	data.Buttons = data.Buttons && p.opts.Ack != nil
	at := func(from string) string {
		return link("/sources", "sync", list.Sync, "standing", v.Get("standing"), "from", from)
	}
	if list.Next != "" {
		data.Next = at(list.Next)
	}
	if v.Get("from") != "" {
		data.First = at("")
	}
	for rows := range chunksBy(list.Sources, func(s sourceRow) int64 { return s.Destination }) {
		s := rows[0]
		data.Groups = append(data.Groups, sourceGroup{
			Sync: list.Sync, Origin: s.Origin, Account: s.Account, KnowledgeBase: s.KnowledgeBase, Rows: rows,
			Action: link("/-/ack", "sync", list.Sync, "destination", strconv.FormatInt(s.Destination, 10)),
		})
	}
	p.render(w, http.StatusOK, "sources", data)
}

// chunksBy returns the runs of items with the same key.
func chunksBy[T any, K comparable](items []T, key func(T) K) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(items) > 0 {
			n := slices.IndexFunc(items, func(item T) bool { return key(item) != key(items[0]) })
			if n < 0 {
				n = len(items)
			}
			if !yield(items[:n]) {
				return
			}
			items = items[n:]
		}
	}
}

func (p *Page) serveSourcesJSON(w http.ResponseWriter, r *http.Request) {
	list, _, _, err := p.findSources(r)
	respondJSON(w, list, err)
}
