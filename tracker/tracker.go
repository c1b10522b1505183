package tracker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// API is the part of the ReplyCX client that a Tracker needs.
type API interface {
	SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error)
}

var _ API = (*replycx.Client)(nil)

// Options are the options of a Tracker. The zero value works; a zero field means its default.
type Options struct {
	Logger *slog.Logger // none if nil

	// Min and Max bound the delay between two status requests for one source, 350 ms and 60 s. It grows with the time since the
	// upload.
	Min, Max time.Duration
	// TrainTimeout is how long after its upload a source in training becomes stuck: 2 hours; negative for never. A run asks
	// for stuck sources at its start, and while something else keeps it going every StuckEvery, 10 minutes.
	TrainTimeout time.Duration
	StuckEvery   time.Duration
	// Patience is how long the API may fail to answer status requests before Run returns an *OutageError: 5 minutes;
	// negative for ever.
	Patience time.Duration
	// RetryAfterCap bounds the pause of a Retry-After: 15 minutes.
	RetryAfterCap time.Duration

	// Wake, if not nil, keeps Run going while it is open, even if nothing trains. A value means that there may be new
	// sources. After it is closed, Run ends once nothing trains.
	Wake <-chan struct{}

	// Trained, if not nil, reports each source whose training ended, and how long after its upload. Answered, if not nil,
	// reports each status request with the HTTP status of its answer, 0 for none. Both must be quick.
	Trained  func(outcome state.Outcome, took time.Duration)
	Answered func(statusCode int)
	// Progress, if not nil, reports after each answer the changes since the last call. It must be quick.
	Progress func(Result)
}

// A Result counts sources.
type Result struct {
	Completed int // training completed
	Failed    int // training failed
	Stuck     int // past the deadline, or unknown to the API
	Requests  int // status requests made
}

// A Tracker follows the sources of one destination. Two trackers of one destination ask twice, and do no other harm.
type Tracker struct {
	inventory *state.Inventory
	documents *state.Documents
	api       API
	dest      state.Destination
	opts      Options
}

// New returns a Tracker of the destination's sources.
func New(store *state.Store, api API, dest state.Destination, opts Options) *Tracker {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Min = cmp.Or(max(opts.Min, 0), 350*time.Millisecond)
	opts.Max = max(cmp.Or(max(opts.Max, 0), time.Minute), opts.Min)
	opts.TrainTimeout = cmp.Or(opts.TrainTimeout, 2*time.Hour)
	opts.StuckEvery = cmp.Or(max(opts.StuckEvery, 0), 10*time.Minute)
	opts.Patience = cmp.Or(opts.Patience, 5*time.Minute)
	opts.RetryAfterCap = cmp.Or(max(opts.RetryAfterCap, 0), 15*time.Minute)
	return &Tracker{
		inventory: store.Inventory, documents: store.Documents,
		api: api, dest: dest, opts: opts,
	}
}

// Run asks for the due sources, and waits for the next ones, until no document of the destination is in training or the
// context ends. The result is complete whatever the error.
//
// Errors: *FatalError, *OutageError, the cause of the context's end. Any other error is a failure of the state.
func (t *Tracker) Run(ctx context.Context) (Result, error) {
	r := newRun(t)
	err := r.run(ctx)
	return r.result, err
}

// A FatalError means that the API answers no status request until a person changes the token, the account or the address.
// It wraps the API's *replycx.Error.
type FatalError struct {
	Err error
}

func (e *FatalError) Error() string {
	return fmt.Sprintf("training status: %v (check the token and the API's address)", e.Err)
}

// Unwrap returns Err.
func (e *FatalError) Unwrap() error { return e.Err }

// An OutageError means that the API did not answer status requests for longer than Options.Patience. The next run follows
// the sources in training.
type OutageError struct {
	Err error // the last one
}

func (e *OutageError) Error() string {
	return fmt.Sprintf("training status: no usable answer: %v (run again when the API answers)", e.Err)
}

// Unwrap returns Err.
func (e *OutageError) Unwrap() error { return e.Err }
