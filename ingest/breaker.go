package ingest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

const (
	// maxStreak is how many uncertain batches in a row end a run.
	maxStreak = 3
	// maxBreakerProbes bounds the batches that a run tries while the breaker is open.
	maxBreakerProbes = 12
)

// statusPolicy is the policy of the delay between two status requests while the breaker is open.
var statusPolicy = retry.Policy{Min: time.Second, Max: time.Minute}

// closeBreaker reads the destination's breaker, and if it is open, tries to close it: it waits for the workers, asks for a
// status until the API answers, and sends the smallest document alone. closed is false with a nil error if there is no
// document to try. streakAtStart is the streak at the beginning of the run.
func (p *planner) closeBreaker(ctx context.Context, streakAtStart int) (closed bool, err error) {
	streak, err := p.readBreaker(ctx)
	if err != nil {
		return false, err
	}
	if streak == 0 && !p.throttle.isBreakerOpen() {
		return true, nil
	}
	p.halt()
	if err := p.awaitWorkers(ctx); err != nil {
		return false, err
	}
	since := time.Now()
	answered := false
	for !p.throttle.isStopped() {
		if streak, err = p.readBreaker(ctx); err != nil {
			return false, err
		}
		switch {
		case streak == 0:
			p.throttle.closeBreaker()
			return true, nil
		case givesUp(streak, streakAtStart, p.breakerProbes):
			return false, p.throttle.outage(streak)
		case p.patienceExceeded():
			return false, errPatience
		}
		if !answered {
			if err := p.awaitStatus(ctx, streak, since); err != nil {
				return false, err
			}
			answered = true
		}
		sent, more, err := p.probeBreaker(ctx)
		if err != nil || !sent && !more {
			return false, err
		}
		if sent {
			answered = false
		}
	}
	return false, nil
}

// givesUp reports whether a run ends its uploads: after maxStreak uncertain batches in a row. A run that begins with such a
// streak sends one breaker probe first.
func givesUp(streak, streakAtStart, probes int) bool {
	return streak >= maxStreak && (streakAtStart < maxStreak || probes > 0) || probes >= maxBreakerProbes
}

// readBreaker returns the streak of uncertain batches, and obeys a pause that any process recorded.
func (p *planner) readBreaker(ctx context.Context) (streak int, err error) {
	streak, pausedUntil, err := p.breaker.Breaker(ctx, p.sync.Destination.ID)
	if err != nil {
		return 0, err
	}
	p.throttle.pause(pausedUntil)
	return streak, nil
}

// awaitWorkers gives back every document that no worker has, and waits until no batch is in flight.
func (p *planner) awaitWorkers(ctx context.Context) error {
	for {
		if err := p.giveBack(ctx); err != nil {
			return err
		}
		if batches, _ := p.inFlight.counts(); batches == 0 || p.throttle.isStopped() {
			return nil
		}
		if err := p.sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// awaitStatus asks for a status until the API gives an answer of its own.
func (p *planner) awaitStatus(ctx context.Context, streak int, since time.Time) error {
	id, err := p.inventory.AnySource(ctx, p.sync.Destination.ID)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		p.report.update(func(res *Result) { res.Asked++ })
		_, err := p.api.SourceStatus(ctx, []int64{id})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
		wait := statusPolicy.Bound(n)
		if e, ok := errors.AsType[*replycx.Error](err); ok {
			switch denied := e.Class() == replycx.ClassDenied; {
			case denied && (e.FromAPI || e.StatusCode == http.StatusUnauthorized):
				return &FatalError{Err: err}
			case e.FromAPI && e.StatusCode < 500 && e.StatusCode != http.StatusTooManyRequests:
				return nil
			}
			wait = max(wait, min(e.RetryAfter, p.opts.RetryAfterCap))
		}
		p.throttle.failed(err)
		if time.Now().Add(wait).After(since.Add(p.opts.Patience)) {
			return p.throttle.outage(streak)
		}
		if stopped, err := retry.SleepOrWake(ctx, wait, p.throttle.stopped); stopped || err != nil {
			return err
		}
	}
}

// probeBreaker sends the smallest document alone. sent is false if there was none to send; then more reports whether one
// may become due.
func (p *planner) probeBreaker(ctx context.Context) (sent, more bool, err error) {
	claimed, err := p.claim(func() ([]state.ClaimedDocument, error) {
		return p.queue.ClaimSmallest(ctx, p.sync.ID, p.resendAfter())
	})
	if err != nil {
		return false, false, err
	}
	if len(claimed) == 0 {
		if p.patienceExceeded() {
			return false, false, errPatience
		}
		more, err := p.wait(ctx)
		return false, more, err
	}
	docs, err := p.prepareProbe(ctx, claimed)
	if err != nil {
		return false, false, err
	}
	if len(docs) == 0 {
		return false, true, nil
	}
	p.breakerProbes++
	p.inFlight.beginBatch()
	probe := &batch{probe: true, resendOf: docs[0].ResendOf}
	p.uploader.process(ctx, probe.with(docs))
	return true, true, nil
}

// prepareProbe returns the documents of a breaker probe that need an upload.
func (p *planner) prepareProbe(ctx context.Context, docs []*document) ([]*document, error) {
	if docs[0].ResendOf != 0 {
		return p.admitResends(ctx, docs)
	}
	docs, err := p.prepare(ctx, docs)
	if err != nil {
		return nil, err
	}
	if err := p.resolve(ctx, docs); err != nil {
		return nil, err
	}
	docs, p.toSend = p.toSend, nil
	return docs, nil
}
