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

	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// API is the part of the ReplyCX client that an Ingest needs. Each call makes one attempt. Package replycx describes the
// errors.
type API interface {
	UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part,
		opts *replycx.UploadOptions) (*replycx.UploadResult, error)
	SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error)
}

var _ API = (*replycx.Client)(nil)

// Root opens the documents of a sync. An Ingest uses it from several goroutines.
type Root interface {
	// Open opens the version of a document that a listing showed as fp. If the document now has another version, Open or,
	// at its end at the latest, the reader returns an error that Is state.ErrChanged. If the document does not exist, the
	// error Is fs.ErrNotExist. Any other error means that the document cannot be read now. Of a document of more than a mebibyte,
	// an Ingest looks at a few parts if the reader is an io.ReaderAt.
	Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error)
}

// journal records every upload request. It decides which content is sent once and which twice.
type journal interface {
	Begin(ctx context.Context, spec state.BatchSpec) (*state.Upload, error)
	Seal(ctx context.Context, upload *state.Upload, seals []state.Seal) error
	Accept(ctx context.Context, upload *state.Upload, answer state.Answer) (state.Receipt, error)
	Refuse(ctx context.Context, upload *state.Upload, refusal state.Refusal) error
}

// breaker records the lost answers of a destination, the pause that its API asked for, and its limits.
type breaker interface {
	Breaker(ctx context.Context, destinationID int64) (streak int, pausedUntil time.Time, err error)
	MarkUncertain(ctx context.Context, upload *state.Upload, statusCode int, reason string) (streak int, err error)
	Pause(ctx context.Context, destinationID int64, until time.Time) error
	Limits(ctx context.Context, destinationID int64) (state.Limits, error)
}

var (
	_ journal = (*state.Journal)(nil)
	_ breaker = (*state.Journal)(nil)
)

// Options are the options of an Ingest. The zero value works; a zero field means its default.
type Options struct {
	Logger *slog.Logger // none if nil

	// Documents and Bytes bound a batch: 20 documents and 32 MiB of contents. A larger document is sent alone.
	Documents int
	Bytes     int64
	// Transfers is the number of parallel requests, 4. Checkers is the number of documents hashed at once, one a processor
	// up to 8.
	Transfers int
	Checkers  int

	// HoldUncertain never resends a document whose answer was lost. Otherwise the document is resent once, after
	// ResendAfter, one minute.
	HoldUncertain bool
	ResendAfter   time.Duration
	// HoldRefused fails every document of a batch that the API refused for its contents. Otherwise the batch is halved until
	// the document at fault is alone.
	HoldRefused bool
	// Sharing decides when a document gets a source of its own although its content has one.
	Sharing state.Sharing
	// Names is the style of the sources' names, Flat by default.
	Names NameStyle
	// SendText sends text formats as text fields instead of files, always in UTF-8. A text of more than a mebibyte, or in no known
	// encoding, is sent as a file.
	SendText bool
	// Transcode sends text formats as UTF-8 also as files, up to a mebibyte.
	Transcode bool
	// Cores finds documents that were saved again with only their metadata changed. They keep the source that they have, unless
	// Sharing.UploadResaved is set. It costs a second reading of office documents and PDFs of more than a mebibyte.
	Cores bool
	// Preflight decides which documents are not sent, by what they look like.
	Preflight preflight.Policy

	// BytesPerSecond limits the reading of uploads; 0 for no limit.
	BytesPerSecond int64
	// MaxTransfer is the most content bytes that a run sends, and MaxDuration the time after which it begins no request.
	// Either ends the run with a *BudgetError, after the answers to the requests that have begun. 0 for no limit.
	MaxTransfer int64
	MaxDuration time.Duration

	// Patience is how long a run waits, since its last progress, for the next document to become due or for the API to
	// recover: ResendAfter and 15 seconds, so that a run resends the documents that became uncertain in it.
	Patience time.Duration
	// PollAfter is the time between an upload and the first status request for its sources: two seconds.
	PollAfter time.Duration
	// RetryAfterCap bounds the pause of a Retry-After: 15 minutes.
	RetryAfterCap time.Duration

	// Shared is set if other processes claim documents of the sync at the same time.
	Shared bool
	// Gate, if not nil, keeps the run from claiming documents while it is shut. A run with nothing else to do then ends.
	Gate *Gate
	// Wake, if not nil, wakes a waiting run when there may be new documents. Without it, a run looks for new documents when
	// a request has ended.
	Wake <-chan struct{}

	// Stop, when closed, ends the run softly: it claims and seals nothing more, abandons the requests that are not sealed,
	// and returns once the answers to the sealed ones are recorded. End Run's context to cut those too.
	Stop <-chan struct{}

	Progress Progress
}

