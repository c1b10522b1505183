package main

import (
	"context"
	"errors"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// report tells of the sync whenever something has changed: in the state, for status; to the hooks; and to the beacons.
func (k *keeper) report(ctx context.Context) {
	h := &herald{app: k.d.app, store: k.d.store, sync: k.pass.sync, config: k.config}
	k.changed.ring() // what an earlier process could not tell
	var next time.Time
	for {
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), 0)
		}
		if !rest(ctx, wait, k.changed) {
			return
		}
		// What happens together is told together.
		if !rest(ctx, 50*time.Millisecond) {
			return
		}
		k.tell(ctx, h)
		var err error
		if next, err = h.deliver(ctx); err != nil && ctx.Err() == nil {
			k.log().Error("what is to be told cannot be read", "error", err)
			next = time.Now().Add(mostPause)
		}
	}
}

// tellOfStart tells of what keeps the sync from being entered. Of one that the state does not know yet, the beacons alone can.
func (k *keeper) tellOfStart(ctx context.Context, trouble error) {
	k.d.beacons.trouble(k.config.Name, trouble)
	if k.lock == nil {
		return // whoever holds it tells
	}
	sync, err := k.d.store.Syncs.Get(ctx, k.config.Name)
	if err != nil {
		return
	}
	k.note(ctx, sync.ID, trouble)
	h := &herald{app: k.d.app, store: k.d.store, sync: sync, config: k.config}
	if err = h.observe(ctx, trouble, false); err == nil {
		_, err = h.deliver(ctx)
	}
	if err != nil && ctx.Err() == nil {
		k.log().Error("the hooks cannot be told", "error", err)
	}
}

// tell looks how the sync stands.
func (k *keeper) tell(ctx context.Context, h *herald) {
	trouble := k.troubled()
	k.note(ctx, k.id.Load(), trouble)
	waiting, err := k.d.store.Documents.Outstanding(ctx, k.id.Load())
	if err != nil {
		if ctx.Err() == nil {
			k.log().Error("the state cannot be read", "error", err)
		}
		return
	}
	busy := waiting[state.Pending] + waiting[state.Uploading] + waiting[state.Training]
	failed := waiting[state.Failed] + waiting[state.Stuck] + waiting[state.Uncertain]
	well := trouble == nil && busy+failed == 0 && k.looked.Load()
	k.d.beacons.trouble(k.config.Name, engine.JoinErrors(append(standing(k.config.Name, onlyFailed(waiting), ""), orNone(trouble)...)))
	if err := h.observe(ctx, trouble, well); err != nil && ctx.Err() == nil {
		k.log().Error("what is to be told cannot be noted", "error", err)
	}
	if well && k.scanned.CompareAndSwap(true, false) {
		k.d.beacons.passed(ctx, k.config)
	}
}

// onlyFailed leaves out what is on its way.
func onlyFailed(counts map[state.DocumentState]int) map[state.DocumentState]int {
	return map[state.DocumentState]int{state.Failed: counts[state.Failed], state.Stuck: counts[state.Stuck], state.Uncertain: counts[state.Uncertain]}
}

func orNone(err error) []error {
	if err == nil {
		return nil
	}
	return []error{err}
}

// note writes the trouble to the state, where status finds it.
func (k *keeper) note(ctx context.Context, id int64, trouble error) {
	text := ""
	if trouble != nil {
		text = trouble.Error()
	}
	if text == k.noted {
		return
	}
	if err := k.d.store.Syncs.SetLastError(ctx, id, text); err != nil {
		if ctx.Err() == nil {
			k.log().Warn("the state does not take a note", "error", err)
		}
		return
	}
	k.noted = text
}

// tellOfPasses tells the hooks and the beacons how the passes of a run went.
func (a *app) tellOfPasses(ctx context.Context, cfg *config.Config, store *state.Store, passes []*pass, summaries []*summary) {
	log := a.out.log
	b := &beacons{app: a, cfg: cfg}
	var err error
	if b.page, err = statuspage.New(statuspage.Options{State: store, Log: log, Version: buildVersion()}); err != nil {
		log.Warn("the metrics cannot be made", "error", err)
		return
	}
	for i, p := range passes {
		s := summaries[i]
		switch {
		case p.left || s.ExitCode == exitInterrupted:
			continue
		case s.ExitCode == exitDone:
			b.trouble(p.config.Name, nil)
			b.passed(ctx, p.config)
		default:
			b.trouble(p.config.Name, &exitError{s.ExitCode, errors.New(s.Error)})
		}
		b.page.Metrics.BytesSent(p.config.Name, p.uploads.Bytes)
		if p.sync.ID == 0 {
			continue
		}
		trouble := p.err
		if exitCode(trouble) == exitBudget {
			trouble = nil
		}
		h := &herald{app: a, store: store, sync: p.sync, config: p.config}
		err := h.observe(ctx, trouble, s.ExitCode == exitDone)
		if err == nil {
			var next time.Time
			if next, err = h.deliver(ctx); err == nil && !next.IsZero() {
				log.Warn("a hook could not be told of everything; the next run goes on", "sync", p.config.Name)
			}
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("the hooks cannot be told", "sync", p.config.Name, "error", err)
		}
	}
	b.writeMetrics()
}
