// Package statuspage serves the status of a running kbsync: a page for people, the same content as JSON, Prometheus metrics,
// and the liveness and readiness of the process. It also serves triggers, which start a scan, a reindex or a reload over HTTP.
//
// The package reads the status of documents from the state. The caller reports everything else, such as the duration of
// requests, through [Metrics] and [Loop]. A command that runs one pass needs no page, but can use [Page.WriteMetrics].
//
// # Access
//
// The triggers start work that may be permanent, so each requires the token: every user of the machine can connect to the loopback,
// and so can the visitors of a proxy on it. The page and its JSON show documents and require the token too; Options.ReadLocally opens
// them to this machine. Metrics and health show no more than names of syncs and need no token. The page escapes every value, loads
// nothing from other sites, and refuses requests that another site makes a browser send.
package statuspage

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kbsync/kbsync/state"
)

// Options of New. The zero value of each field but State works.
type Options struct {
	// State is the source of the status. The package never writes to it.
	State *state.Store
	// Log is for errors that a response does not show. Nil means no log.
	Log *slog.Logger
	// Version is the version of kbsync, for the page and kbsync_build_info.
	Version string

	// Token authorizes requests for the page and the triggers. If it is empty, no trigger can be called.
	Token string
	// ReadLocally lets requests from this machine see the page without the token. It does not concern the triggers.
	ReadLocally bool

	// Syncs returns the syncs that the process runs now. It must be quick. Nil means the syncs in the state.
	Syncs func() []Sync

	// ReadOnly says on the page that no process works behind it.
	ReadOnly bool

	// Sync, Reindex, Ack and Reload are the functions of the triggers. A trigger without a function responds with 501. Sync and
	// Reindex start the work and return without waiting for its end. For an unknown sync they return an error that wraps
	// state.ErrNotFound, and for a parameter that cannot be used one that wraps ErrInvalid.
	Sync    func(ctx context.Context, sync string) error // a sync's name, or "" for all
	Reindex func(ctx context.Context, request Reindex) (documents int, err error)
	// Estimate returns how many documents Reindex would mark, and their bytes.
	Estimate func(ctx context.Context, request Reindex) (documents int, bytes int64, err error)
	// Ack records that a person removed sources, and returns how many documents become pending for it.
	Ack    func(ctx context.Context, request Ack) (pending int, err error)
	Reload func(ctx context.Context) error
}

// A Sync is a sync that the process runs.
type Sync struct {
	Name string
	// Halted reports that the sync waits for a person: the API refused the token or the knowledge base, or a guard halted the
	// sync. An API that does not answer does not halt a sync. The state has the reason, as the last error of the sync.
	Halted bool
	// MaxLag is the maximum age of the last complete scan in a ready process; zero means any age. A few rescan intervals are a
	// good choice.
	MaxLag time.Duration
}

// ErrInvalid means that a trigger cannot use a parameter. The page responds with 400.
var ErrInvalid = errors.New("invalid parameter")

// A Reindex is a request to upload documents again regardless of their content. At least one field other than Sync is set.
type Reindex struct {
	Sync      string   // its name, or "" for all
	Globs     []string // of keys
	Key       string   // of one document
	Failed    bool
	Stuck     bool
	OlderThan time.Duration // minimum age of the last upload; zero means any age
	All       bool          // excludes the other fields
	// Retry selects what kbsync retry does: failed, stuck and uncertain documents, and blocked ones to be looked at again. It excludes
	// the other fields.
	Retry bool
	// Confirmed accepts that every document of a sync leaves its old source behind. All is never without it.
	Confirmed bool
}

// An Ack names sources that a person removed from a knowledge base.
type Ack struct {
	Sync        string // its name; empty for any
	Destination int64  // its id in the state; 0 for the one that has the sources
	IDs         []int64
}

// A Page serves the status of one process. Its methods are safe for concurrent use.
type Page struct {
	// Metrics counts the work that the state does not record.
	Metrics *Metrics

	opts    Options
	log     *slog.Logger
	handler http.Handler
	own     prometheus.Gatherer // kbsync_ metrics
	process prometheus.Gatherer // metrics of the process and the Go runtime

	reading sync.Mutex // held while the state is read
	last    *reading
	failure error
	expires time.Time

	streams atomic.Int32 // open streams of events

	ticking sync.Mutex
	loops   map[*Loop]struct{}
}

var _ http.Handler = (*Page)(nil)

// New returns a Page of the state.
func New(opts Options) (*Page, error) {
	p := &Page{opts: opts, log: cmp.Or(opts.Log, slog.New(slog.DiscardHandler)), loops: map[*Loop]struct{}{}}
	if err := p.register(); err != nil {
		return nil, err
	}
	p.handler = p.routes()
	return p, nil
}

// ServeHTTP answers a request.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

func (p *Page) routes() http.Handler {
	mux := http.NewServeMux()
	// Each pattern has a method, so the mux responds to other methods with 405 and Allow.
	mux.Handle("GET /{$}", p.mayRead(p.servePage))
	mux.Handle("GET /status.json", p.mayRead(p.serveJSON))
	mux.Handle("GET /documents", p.mayRead(p.serveDocuments))
	mux.Handle("GET /documents.json", p.mayRead(p.serveDocumentsJSON))
	mux.Handle("GET /documents/{key...}", p.mayRead(p.serveDocument))
	mux.Handle("GET /document.json", p.mayRead(p.serveDocumentJSON))
	mux.Handle("GET /sources", p.mayRead(p.serveSources))
	mux.Handle("GET /sources.json", p.mayRead(p.serveSourcesJSON))
	mux.Handle("GET /history", p.mayRead(p.serveHistory))
	mux.Handle("GET /history.json", p.mayRead(p.serveHistoryJSON))
	mux.Handle("GET /confirm", p.mayRead(p.serveConfirm))
	mux.Handle("GET /events", p.mayRead(p.serveEvents))
	mux.HandleFunc("GET /assets/{version}/{name}", serveAsset)
	mux.HandleFunc("GET /healthz", p.serveHealth)
	mux.HandleFunc("GET /readyz", p.serveReady)
	mux.Handle("GET /metrics", p.metricsHandler())
	mux.Handle("POST /-/sync", p.mayAct(p.triggerSync))
	mux.Handle("POST /-/retry", p.mayAct(p.triggerRetry))
	mux.Handle("POST /-/reindex", p.mayAct(p.triggerReindex))
	mux.Handle("POST /-/ack", p.mayAct(p.triggerAck))
	mux.Handle("POST /-/reload", p.mayAct(p.triggerReload))
	return p.protect(mux)
}

// syncs returns the syncs that the process runs; known are the syncs in the state.
func (p *Page) syncs(known []state.Sync) []Sync {
	if p.opts.Syncs != nil {
		return p.opts.Syncs()
	}
	var all []Sync
	for _, s := range known {
		all = append(all, Sync{Name: s.Name})
	}
	return all
}
