package statuspage

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kbsync/kbsync/state"
)

const (
	// readTimeout limits reading the state for one request. It is shorter than the scrape timeout of Prometheus.
	readTimeout = 8 * time.Second
	// A reading is reused for at least minAge and at most maxAge, and within these for costFactor times the time it took.
	// Counting a million documents takes seconds, and must use little of a core regardless of the number of requests. A state
	// without a write since the last reading is not read again.
	minAge, maxAge, costFactor = 2 * time.Second, time.Minute, 50

	maxAttention = 25 // documents shown of each sync
	maxBatches   = 20
	maxCounted   = 1000 // possible duplicates
)

// An overview is the content of the page and of /status.json. The JSON names are those of kbsync status --json.
type overview struct {
	At      time.Time   `json:"at"`
	Version string      `json:"version,omitempty"`
	Syncs   []syncView  `json:"syncs"`
	Needs   []need      `json:"needs"`
	Batches []batchView `json:"batches"`
	Loops   []loopView  `json:"loops"`
}

type syncView struct {
	Name        string                      `json:"sync"`
	Root        string                      `json:"root"`
	Destination *destinationView            `json:"destination,omitempty"` // nil before the first pass
	Configured  bool                        `json:"configured"`
	Halted      bool                        `json:"halted"`
	LastError   string                      `json:"trouble,omitempty"`
	Documents   map[state.DocumentState]int `json:"documents"`
	Superseded  int                         `json:"superseded"`
	Orphaned    int                         `json:"orphaned"`
	// The uploads of the destination wait: for the breaker, until one upload succeeds, or until a time that the API set.
	BreakerOpen bool       `json:"breaker_open"`
	PausedUntil *time.Time `json:"paused_until,omitempty"`

	ScannedAt    *time.Time `json:"scanned_at"`      // last complete scan
	AcceptedAt   *time.Time `json:"accepted_at"`     // last accepted upload
	SuccessAt    *time.Time `json:"last_success_at"` // see lastSuccess
	PendingSince *time.Time `json:"pending_since"`   // change of the oldest document that is pending or uploading
	InStepSince  *time.Time `json:"in_step_since"`   // nil if the sync is behind, or if it is not known
	LagSeconds   float64    `json:"lag_seconds"`     // age of the earliest change of a document that is not completed

	Blocked            int `json:"blocked"`             // of the skipped documents
	PossibleDuplicates int `json:"possible_duplicates"` // at most maxCounted

	id              int64
	unfinishedSince time.Time

	Attention []attentionView `json:"troubled"` // the latest ones
}

type destinationView struct {
	Origin        string `json:"origin"`
	Account       string `json:"account,omitempty"`
	KnowledgeBase int64  `json:"knowledge_base"`
}

