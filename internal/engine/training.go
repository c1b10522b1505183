package engine

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// A trainingReport has the functions that the trackers of a daemon call, for a destination.
type trainingReport struct {
	progressed func(destinationID int64)          // training ended for a source
	failed     func(destinationID int64, _ error) // nil if the API answers again
	trained    func(destinationID int64, took time.Duration)
}

// endless returns a function that runs a tracker until its context ends. If it fails, it is started again after a delay.
func endless(opts Options, metrics *statuspage.Metrics, report trainingReport) runTracker {
	return func(ctx context.Context, t *tracking) (tracker.Result, error) {
		return followEndlessly(ctx, t, opts, metrics, report)
	}
}

func followEndlessly(
	ctx context.Context, t *tracking, opts Options, metrics *statuspage.Metrics, report trainingReport,
) (tracker.Result, error) {
	id := t.destination.ID
	var refused atomic.Bool // no status request was answered since the last failure
	options := trackerOptions(opts.Config, opts.Logger)
	options.Patience = -1
	options.Wake = t.wake
	options.Trained = func(outcome state.Outcome, took time.Duration) {
		metrics.Trained(outcome, took)
		if outcome == state.TrainingCompleted || outcome == state.TrainingFailed {
			report.trained(id, took)
		}
	}
	options.Answered = func(statusCode int) {
		metrics.StatusRequest(statusCode)
		if statusCode == http.StatusOK && refused.CompareAndSwap(true, false) {
			report.failed(id, nil)
		}
	}
	options.Progress = func(r tracker.Result) {
		if r.Completed+r.Failed+r.Stuck > 0 {
			report.progressed(id)
		}
	}
	var renewal renewal
	for failures := 0; ; failures++ {
		began := time.Now()
		result, err := tracker.New(opts.Store, opts.API.Client, t.destination, options).Run(ctx)
		if ctx.Err() != nil {
			return tracker.Result{}, context.Cause(ctx)
		}
		if renewal.next(ctx, opts.API, err, result.Requests > 1) {
			continue
		}
		if time.Since(began) > maxDelay {
			failures = 0
		}
		delay := backoff(failures)
		if class := Classify(err); class == ClassFatal || class == ClassUsage {
			delay = fatalDelay
		}
		refused.Store(true)
		report.failed(id, err)
		if _, err := retry.SleepOrWake(ctx, delay, t.retryNow); err != nil {
			return tracker.Result{}, err
		}
	}
}
