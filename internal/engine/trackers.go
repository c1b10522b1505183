package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// Trackers is a pool of trackers, one for each destination. They follow the training while uploads go on, and afterwards.
type Trackers struct {
	parent context.Context

	mu      sync.Mutex
	ctx     context.Context
	cancel  context.CancelFunc
	run     runTracker
	running map[int64]*tracking // by destination
	group   sync.WaitGroup
}

// A runTracker runs the tracker of a destination until it ends or the context does.
type runTracker func(context.Context, *tracking) (tracker.Result, error)

// A tracking is the tracker of one destination.
type tracking struct {
	destination state.Destination
	wake        wakeup // there may be new sources
	retryNow    wakeup // a request that was refused may be accepted now

	// Valid when the tracker has ended.
	result tracker.Result
	err    error
}

// NewTrackers returns a pool whose trackers run once: each ends when nothing is in training at its destination and Wait was
// called. progress, if not nil, is called after each answer.
func NewTrackers(ctx context.Context, opts Options, progress func(tracker.Result)) *Trackers {
	return newPool(ctx, func(ctx context.Context, t *tracking) (tracker.Result, error) {
		options := trackerOptions(opts.Config, opts.Logger)
		options.Wake, options.Progress = t.wake, progress
		var sum tracker.Result
		for renewal := (renewal{}); ; {
			result, err := tracker.New(opts.Store, opts.API.Client, t.destination, options).Run(ctx)
			sum.Completed += result.Completed
			sum.Failed += result.Failed
			sum.Stuck += result.Stuck
			sum.Requests += result.Requests
			if !renewal.next(ctx, opts.API, err, result.Requests > 1) { // only the last one was refused
				return sum, err
			}
		}
	})
}

func newPool(ctx context.Context, run runTracker) *Trackers {
	p := &Trackers{parent: ctx, run: run, running: map[int64]*tracking{}}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// Follow starts the tracker of a destination, unless it runs.
func (p *Trackers) Follow(d state.Destination) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[d.ID] == nil {
		p.start(d)
	}
}

func (p *Trackers) start(d state.Destination) {
	ctx, run := p.ctx, p.run
	t := &tracking{destination: d, wake: newWakeup(), retryNow: newWakeup()}
	p.running[d.ID] = t
	p.group.Go(func() { t.result, t.err = run(ctx, t) })
}

// wakeAll signals to all trackers that there may be new sources.
func (p *Trackers) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.running {
		t.wake.signal()
	}
}

// wake signals to the tracker of a destination that there may be new sources.
func (p *Trackers) wake(destinationID int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.running[destinationID]; t != nil {
		t.wake.signal()
	}
}

// retryAll makes trackers that wait after a failure try again now.
func (p *Trackers) retryAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.running {
		t.retryNow.signal()
	}
}

// stop ends the trackers and waits for them.
func (p *Trackers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel()
	p.group.Wait()
}

// restart ends the trackers, and starts those of the destinations that serves accepts again, with run.
func (p *Trackers) restart(run runTracker, serves func(state.Destination) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel()
	p.group.Wait()
	p.ctx, p.cancel = context.WithCancel(p.parent)
	p.run = run
	before := p.running
	p.running = map[int64]*tracking{}
	for _, t := range before {
		if serves(t.destination) {
			p.start(t.destination)
		}
	}
}

// Wait waits until the trackers have ended: once nothing is in training any more if patient, else at once. It returns the sum of
// their results. No tracker may be started or woken afterwards.
func (p *Trackers) Wait(patient bool) tracker.Result {
	defer p.cancel()
	if !patient {
		p.cancel()
	}
	for _, t := range p.running {
		close(t.wake)
	}
	p.group.Wait()
	var sum tracker.Result
	for _, t := range p.running {
		sum.Completed += t.result.Completed
		sum.Failed += t.result.Failed
		sum.Stuck += t.result.Stuck
		sum.Requests += t.result.Requests
	}
	return sum
}

// Err returns why a tracker ended before the training at its destination did, after Wait(patient).
func (p *Trackers) Err(destinationID int64, patient bool) error {
	t := p.running[destinationID]
	switch {
	case t == nil || t.err == nil:
		return nil
	case errors.Is(p.parent.Err(), context.Canceled):
		return ingest.ErrStopped
	case errors.Is(t.err, context.DeadlineExceeded) && errors.Is(context.Cause(p.ctx), ErrMaxDuration):
		return ErrMaxDuration
	case !patient && errors.Is(t.err, context.Canceled):
		return nil
	}
	return t.err
}
