package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

const (
	// hopelessAfter is how many uncertain batches in a row end a run.
	hopelessAfter = 3
	// maxProbeDelay bounds the pause between two status requests that probe the API.
	maxProbeDelay = time.Minute
	// maxProbes bounds the documents that are tried while the breaker is open.
	maxProbes = 12
)

// mend looks at the breaker, and if it is open, tries to close it. closed is false when
// it stays open although the run need not stop for it: there is nothing to try.
// atStart is the streak at the beginning of the run.
func (r *run) mend(ctx context.Context, atStart int) (closed bool, err error) {
	streak, err := r.readBreaker(ctx)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	broken := r.broken
	r.mu.Unlock()
	if streak == 0 && !broken {
		return true, nil
	}
	r.halt()
	if err := r.settleWorkers(ctx); err != nil {
		return false, err
	}
	since := time.Now()
	answered := false
	for !r.isStopped() {
		if streak, err = r.readBreaker(ctx); err != nil {
			return false, err
		}
		if streak == 0 {
			r.resume()
			return true, nil
		}
		if giveUp(streak, atStart, r.probes) {
			return false, r.outage(streak)
		}
		if r.hopeless() {
			return false, errHeld
		}
		if !answered {
			if err := r.probeStatus(ctx, streak, since); err != nil {
				return false, err
			}
			answered = true
		}
		tried, more, err := r.probeUpload(ctx)
		if err != nil || !tried && !more {
			return false, err
		}
		if tried {
			answered = false
		}
	}
	return false, nil
}

// giveUp says whether a run stops its uploads: after three uncertain batches in a row,
// but one is tried in each run.
func giveUp(streak, atStart, probes int) bool {
	return streak >= hopelessAfter && (atStart < hopelessAfter || probes > 0) || probes >= maxProbes
}

func (r *run) outage(streak int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.lastErr
	if err == nil {
		err = errors.New("the answers of earlier uploads were lost")
	}
	return &OutageError{Streak: streak, Err: err}
}

// readBreaker returns the streak, and obeys a pause that another process was told.
func (r *run) readBreaker(ctx context.Context) (streak int, err error) {
	streak, paused, err := r.in.store.Journal.Breaker(ctx, r.in.sync.Destination.ID)
	if err != nil {
		return 0, fmt.Errorf("read breaker: %w", err)
	}
	r.mu.Lock()
	if most := time.Now().Add(r.in.opts.RetryAfterCap); paused.After(most) {
		paused = most
	}
	if paused.After(r.heldUntil) {
		r.heldUntil = paused
	}
	r.mu.Unlock()
	return streak, nil
}

// settleWorkers gives back what is not begun, and waits until no request is on its way.
func (r *run) settleWorkers(ctx context.Context) error {
	for {
		r.giveBack(ctx)
		r.mu.Lock()
		open := r.open
		r.mu.Unlock()
		if open == 0 || r.isStopped() {
			return nil
		}
		if err := r.sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// probeStatus asks for a status until the API gives a well-formed answer.
func (r *run) probeStatus(ctx context.Context, streak int, since time.Time) error {
	id, err := r.in.store.Inventory.AnySource(ctx, r.in.sync.Destination.ID)
	if err != nil {
		return fmt.Errorf("look for a source to ask for: %w", err)
	}
	for n := 0; ; n++ {
		r.note(func(res *Result) { res.Asked++ })
		_, err := r.in.api.SourceStatus(ctx, []int64{id})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
		wait := retryBound(n, maxProbeDelay)
		if e, ok := errors.AsType[*replycx.Error](err); ok {
			if judge(err, false).outcome == outcomeFatal && fatalCode(e) {
				return &FatalError{Err: err}
			}
			if e.FromAPI && e.StatusCode < 500 && e.StatusCode != http.StatusTooManyRequests {
				return nil
			}
			wait = max(wait, min(e.RetryAfter, r.in.opts.RetryAfterCap))
		}
		r.remember(err)
		if time.Now().Add(wait).After(since.Add(r.in.opts.Patience)) {
			return r.outage(streak)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.stopped:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// probeUpload tries the smallest document alone. tried is false when none was sent; more
// then says whether to look again.
func (r *run) probeUpload(ctx context.Context) (tried, more bool, err error) {
	after := r.in.opts.ResendAfter
	if r.in.opts.HoldUncertain || r.noMore {
		after = never
	}
	claimed, err := r.in.opts.Gate.claim(func() ([]state.ClaimedDocument, error) {
		return r.in.store.Queue.ClaimSmallest(ctx, r.in.sync.ID, after)
	})
	if err != nil {
		return false, false, fmt.Errorf("claim the smallest document: %w", err)
	}
	if len(claimed) == 0 {
		if r.hopeless() {
			return false, false, errHeld
		}
		more, err := r.wait(ctx)
		return false, more, err
	}
	docs := wrap(claimed)
	b := &batch{probe: true}
	if claimed[0].ResendOf != 0 {
		if docs, err = r.admitResends(ctx, docs); err != nil {
			return false, false, err
		}
		b.resendOf = claimed[0].ResendOf
	} else {
		if docs, err = r.prepare(ctx, docs); err != nil {
			return false, false, err
		}
		if err := r.resolve(ctx, docs); err != nil {
			return false, false, err
		}
		docs, r.queue = r.queue, nil
	}
	if len(docs) == 0 {
		return false, true, nil
	}
	r.probes++
	r.mu.Lock()
	r.open++
	r.mu.Unlock()
	r.process(ctx, b.with(docs))
	return true, true, nil
}
