package ingest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// API is the part of the ReplyCX client that an Ingest needs. It makes one
// attempt a call. Its errors are those that package replycx describes.
type API interface {
	UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error)
	SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error)
}

var _ API = (*replycx.Client)(nil)

// Root opens the documents of a sync. It is used from several goroutines.
type Root interface {
	// Open opens the version of a document that a listing showed as fp. When what
	// is there is another version, Open or the reader (at its end at the latest)
	// returns an error that is state.ErrChanged; when nothing is there, one that is
	// fs.ErrNotExist. Any other error means that the document cannot be read now.
	Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error)
}

// Options are the options of an Ingest. The zero value works; a zero field means
// its default.
type Options struct {
	Logger *slog.Logger // none if nil

	// Documents and Bytes bound a batch: 20 documents and 32 MiB of contents. A
	// larger document is sent alone.
	Documents int
	Bytes     int64
	// Transfers is the number of parallel requests, 4. Checkers is the number of
	// documents hashed at once, one a processor up to 8.
	Transfers int
	Checkers  int

	// HoldUncertain leaves documents of a lost answer alone; otherwise they are sent
	// once more after ResendAfter, one minute.
	HoldUncertain bool
	ResendAfter   time.Duration
	// HoldRefused fails a batch as a whole that was refused for what it holds;
	// otherwise it is halved until the document at fault stands alone.
	HoldRefused bool
	// Sharing says when a document gets a source of its own although its content is
	// there.
	Sharing state.Sharing
	// Names says how a source is named after its key, Flat by default.
	Names NameStyle
	// SendText sends text formats as text fields instead of files.
	SendText bool

	// BytesPerSecond limits the reading of what is sent; 0 for no limit.
	BytesPerSecond int64
	// MaxTransfer is the most bytes of contents that a run sends, and MaxDuration the
	// time after which it starts no further request. Either ends the run with a
	// *BudgetError, after the answers of what was begun. 0 for no limit.
	MaxTransfer int64
	MaxDuration time.Duration

	// Patience is how long a run waits for the next document to become due, or for
	// the API to be well again, counted from its last progress: ResendAfter and a
	// quarter of a minute, so that what became uncertain is sent again by the same run.
	Patience time.Duration
	// PollAfter is how long after an upload the status of its sources is asked for
	// first: two seconds.
	PollAfter time.Duration
	// RetryAfterCap bounds what a Retry-After may ask for: 15 minutes.
	RetryAfterCap time.Duration

	// Gate, if not nil, keeps documents from being taken up while it is shut. A run that has nothing else to do ends then.
	Gate *Gate
	// Wake, if not nil, tells a run that there may be new documents; otherwise it looks for them when a request has ended.
	Wake <-chan struct{}

	// Stop, when closed, ends the run softly: nothing more is claimed or sealed,
	// requests that are not sealed are given up, and Run returns once the answers of
	// the sealed ones are recorded. To cut those too, end Run's context.
	Stop <-chan struct{}

	Progress Progress
}

// Progress is told how a run goes on. Its functions are called from several
// goroutines, often, and must be quick; nil ones are not called.
type Progress struct {
	// Hashed is told the bytes that were hashed before an upload.
	Hashed func(bytes int64)
	// Sent is told the bytes of contents that went out, those of requests that fail
	// later among them.
	Sent func(bytes int64)
	// Done is told of documents that need nothing more from this run: accepted,
	// shared, failed, gone or unreadable. bytes are the sizes of their contents.
	Done func(documents int, bytes int64)
	// Request is told of each request that has ended.
	Request func(Request)
}

// A Request is one upload request, as far as counting goes.
type Request struct {
	End        End
	StatusCode int           // of the answer; 0 for none
	Took       time.Duration // from its first byte
	Retry      bool          // it carried documents of an earlier request
}

// An End is what became of a batch.
type End uint8

// The ends of a batch.
const (
	Accepted  End = iota
	Refused       // the API took nothing of it
	Abandoned     // it ended before it was whole
	Uncertain     // it was sent whole, and the answer was lost
)

// A Gate keeps runs from taking up documents: while a scan records what it has not weighed yet, or while a guard halts a sync.
// Requests that are on their way go on. Its zero value is open.
type Gate struct {
	mu   sync.RWMutex
	shut bool
}

