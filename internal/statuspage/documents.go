package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kbsync/kbsync/state"
)

// Rows of a page of a list.
const (
	shownRows = 100
	maxRows   = 1000
)

// errNoSync means that a request names no sync that the state has.
var errNoSync = fmt.Errorf("%w: the state has no such sync", state.ErrNotFound)

// A documentRow is a document in a list.
type documentRow struct {
	Sync      string              `json:"sync"`
	Key       string              `json:"key"`
	State     state.DocumentState `json:"state"`
	Reason    string              `json:"reason,omitempty"`
	Size      int64               `json:"size"`
	SHA256    string              `json:"sha256,omitempty"`
	ChangedAt *time.Time          `json:"changed_at"`

	Href string `json:"-"`
}

// searchStates are the states by which a person can search.
var searchStates = []state.DocumentState{
	state.Completed, state.Training, state.Uploading, state.Pending, state.Failed, state.Stuck, state.Uncertain, state.Skipped, state.Removed,
}

// chosenSync returns the sync that a request names, or the first one if it names none, and the names of all. A state without
// a sync gives a sync without a name.
func (p *Page) chosenSync(ctx context.Context, name string) (chosen state.Sync, names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	all, err := p.opts.State.Syncs.All(ctx)
	if err != nil {
		return chosen, nil, err
	}
	for _, s := range all {
		names = append(names, s.Name)
		if s.Name == name || name == "" && chosen.ID == 0 {
			chosen = s
		}
	}
	if chosen.ID == 0 && name != "" {
		return chosen, names, errNoSync
	}
	return chosen, names, nil
}

// parameters returns the parameters of a GET, and refuses unknown ones: a list with a filter that was ignored misleads.
func parameters(r *http.Request, allowed ...string) (url.Values, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot parse the parameters: %w", ErrInvalid, err)
	}
	for name := range v {
		if !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("%w: %s", ErrInvalid, unknownParameter(name, allowed))
		}
	}
	return v, nil
}

// rowLimit returns the number of rows that a request asks for.
func rowLimit(v url.Values) (int, error) {
	if !v.Has("limit") {
		return shownRows, nil
	}
	n, err := strconv.Atoi(v.Get("limit"))
	if err != nil || n < 1 || n > maxRows {
		return 0, fmt.Errorf("%w: limit must be a number from 1 to %d", ErrInvalid, maxRows)
	}
	return n, nil
}

// A documentList is a page of the documents of a sync.
type documentList struct {
	Sync      string        `json:"sync"`
	Documents []documentRow `json:"documents"`
	// Next is the parameter from of the next page; empty if there is none.
	Next string `json:"next,omitempty"`
}

