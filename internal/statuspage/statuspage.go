// Package statuspage shows a running kbsync to people, scripts and monitoring: a page, the same as JSON, Prometheus metrics,
// and whether the process is alive and ready. It also takes the few wishes that may come over HTTP.
//
// What it says of documents it reads from the state at that moment; only what the state does not keep, such as how long
// requests took, is told to it through [Metrics] and [Loop]. A command that ends by itself needs no page, but may use
// [Page.WriteMetrics].
//
// # Who may see what
//
// The page, its JSON and the wishes name documents and act, so they are for the machine itself, or for whoever has the
// token. Metrics and health name syncs at most, and are open to whoever reaches the address. Nothing is shown that was not
// escaped, nothing is loaded from elsewhere, and no other site can act through a browser that is open on this machine.
package statuspage

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kbsync/kbsync/state"
)

// Options of New. The zero value of each field but State works.
type Options struct {
	// State is read, and never written to.
	State *state.Store
	// Log takes what a request cannot be told; none if nil.
	Log *slog.Logger
	// Version is kbsync's own, for the page and kbsync_build_info.
	Version string

	// Token is what a request needs for the page and the wishes. Without one they are for the loopback alone.
	Token string

	// Syncs returns the syncs that the process works on at that moment; it must be quick. If nil, they are those of the state.
	Syncs func() []Sync

	// What the wishes call; without a function its wish is answered with 501. They start what was asked for and return, and
	// must not wait for it to end. A sync that is not there is an error that Is state.ErrNotFound.
	Sync    func(ctx context.Context, sync string) error // a sync's name, or "" for all
	Reindex func(ctx context.Context, wish Reindex) (documents int, err error)
	Reload  func(ctx context.Context) error
}

// A Sync is a sync that the process works on.
type Sync struct {
	Name string
	// Halted says that nothing more happens until a person acts: the token or the knowledge base is refused, or a guard halted
	// it. An API that does not answer is no reason. What happened is the state's Trouble.
	Halted bool
	// MaxLag is how old the last complete scan may be before the process does not count as ready; zero for any age. Some
	// rescan intervals are a good choice.
	MaxLag time.Duration
}

// A Reindex is the wish to upload documents once more whatever their content. At least one of the fields but Sync is set.
type Reindex struct {
	Sync      string   // its name, or "" for all
	Globs     []string // of keys
	Failed    bool
	Stuck     bool
	OlderThan time.Duration // uploaded longer ago than this; zero for any age
	All       bool          // excludes the other four
}

// A Page serves the state of one process. Its methods may be called from several goroutines.
type Page struct {
	// Metrics is where the running loops count what the state does not keep.
	Metrics *Metrics

	opts    Options
	log     *slog.Logger
	handler http.Handler
	own     prometheus.Gatherer // kbsync_ metrics
	process prometheus.Gatherer // those of the process and the Go runtime

	reading sync.Mutex // held while the state is read
	last    *reading
	failure error
	expires time.Time

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
	// Everything has its methods here: the mux answers others with 405 and Allow.
	mux.Handle("GET /{$}", p.private(p.servePage))
	mux.Handle("GET /status.json", p.private(p.serveJSON))
	mux.HandleFunc("GET /healthz", p.serveHealth)
	mux.HandleFunc("GET /readyz", p.serveReady)
	mux.Handle("GET /metrics", p.metricsHandler())
	mux.Handle("POST /-/sync", p.private(p.wishSync))
	mux.Handle("POST /-/reindex", p.private(p.wishReindex))
	mux.Handle("POST /-/reload", p.private(p.wishReload))
	return p.protect(mux)
}

// syncs returns what the process works on, given what the state has.
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
