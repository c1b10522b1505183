package statuspage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

const (
	// readTimeout bounds what is read of the state for one request. It is under the scrape timeout that Prometheus has.
	readTimeout = 8 * time.Second
	// The state is read again only after minAge and costFactor times what reading it took, but after maxAge in any case, and
	// not at all while it is not written to: counting a million documents takes seconds, and must stay a small part of a core
	// however many ask.
	minAge, maxAge, costFactor = 2 * time.Second, time.Minute, 50

	mostTroubled = 25 // documents shown of each sync
	mostBatches  = 20
)

// An overview is what there is to show. It is /status.json, too, whose names are those of kbsync status --json.
type overview struct {
	At      time.Time   `json:"at"`
	Version string      `json:"version,omitempty"`
	Syncs   []syncView  `json:"syncs"`
	Batches []batchView `json:"batches"`
	Loops   []loopView  `json:"loops"`
}

type syncView struct {
	Name        string                      `json:"sync"`
	Root        string                      `json:"root"`
	Destination *destinationView            `json:"destination,omitempty"` // nil before the first pass
	Configured  bool                        `json:"configured"`
	Halted      bool                        `json:"halted"`
	Trouble     string                      `json:"trouble,omitempty"`
	Documents   map[state.DocumentState]int `json:"documents"`
	Superseded  int                         `json:"superseded"`
	Orphaned    int                         `json:"orphaned"`
	// Uploads of the destination are held: by the breaker, until one goes through; or until a time that the API asked for.
	BreakerOpen bool       `json:"breaker_open"`
	PausedUntil *time.Time `json:"paused_until,omitempty"`

	ScannedAt    *time.Time `json:"scanned_at"`      // last complete scan
	AcceptedAt   *time.Time `json:"accepted_at"`     // last accepted upload
	SuccessAt    *time.Time `json:"last_success_at"` // see lastSuccess
	PendingSince *time.Time `json:"pending_since"`   // the longest waiting of what is pending or uploading

	Troubled []troubledView `json:"troubled"` // the latest ones
}

type destinationView struct {
	Origin        string `json:"origin"`
	Account       string `json:"account,omitempty"`
	KnowledgeBase int64  `json:"knowledge_base"`
}

type troubledView struct {
	Key       string              `json:"key"`
	State     state.DocumentState `json:"state"`
	Reason    string              `json:"reason,omitempty"`
	ChangedAt time.Time           `json:"changed_at"`
	Held      bool                `json:"held,omitempty"`
}

type batchView struct {
	ID         int64            `json:"batch"`
	Sync       string           `json:"sync"`
	State      state.BatchState `json:"state"`
	ResendOf   int64            `json:"resend_of,omitempty"`
	Documents  int              `json:"documents"`
	Bytes      int64            `json:"bytes"`
	BegunAt    time.Time        `json:"begun_at"`
	EndedAt    *time.Time       `json:"ended_at,omitempty"`
	StatusCode int              `json:"status_code,omitempty"`
	Message    string           `json:"message,omitempty"`
}

// A reading is what was read of the state at one time. Nobody changes it.
type reading struct {
	at      time.Time
	version int64 // of the state, before it was read
	known   []state.Sync
	syncs   []syncView // of known
	batches []batchView
}

// overview returns what the state says, or said a moment ago, of the syncs that the process works on now.
func (p *Page) overview(ctx context.Context) (*overview, error) {
	r, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	o := &overview{At: r.at, Version: p.opts.Version, Syncs: []syncView{}, Batches: r.batches, Loops: p.loopViews(time.Now())}
	working := p.syncs(r.known)
	for _, v := range r.syncs {
		if i := slices.IndexFunc(working, func(s Sync) bool { return s.Name == v.Name }); i >= 0 {
			v.Configured, v.Halted = true, working[i].Halted
		}
		if v.PausedUntil != nil && v.PausedUntil.Before(time.Now()) {
			v.PausedUntil = nil
		}
		o.Syncs = append(o.Syncs, v)
	}
	for _, s := range working {
		if !slices.ContainsFunc(r.known, func(k state.Sync) bool { return k.Name == s.Name }) {
			o.Syncs = append(o.Syncs, syncView{Name: s.Name, Configured: true, Halted: s.Halted, Documents: map[state.DocumentState]int{}, Troubled: []troubledView{}})
		}
	}
	return o, nil
}

// read reads the state, unless it was read a moment ago or was not written to since.
func (p *Page) read(ctx context.Context) (*reading, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	begun := time.Now()
	if (p.last != nil || p.failure != nil) && begun.Before(p.expires) {
		return p.last, p.failure
	}
	// Others wait for the same answer, so it does not end with the request that happened to be first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	r, err := p.readState(ctx, p.last)
	if err != nil {
		p.Metrics.stateErrors.Inc()
		p.log.Warn("the state cannot be read", "error", err)
		r = nil
	}
	p.last, p.failure = r, err
	p.expires = time.Now().Add(min(max(costFactor*time.Since(begun), minAge), maxAge))
	return r, err
}

// forgetReading makes the state be looked at again.
func (p *Page) forgetReading() {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.expires = time.Time{}
}