// findDocuments searches for the documents that a request asks for.
func (p *Page) findDocuments(r *http.Request) (list documentList, v url.Values, names []string, err error) {
	v, err = parameters(r, "sync", "q", "prefix", "state", "from", "limit")
	if err != nil {
		return list, v, nil, err
	}
	s, names, err := p.chosenSync(r.Context(), v.Get("sync"))
	if err != nil {
		return list, v, names, err
	}
	list = documentList{Sync: s.Name, Documents: []documentRow{}}
	q := state.DocumentQuery{SyncID: s.ID, State: state.DocumentState(v.Get("state")), Prefix: v.Get("prefix"), Contains: v.Get("q"), From: v.Get("from")}
	if q.State != "" && !slices.Contains(searchStates, q.State) {
		return list, v, names, fmt.Errorf("%w: there is no state %s", ErrInvalid, strconv.Quote(string(q.State)))
	}
	if q.Limit, err = rowLimit(v); err != nil || s.ID == 0 {
		return list, v, names, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	page, err := p.opts.State.Documents.Search(ctx, q)
	if err != nil {
		return list, v, names, err
	}
	list.Next = page.Next
	for _, d := range page.Documents {
		list.Documents = append(list.Documents, documentRow{
			Sync: s.Name, Key: d.Key, State: d.State, Reason: Reason(d), Size: d.Fingerprint.Size, SHA256: hexOf(d.SHA256),
			ChangedAt: orNil(d.ChangedAt), Href: documentLink(s.Name, d.Key),
		})
	}
	return list, v, names, nil
}

type documentsData struct {
	frame
	Sync, Q, Prefix string
	State           state.DocumentState
	SyncNames       []string
	States          []state.DocumentState
	Rows            []documentRow
	Caption         string
	First, Next     string
}

func (p *Page) serveDocuments(w http.ResponseWriter, r *http.Request) {
	list, v, names, err := p.findDocuments(r)
	if err != nil {
		p.refusePage(w, err)
		return
	}
	at := func(from string) string {
		return link("/documents", "sync", list.Sync, "q", v.Get("q"), "prefix", v.Get("prefix"), "state", v.Get("state"), "from", from)
	}
	data := &documentsData{
		frame: p.frame("Documents", "documents"), Sync: list.Sync, Q: v.Get("q"), Prefix: v.Get("prefix"), State: state.DocumentState(v.Get("state")),
		SyncNames: names, States: searchStates, Rows: list.Documents,
	}
	data.Live = true
	data.Caption = plural(len(list.Documents), "document", "documents") + " of " + visible(list.Sync)
	if list.Next != "" || v.Has("from") {
		data.Caption += " on this page"
	}
	if list.Next != "" {
		data.Next = at(list.Next)
	}
	if v.Get("from") != "" {
		data.First = at("")
	}
	p.render(w, http.StatusOK, "documents", data)
}

func (p *Page) serveDocumentsJSON(w http.ResponseWriter, r *http.Request) {
	list, _, _, err := p.findDocuments(r)
	respondJSON(w, list, err)
}

// findDocument reads the document that a request names by its sync, which the only sync need not be, and its key.
func (p *Page) findDocument(r *http.Request, key string) (DocumentView, error) {
	v, err := parameters(r, "sync", "key")
	if err != nil {
		return DocumentView{}, err
	}
	if key == "" {
		key = v.Get("key")
	}
	s, _, err := p.chosenSync(r.Context(), v.Get("sync"))
	if err != nil {
		return DocumentView{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	d, err := p.opts.State.Documents.Get(ctx, s.ID, key)
	if errors.Is(err, state.ErrNotFound) {
		return DocumentView{}, fmt.Errorf("sync %s has no document %s: %w", visible(s.Name), visible(key), state.ErrNotFound)
	}
	if err != nil {
		return DocumentView{}, err
	}
	return ReadDocument(ctx, p.opts.State, s, d)
}

type documentData struct {
	frame
	DocumentView
	List   string // the address of the list of the sync's documents
	Action string // the address of the confirmation; empty for none
}

func (p *Page) serveDocument(w http.ResponseWriter, r *http.Request) {
	d, err := p.findDocument(r, r.PathValue("key"))
	if err != nil {
		p.refusePage(w, err)
		return
	}
	data := &documentData{frame: p.frame(d.Key, "documents"), DocumentView: d, List: link("/documents", "sync", d.Sync)}
	data.Live = true
	switch state.DocumentState(d.State) {
	case state.Uploading, state.Skipped, state.Removed: // a reindex never selects these
	default:
		if data.Buttons {
			data.Action = link("/confirm", "action", "reindex", "sync", d.Sync, "key", d.Key)
		}
	}
	p.render(w, http.StatusOK, "document", data)
}

func (p *Page) serveDocumentJSON(w http.ResponseWriter, r *http.Request) {
	d, err := p.findDocument(r, "")
	respondJSON(w, d, err)
}

// statusOf returns the HTTP status for an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, state.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	}
	return http.StatusServiceUnavailable
}

// refusePage responds with a page for an error.
func (p *Page) refusePage(w http.ResponseWriter, err error) {
	switch status := statusOf(err); status {
	case http.StatusServiceUnavailable:
		p.log.Warn("cannot read the state", "error", err)
		p.unreadable(w, err)
	case http.StatusNotFound:
		p.message(w, status, "Not found", err.Error())
	default:
		p.message(w, status, "The request has a mistake", err.Error())
	}
}

// respondJSON writes a value, or an error.
func respondJSON(w http.ResponseWriter, value any, err error) {
	if err != nil {
		respond(w, statusOf(err), err.Error(), nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(value) // an error means that the client is gone
}