// Shut shuts the gate. When it has returned, no run takes up a document until Open.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// Open opens the gate.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// claim calls the function unless the gate is shut, and keeps it from being shut meanwhile.
func (g *Gate) claim(from func() ([]state.ClaimedDocument, error)) ([]state.ClaimedDocument, error) {
	if g == nil {
		return from()
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut {
		return nil, nil
	}
	return from()
}

// IsShut says whether it is shut.
func (g *Gate) IsShut() bool {
	if g == nil {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shut
}

// A Result is what a run did.
type Result struct {
	Uploaded  int   // documents accepted by the API
	Shared    int   // documents that got a source, or are to get one, without an upload
	Requests  int   // uploads begun
	Asked     int   // status requests: whether what was left behind is still there, and whether the API is well
	Bytes     int64 // of the contents of accepted documents
	Failed    int   // documents refused for good
	Uncertain int   // documents whose answer was lost in this run, some resent since
	Resent    int   // documents accepted that had been uncertain, and so may be there twice

	Changed    int // documents that were not the listed version any more: another scan helps
	Vanished   int // documents that were gone: another scan helps
	Unreadable int // documents that could not be read: the pass is incomplete

	// Deferred is the number of the sync's documents left pending, and Why the reason
	// that was met last, empty if there was none.
	Deferred int
	Why      string

	// Failures tells the first hundred of the failed, Unread those of the unreadable.
	Failures []Failure
	Unread   []Failure
}

// Incomplete says that the run left something undone that a rerun may help.
func (r Result) Incomplete() bool {
	return r.Deferred > 0 || r.Uncertain > 0 || r.Changed > 0 || r.Unreadable > 0
}

// A Failure is a document and what was said about it.
type Failure struct {
	Key    string
	Code   string // of the API, or empty
	Reason string
}

// An Ingest uploads what is due of one sync. Its caller holds the sync's lock.
type Ingest struct {
	store   *state.Store
	journal journal
	api     API
	root    Root
	sync    state.Sync
	opts    Options
}

// journal is what decides between what is sent once and what is sent twice.
type journal interface {
	Begin(ctx context.Context, spec state.BatchSpec) (int64, error)
	Seal(ctx context.Context, batchID int64, seals []state.Seal) error
	Accept(ctx context.Context, batchID int64, answer state.Answer) (state.Receipt, error)
	Refuse(ctx context.Context, batchID int64, refusal state.Refusal) error
}

var _ journal = (*state.Journal)(nil)

// New returns an Ingest of the sync, whose documents root opens.
func New(store *state.Store, api API, root Root, sync state.Sync, opts Options) *Ingest {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Documents = min(positive(opts.Documents, 20), replycx.MaxParts)
	opts.Bytes = positive(opts.Bytes, 32<<20)
	opts.Transfers = positive(opts.Transfers, 4)
	opts.Checkers = positive(opts.Checkers, min(runtime.GOMAXPROCS(0), 8))
	opts.ResendAfter = positive(opts.ResendAfter, time.Minute)
	opts.Patience = positive(opts.Patience, opts.ResendAfter+15*time.Second)
	opts.PollAfter = positive(opts.PollAfter, 2*time.Second)
	opts.RetryAfterCap = positive(opts.RetryAfterCap, 15*time.Minute)
	return &Ingest{store: store, journal: store.Journal, api: api, root: root, sync: sync, opts: opts}
}

func positive[T int | int64 | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// Run uploads what is due, and what becomes due within Options.Patience, and
// returns when nothing more does. The result is complete whatever the error.
//
// Errors: *FatalError, *OutageError, *QuotaError and *BudgetError say why the run
// stopped while documents were pending; ErrStopped that Options.Stop was closed;
// the context's error that it was cut. Any other is a failure of the state. Without
// one, Result.Incomplete says whether a rerun helps.
func (in *Ingest) Run(ctx context.Context) (Result, error) {
	r := newRun(in)
	if in.opts.MaxDuration > 0 {
		timer := time.AfterFunc(in.opts.MaxDuration, func() { r.stop(&BudgetError{Limit: "max-duration"}, false) })
		defer timer.Stop()
	}
	ended := make(chan struct{})
	var helpers, workers sync.WaitGroup
	helpers.Go(func() {
		select {
		case <-in.opts.Stop:
			r.stop(ErrStopped, true)
		case <-ctx.Done():
			r.stop(context.Cause(ctx), true)
		case <-ended:
		}
	})
	// Twice as many as there are transfers: what one records, another need not wait for.
	for range 2 * in.opts.Transfers {
		workers.Go(func() {
			for b := range r.work {
				r.process(ctx, b)
			}
		})
	}
	if err := r.plan(ctx); err != nil {
		r.stop(err, !errors.Is(err, errHeld))
	}
	r.giveBack(ctx)
	close(r.work)
	workers.Wait()
	r.giveBack(ctx) // what waited for a batch that has ended
	close(ended)
	helpers.Wait()
	return r.conclude(ctx)
}
