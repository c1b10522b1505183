package ingest

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A run holds the parts that the planner and the workers of one call of Run share.
type run struct {
	sync     state.Sync
	opts     Options
	queue    *state.Queue
	report   *report
	throttle *throttle
	limits   *sizeLimits
	refusals *refusals
	inFlight *inFlight
	cache    *contentCache
	wake     wakeup // wakes the planner
}

func newRun(in *Ingest) *run {
	wake, cache := make(wakeup, 1), &contentCache{}
	return &run{
		sync:     in.sync,
		opts:     in.opts,
		queue:    in.queue,
		report:   newReport(in.opts.Progress),
		throttle: newThrottle(in.opts),
		limits:   &sizeLimits{},
		refusals: &refusals{},
		inFlight: newInFlight(cache, wake),
		cache:    cache,
		wake:     wake,
	}
}

// stop ends the run. Only the first cause counts. No request begins any more; abandon also ends the requests that are not
// sealed.
func (r *run) stop(cause error, abandon bool) {
	r.throttle.stop(cause)
	if abandon {
		// A request that is added later finds the cause in the throttle.
		r.inFlight.abandonRequests(errAbandoned)
	}
	r.wake.signal()
}

// halt keeps every request from being sealed until the planner has closed the breaker.
func (r *run) halt() {
	r.throttle.openBreaker()
	r.inFlight.abandonRequests(errAbandoned)
	r.wake.signal()
}

func (r *run) patienceExceeded() bool {
	return r.throttle.patienceExceeded(r.report.patienceEnds(r.opts.Patience))
}

// release gives documents back as pending. The documents are not to blame.
func (r *run) release(ctx context.Context, docs []*document, nextAttempt time.Time) error {
	if len(docs) == 0 {
		return nil
	}
	r.inFlight.remove(docs...)
	return r.queue.Release(ctx, unwrap(docs), nextAttempt, false)
}

// retryLater gives documents back as pending after a failed attempt.
func (r *run) retryLater(ctx context.Context, docs []*document, why string) error {
	if len(docs) == 0 {
		return nil
	}
	r.inFlight.remove(docs...)
	r.report.deferred(why)
	return r.queue.Release(ctx, unwrap(docs), time.Now().Add(delay(attempts(docs))), true)
}

// recordUnread ends the claim of a document that could not be read.
func (r *run) recordUnread(ctx context.Context, d *document, cause error) error {
	r.inFlight.remove(d)
	switch {
	case d.ResendOf != 0 && (isChanged(cause) || errors.Is(cause, fs.ErrNotExist)):
		// The version that was sent stays uncertain. The next scan finds the new one.
		return r.releaseChanged(ctx, d, "changed after its upload became uncertain")
	case isChanged(cause):
		return r.releaseChanged(ctx, d, "changed while it was read")
	case errors.Is(cause, fs.ErrNotExist):
		r.report.update(func(res *Result) { res.Vanished++ })
		r.report.done(1, d.Fingerprint.Size)
		return r.queue.MarkVanished(ctx, d.ClaimedDocument)
	}
	reason := cause.Error()
	r.report.update(func(res *Result) {
		res.Unreadable++
		res.Unread = appendFailure(res.Unread, Failure{Key: d.Key, Reason: reason})
	})
	if d.ResendOf != 0 { // the version that was sent stays uncertain, and the file is tried again
		return r.retryLater(ctx, []*document{d}, reason)
	}
	r.report.done(1, d.Fingerprint.Size)
	return r.queue.MarkUnreadable(ctx, d.ClaimedDocument, reason)
}

// releaseChanged gives a document back that no longer has the listed version, until a scan has found the new one.
func (r *run) releaseChanged(ctx context.Context, d *document, why string) error {
	r.report.update(func(res *Result) { res.Changed++ })
	r.report.deferred(why)
	return r.queue.Release(ctx, []state.ClaimedDocument{d.ClaimedDocument}, time.Now().Add(attemptPolicy.Max), false)
}

func isChanged(err error) bool {
	return errors.Is(err, state.ErrChanged) || errors.Is(err, replycx.ErrPartShort) || errors.Is(err, replycx.ErrPartLong)
}