type attentionView struct {
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

// A reading is the content of the state at one time. It is immutable.
type reading struct {
	at      time.Time
	version int64 // of the state, before the reading
	known   []state.Sync
	syncs   []syncView // of known
	batches []batchView
}

// overview returns the current or a recent content of the state, with the syncs of the process marked as configured.
func (p *Page) overview(ctx context.Context) (*overview, error) {
	r, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	o := &overview{At: r.at, Version: p.opts.Version, Syncs: []syncView{}, Batches: r.batches, Loops: p.loopViews(time.Now())}
	configured := p.syncs(r.known)
	for _, v := range r.syncs {
		if i := slices.IndexFunc(configured, func(s Sync) bool { return s.Name == v.Name }); i >= 0 {
			v.Configured, v.Halted = true, configured[i].Halted
		}
		if v.PausedUntil != nil && v.PausedUntil.Before(time.Now()) {
			v.PausedUntil = nil
		}
		if !v.unfinishedSince.IsZero() {
			v.LagSeconds = max(time.Since(v.unfinishedSince), 0).Truncate(time.Second).Seconds()
		}
		o.Syncs = append(o.Syncs, v)
	}
	for _, s := range configured {
		if !slices.ContainsFunc(r.known, func(k state.Sync) bool { return k.Name == s.Name }) {
			o.Syncs = append(o.Syncs, syncView{Name: s.Name, Configured: true, Halted: s.Halted, Documents: map[state.DocumentState]int{}, Attention: []attentionView{}})
		}
	}
	o.Needs = []need{}
	for i := range o.Syncs {
		o.Needs = append(o.Needs, o.Syncs[i].needs()...)
	}
	return o, nil
}

// read returns the content of the state. It reuses the last reading if that is recent or nothing was written since.
func (p *Page) read(ctx context.Context) (*reading, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	begun := time.Now()
	if (p.last != nil || p.failure != nil) && begun.Before(p.expires) {
		return p.last, p.failure
	}
	// Other requests wait for the same reading, so it must not end when the request that started it is cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	r, err := p.readState(ctx, p.last)
	if err != nil {
		p.Metrics.stateErrors.Inc()
		p.log.Warn("cannot read the state", "error", err)
		r = nil
	}
	p.last, p.failure = r, err
	p.expires = time.Now().Add(min(max(costFactor*time.Since(begun), minAge), maxAge))
	return r, err
}

// expireReading makes the next read look at the state.
func (p *Page) expireReading() {
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
	batches, err := p.opts.State.Journal.Recent(ctx, maxBatches)
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
		id: s.ID, Name: s.Name, Root: s.Root, LastError: s.LastError, ScannedAt: orNil(s.ScannedAt), Attention: []attentionView{},
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
	v.unfinishedSince = progress.UnfinishedSince
	v.SuccessAt = orNil(lastSuccess(s.ScannedAt, progress.UnfinishedSince))
	if v.inStep() {
		since, err := store.Syncs.InStepSince(ctx, s.ID)
		if err != nil {
			return v, err
		}
		// An upload between two samples was out of step, too.
		if !since.IsZero() && progress.AcceptedAt.After(since) {
			since = progress.AcceptedAt
		}
		v.InStepSince = orNil(since)
	}
	documents, err := store.Documents.NeedingAttention(ctx, s.ID, maxAttention)
	if err != nil {
		return v, err
	}
	for _, d := range documents {
		v.Attention = append(v.Attention, attentionView{d.Key, d.State, Reason(d), d.ChangedAt, d.Held})
	}
	if v.Blocked, err = store.Documents.CountBlocked(ctx, s.ID); err != nil {
		return v, err
	}
	for _, err := range store.Inventory.PossibleDuplicates(ctx, s.ID) {
		if err != nil {
			return v, err
		}
		if v.PossibleDuplicates++; v.PossibleDuplicates == maxCounted {
			break
		}
	}
	return v, nil
}

// lastSuccess returns the last time at which every known document of the root was in the knowledge base and trained. That is
// the time of the last complete scan or, if documents are unfinished, the time of their earliest change.
func lastSuccess(scanned, unfinished time.Time) time.Time {
	if !unfinished.IsZero() && unfinished.Before(scanned) {
		return unfinished
	}
	return scanned
}

func (p *Page) serveJSON(w http.ResponseWriter, r *http.Request) {
	o, err := p.overview(r.Context())
	respondJSON(w, o, err)
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// health summarizes a sync, or all syncs. Its text is a CSS class of the page too.
type health string

const (
	good    health = "good"    // every document is completed
	working health = "working" // documents are in progress, and nothing needs a person
	warning health = "warning" // a person needs to act, or may need to
	halted  health = "halted"  // the sync waits until a person acts
	idle    health = "idle"    // the process does not run the sync
)

// health returns the health of the sync and its text.
func (v *syncView) health() (health, string) {
	n := v.Documents
	moving := n[state.Pending] + n[state.Uploading] + n[state.Training]
	switch {
	case !v.Configured:
		return idle, "not in the config"
	case v.Halted:
		return halted, "halted"
	case v.LastError != "":
		return warning, "stopped"
	case n[state.Failed]+n[state.Stuck]+n[state.Uncertain] > 0:
		return warning, "needs attention"
	case v.BreakerOpen || v.PausedUntil != nil:
		return warning, "uploads held"
	case v.ScannedAt == nil:
		return working, "first scan"
	case moving > 0:
		return working, "syncing"
	}
	return good, "in sync"
}

// health returns the health of all syncs and its text.
func (o *overview) health() (health, string) {
	worst, bad, busy := good, 0, 0
	for i := range o.Syncs {
		switch h, _ := o.Syncs[i].health(); h {
		case halted:
			worst = halted
			bad++
		case warning:
			bad++
		case working:
			busy++
		}
	}
	switch {
	case len(o.Syncs) == 0:
		return idle, "no syncs yet"
	case bad > 0 && worst != halted:
		return warning, fmt.Sprintf("%s attention", plural(bad, "sync needs", "syncs need"))
	case bad > 0:
		return halted, fmt.Sprintf("%s attention", plural(bad, "sync needs", "syncs need"))
	case busy > 0:
		return working, "syncing"
	}
	return good, "all in sync"
}