func (p *Page) readState(ctx context.Context, last *reading) (*reading, error) {
	r := &reading{at: time.Now(), batches: []batchView{}}
	var err error
	if r.version, err = p.opts.State.Version(ctx); err != nil {
		return nil, err
	}
	if last != nil && last.version == r.version {
		same := *last
		same.at = r.at
		return &same, nil
	}
	if r.known, err = p.opts.State.Syncs.All(ctx); err != nil {
		return nil, err
	}
	for _, s := range r.known {
		v, err := p.readSync(ctx, s)
		if err != nil {
			return nil, err
		}
		r.syncs = append(r.syncs, v)
	}
	batches, err := p.opts.State.Journal.Recent(ctx, mostBatches)
	if err != nil {
		return nil, err
	}
	for _, b := range batches {
		r.batches = append(r.batches, batchView{b.ID, b.Sync, b.State, b.ResendOf, b.Documents, b.Bytes, b.BegunAt, orNil(b.EndedAt), b.StatusCode, b.Message})
	}
	return r, nil
}

func (p *Page) readSync(ctx context.Context, s state.Sync) (syncView, error) {
	v := syncView{
		Name: s.Name, Root: s.Root, Trouble: s.LastError, ScannedAt: orNil(s.ScannedAt), Troubled: []troubledView{},
		Destination: &destinationView{s.Destination.Origin, s.Destination.Account, s.Destination.KnowledgeBase},
	}
	store := p.opts.State
	var err error
	if v.Documents, err = store.Documents.Counts(ctx, s.ID); err != nil {
		return v, err
	}
	if v.Superseded, v.Orphaned, err = store.Inventory.CountLeftBehind(ctx, s.ID); err != nil {
		return v, err
	}
	streak, paused, err := store.Journal.Breaker(ctx, s.Destination.ID)
	if err != nil {
		return v, err
	}
	v.BreakerOpen, v.PausedUntil = streak > 0, orNil(paused)
	progress, err := store.Documents.Progress(ctx, s.ID)
	if err != nil {
		return v, err
	}
	v.AcceptedAt, v.PendingSince = orNil(progress.AcceptedAt), orNil(progress.PendingSince)
	v.SuccessAt = orNil(lastSuccess(s.ScannedAt, progress.UnfinishedSince))
	troubled, err := store.Documents.NeedingAttention(ctx, s.ID, mostTroubled)
	if err != nil {
		return v, err
	}
	for _, d := range troubled {
		v.Troubled = append(v.Troubled, troubledView{d.Key, d.State, d.Reason, d.ChangedAt, d.Held})
	}
	return v, nil
}

// lastSuccess is the last time at which the knowledge base held, trained, all that was known of the root: that of the last
// complete scan or, while something is unfinished, when the first of it changed.
func lastSuccess(scanned, unfinished time.Time) time.Time {
	if !unfinished.IsZero() && unfinished.Before(scanned) {
		return unfinished
	}
	return scanned
}

func (p *Page) serveJSON(w http.ResponseWriter, r *http.Request) {
	o, err := p.overview(r.Context())
	if err != nil {
		answer(w, http.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(o) // who asked is gone, then
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// A mood is how a sync, or all of them, is. Its text is a CSS class, too.
type mood string

const (
	good    mood = "good"    // all is completed
	working mood = "working" // something is on its way, and nothing needs a person
	trouble mood = "trouble" // something needs a person, or may
	halted  mood = "halted"  // nothing goes on without one
	idle    mood = "idle"    // nobody works on it
)

// mood returns how the sync is, and says it.
func (v *syncView) mood() (mood, string) {
	n := v.Documents
	moving := n[state.Pending] + n[state.Uploading] + n[state.Training]
	switch {
	case !v.Configured:
		return idle, "not in the config"
	case v.Halted:
		return halted, "halted"
	case v.Trouble != "":
		return trouble, "stopped"
	case n[state.Failed]+n[state.Stuck]+n[state.Uncertain] > 0:
		return trouble, "needs attention"
	case v.BreakerOpen || v.PausedUntil != nil:
		return trouble, "uploads held"
	case v.ScannedAt == nil:
		return working, "first scan"
	case moving > 0:
		return working, "syncing"
	}
	return good, "in sync"
}

// mood returns how all is.
func (o *overview) mood() (mood, string) {
	worst, bad, busy := good, 0, 0
	for i := range o.Syncs {
		switch m, _ := o.Syncs[i].mood(); m {
		case halted:
			worst = halted
			bad++
		case trouble:
			bad++
		case working:
			busy++
		}
	}
	switch {
	case len(o.Syncs) == 0:
		return idle, "no syncs yet"
	case bad > 0 && worst != halted:
		return trouble, fmt.Sprintf("%s attention", plural(bad, "sync needs", "syncs need"))
	case bad > 0:
		return halted, fmt.Sprintf("%s attention", plural(bad, "sync needs", "syncs need"))
	case busy > 0:
		return working, "syncing"
	}
	return good, "all in sync"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(int64(n)) + " " + many
}

// grouped writes 12345 as 12,345.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range text {
		if i > 0 && (len(text)-i)%3 == 0 && text[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}