// Progress has functions that observe a run. The run calls them often and from several goroutines, so they must be quick.
// It does not call nil ones.
type Progress struct {
	// Sent counts the content bytes that were sent, including those of requests that fail later.
	Sent func(bytes int64)
	// Done counts the documents that this run has finished with: accepted, shared, failed, vanished or unreadable. bytes is
	// the size of their contents.
	Done func(documents int, bytes int64)
	// Request reports each request that has ended.
	Request func(Request)
}

// A Request describes one upload request that has ended.
type Request struct {
	End        End
	StatusCode int           // of the answer; 0 for none
	Took       time.Duration // from its first byte
	Retry      bool          // it had documents of an earlier request
}

// An Ingest uploads the due documents of one sync. Its caller holds the sync's lock.
type Ingest struct {
	queue     *state.Queue
	inventory *state.Inventory
	documents *state.Documents
	journal   journal
	breaker   breaker
	api       API
	root      Root
	sync      state.Sync
	opts      Options
}

// The default limits of a batch.
const (
	defaultDocuments = 20
	defaultBytes     = int64(32 << 20)
)

// New returns an Ingest of the sync, whose documents root opens.
func New(store *state.Store, api API, root Root, sync state.Sync, opts Options) *Ingest {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Documents = min(positive(opts.Documents, defaultDocuments), replycx.MaxParts)
	opts.Bytes = positive(opts.Bytes, defaultBytes)
	opts.Transfers = positive(opts.Transfers, 4)
	opts.Checkers = positive(opts.Checkers, min(runtime.GOMAXPROCS(0), 8))
	opts.ResendAfter = positive(opts.ResendAfter, time.Minute)
	opts.Patience = positive(opts.Patience, opts.ResendAfter+15*time.Second)
	opts.PollAfter = positive(opts.PollAfter, 2*time.Second)
	opts.RetryAfterCap = positive(opts.RetryAfterCap, 15*time.Minute)
	return &Ingest{
		queue: store.Queue, inventory: store.Inventory, documents: store.Documents, journal: store.Journal, breaker: store.Journal,
		api: api, root: root, sync: sync, opts: opts,
	}
}

func positive[T int | int64 | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}

// Run uploads the documents that are due or become due within Options.Patience, and returns when there are no more. The
// result is complete whatever the error.
//
// Errors: *FatalError, *OutageError, *QuotaError and *BudgetError are the reasons of a run that stopped while documents were
// pending; ErrStopped means that Options.Stop was closed; the context's cause means that the run was cut. Any other error is
// a failure of the state. Without an error, Result.Incomplete reports whether a rerun helps.
func (in *Ingest) Run(ctx context.Context) (Result, error) {
	r := newRun(in)
	u := newUploader(in, r)
	p := newPlanner(in, r, u)
	if in.opts.MaxDuration > 0 {
		timer := time.AfterFunc(in.opts.MaxDuration, func() { r.stop(&BudgetError{Limit: "max-duration"}, false) })
		defer timer.Stop()
	}
	ended := make(chan struct{})
	var stopper, workers sync.WaitGroup
	stopper.Go(func() {
		select {
		case <-in.opts.Stop:
			r.stop(ErrStopped, true)
		case <-ctx.Done():
			r.stop(context.Cause(ctx), true)
		case <-ended:
		}
	})
	// Twice as many workers as transfers: while one records an outcome, another sends.
	for range 2 * in.opts.Transfers {
		workers.Go(func() {
			for b := range p.work {
				u.process(ctx, b)
			}
		})
	}
	if err := p.plan(ctx); err != nil {
		r.stop(err, !errors.Is(err, errPatience))
	}
	_ = p.giveBack(ctx) // giveBackAll tries again
	close(p.work)
	workers.Wait()
	if err := p.giveBackAll(ctx); err != nil {
		in.opts.Logger.Error("documents stay claimed until the sync is recovered", "sync", in.sync.Name, "error", err)
		r.stop(err, true)
	}
	close(ended)
	stopper.Wait()
	return in.conclude(ctx, r)
}

// conclude returns the complete result and the cause of the run's end.
func (in *Ingest) conclude(ctx context.Context, r *run) (Result, error) {
	result, cause := r.report.snapshot(), r.throttle.stopCause()
	if errors.Is(cause, errPatience) {
		cause = nil
	}
	outstanding, err := in.documents.Outstanding(context.WithoutCancel(ctx), in.sync.ID)
	if err != nil && cause == nil {
		return result, err
	}
	result.Deferred = outstanding[state.Pending] + outstanding[state.Uploading]
	if result.Deferred == 0 {
		result.Why = ""
	}
	return result, cause
}
