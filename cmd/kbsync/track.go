package main

import (
	"context"
	"errors"
	"sync"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// trackers follow the training at each destination of a run, while uploads go on and afterwards.
type trackers struct {
	app      *app
	cfg      *config.Config
	store    *state.Store
	api      *api
	progress *progress

	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	running map[int64]*following // by destination
	group   sync.WaitGroup
}

type following struct {
	wake   chan struct{}
	result tracker.Result
	err    error
}

func newTrackers(ctx context.Context, a *app, cfg *config.Config, store *state.Store, api *api, p *progress) *trackers {
	t := &trackers{app: a, cfg: cfg, store: store, api: api, progress: p, running: map[int64]*following{}}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// follow starts the tracker of a destination, unless it runs.
func (t *trackers) follow(d state.Destination) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[d.ID] != nil {
		return
	}
	f := &following{wake: make(chan struct{}, 1)}
	t.running[d.ID] = f
	options := tracker.Options{
		Logger:       t.app.out.log,
		Min:          t.cfg.Poll.Min,
		Max:          t.cfg.Poll.Max,
		TrainTimeout: t.cfg.TrainTimeout,
		Wake:         f.wake,
		Progress:     t.progress.tracked,
	}
	if t.cfg.TrainTimeout == 0 {
		options.TrainTimeout = -1 // for ever
	}
	t.group.Go(func() { f.result, f.err = tracker.New(t.store, t.api.client, d, options).Run(t.ctx) })
}

// wake tells the trackers that there may be new sources.
func (t *trackers) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.running {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// wait lets the trackers end: once nothing trains any more, or at once. Nothing may be woken afterwards.
func (t *trackers) wait(patiently bool) trained {
	defer t.cancel()
	if !patiently {
		t.cancel()
	}
	for _, f := range t.running {
		close(f.wake)
	}
	t.group.Wait()
	var sum trained
	for _, f := range t.running {
		sum.Completed += f.result.Completed
		sum.Failed += f.result.Failed
		sum.Stuck += f.result.Stuck
		sum.Requests += f.result.Requests
	}
	return sum
}

// err returns why the training at a destination was not followed to its end.
func (t *trackers) err(destinationID int64, waited bool) error {
	f := t.running[destinationID]
	switch {
	case f == nil || f.err == nil:
		return nil
	case t.app.signals.soft.Err() != nil:
		return ingest.ErrStopped
	case errors.Is(f.err, context.DeadlineExceeded) && errors.Is(context.Cause(t.ctx), engine.ErrMaxDuration):
		return engine.ErrMaxDuration
	case !waited && errors.Is(f.err, context.Canceled):
		return nil
	}
	return f.err
}

// trained is what the trackers of a run heard, in sources.
type trained tracker.Result

func (t trained) view() trainedView {
	return trainedView(t)
}

type trainedView struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Stuck     int `json:"stuck"`
	Requests  int `json:"requests"`
}
