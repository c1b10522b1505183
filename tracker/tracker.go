// Package tracker follows the sources that uploads created until their training
// completes or fails.
//
// A source that was accepted is not trained yet, and only a trained one answers
// questions. The tracker asks for the status of what is due, many sources a
// request, and writes what it hears to the state, which holds the schedule; so a
// restart goes on where the last run ended.
//
// It does not know documents: what a source's outcome means for them is decided by
// the state. To ask for a status once, use package replycx.
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

// Options are the options of a Tracker. The zero value works; a zero field means
// its default.
type Options struct {
	Logger *slog.Logger // none if nil

	// Min and Max bound the pause between two questions for one source, which doubles
	// from one to the other: 2 s and 60 s.
	Min, Max time.Duration
	// TrainTimeout is how long after its upload a source that still trains counts as
	// stuck: 2 hours; negative for never. Stuck ones are asked for every StuckEvery, 10
	// minutes, while something else keeps the tracker running.
	TrainTimeout time.Duration
	StuckEvery   time.Duration
	// Patience is how long the API may fail to answer status requests before Run
	// gives up with an *OutageError: 5 minutes; negative for never.
	Patience time.Duration
	// RetryAfterCap bounds what a Retry-After may ask for: 15 minutes.
	RetryAfterCap time.Duration

	// Wake, if not nil, keeps Run going while it is open although nothing trains. A
	// value says that there may be new sources; closing it lets Run end once nothing
	// trains any more.
	Wake <-chan struct{}

	// Trained, if not nil, is told of each source whose training ended, and how long after its upload; Answered of each status
	// request, with the HTTP status of its answer (0 for none). Both must be quick.
	Trained  func(outcome state.Outcome, took time.Duration)
	Answered func(statusCode int)
	// Progress, if not nil, is told after each answer what changed since the last
	// call. It must be quick.
	Progress func(Result)
}

// A Result counts sources.
type Result struct {
	Completed int // training ended well
	Failed    int // ReplyCX said that training failed
	Stuck     int // past the deadline, or unknown to the API
	Requests  int // status requests made
}

// A Tracker follows the sources of one destination. Only one may run at a time for a
// destination; two do no harm but ask twice.
type Tracker struct {
	store *state.Store
	api   API
	dest  state.Destination
	opts  Options
}

// New returns a Tracker of the destination's sources.
func New(store *state.Store, api API, dest state.Destination, opts Options) *Tracker {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Min = cmp.Or(max(opts.Min, 0), 2*time.Second)
	opts.Max = max(cmp.Or(max(opts.Max, 0), time.Minute), opts.Min)
	opts.TrainTimeout = cmp.Or(opts.TrainTimeout, 2*time.Hour)
	opts.StuckEvery = cmp.Or(max(opts.StuckEvery, 0), 10*time.Minute)
	opts.Patience = cmp.Or(opts.Patience, 5*time.Minute)
	opts.RetryAfterCap = cmp.Or(max(opts.RetryAfterCap, 0), 15*time.Minute)
	return &Tracker{store: store, api: api, dest: dest, opts: opts}
}

// Run asks for what is due and waits for what becomes due until no document of the
// destination is in training, or the context ends. The result is complete whatever
// the error.
//
// Errors: *FatalError and *OutageError; the context's error; any other is a failure of
// the state.
func (t *Tracker) Run(ctx context.Context) (Result, error) {
	r := run{t: t, wake: t.opts.Wake, chunk: maxIDs, misses: map[int64]int{}, words: map[string]bool{}}
	err := r.run(ctx)
	return r.result, err
}

// A FatalError says that the API answers no status request until a person changes
// something: the token, the account or the address. It wraps the API's *replycx.Error.
type FatalError struct {
	Err error
}

func (e *FatalError) Error() string {
	return fmt.Sprintf("training status: %v (check the token and the API's address)", e.Err)
}

// Unwrap returns Err.
func (e *FatalError) Unwrap() error { return e.Err }

// An OutageError says that the API did not answer status requests for longer than
// Options.Patience. What trains is followed again by the next run.
type OutageError struct {
	Err error // what was met last
}

func (e *OutageError) Error() string {
	return fmt.Sprintf("training status: no usable answer: %v (run again when the API is well)", e.Err)
}

// Unwrap returns Err.
func (e *OutageError) Unwrap() error { return e.Err }
