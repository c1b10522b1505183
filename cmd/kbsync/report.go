package main

import (
	"context"
	"errors"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/hooks"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// report tells of the sync whenever something has changed: in the state, for status; to the hooks; and to the beacons.
func (k *keeper) report(ctx context.Context) {
	h := k.d.app.notifier(k.d.store, k.pass.sync, k.config)
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
		if next, err = h.Deliver(ctx); err != nil && ctx.Err() == nil {
			k.log().Error("what is to be told cannot be read", "error", err)
			next = time.Now().Add(mostPause)
		}
	}
}

// tellOfStart tells of what keeps the sync from being entered. Of one that the state does not know yet, the beacons alone can.
func (k *keeper) tellOfStart(ctx context.Context, trouble error) {
	k.d.files.SetProblem(k.config.Name, problem(trouble))
	if k.lock == nil {
		return // whoever holds it tells
	}
	sync, err := k.d.store.Syncs.Get(ctx, k.config.Name)
	if err != nil {
		return
	}
	k.note(ctx, sync.ID, trouble)
	h := k.d.app.notifier(k.d.store, sync, k.config)
	if err = h.Enqueue(ctx, problem(trouble), false); err == nil {
		_, err = h.Deliver(ctx)
	}
	if err != nil && ctx.Err() == nil {
		k.log().Error("the hooks cannot be told", "error", err)
	}
}

// tell looks how the sync stands.
func (k *keeper) tell(ctx context.Context, h *hooks.Notifier) {
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
	k.d.files.SetProblem(k.config.Name, problem(engine.JoinErrors(append(standing(k.config.Name, onlyFailed(waiting), ""), trouble))))
	if err := h.Enqueue(ctx, problem(trouble), well); err != nil && ctx.Err() == nil {
		k.log().Error("what is to be told cannot be noted", "error", err)
	}
	if well && k.scanned.CompareAndSwap(true, false) {
		k.d.app.passed(ctx, k.d.files, k.config)
	}
}

// onlyFailed leaves out what is on its way.
func onlyFailed(counts map[state.DocumentState]int) map[state.DocumentState]int {
	return map[state.DocumentState]int{state.Failed: counts[state.Failed], state.Stuck: counts[state.Stuck], state.Uncertain: counts[state.Uncertain]}
}

func (a *app) notifier(store *state.Store, sync state.Sync, s config.Sync) *hooks.Notifier {
	return hooks.NewNotifier(store, sync, hooks.Options{Hooks: s.Hooks, Environ: a.env, UserAgent: "kbsync/" + buildVersion(), Logger: a.out.log, Now: a.now})
}

func problem(err error) *hooks.Problem {
	if err == nil {
		return nil
	}
	class := engine.Classify(err)
	return &hooks.Problem{Text: err.Error(), Kind: class.String(), ExitCode: codeOf(class)}
}

func statusPaths(cfg *config.Config) hooks.Paths {
	return hooks.Paths{Touch: cfg.TouchFile, Error: cfg.ErrorFile, Metrics: cfg.MetricsFile}
}

// passed reports that a pass of a sync has ended well.
func (a *app) passed(ctx context.Context, files *hooks.StatusFiles, s config.Sync) {
	files.Touch()
	if s.HeartbeatURL == "" {
		return
	}
	if err := hooks.Heartbeat(ctx, s.HeartbeatURL, "kbsync/"+buildVersion()); err != nil && ctx.Err() == nil {
		a.out.log.Warn("the heartbeat failed; the next pass tries again", "sync", s.Name, "error", err)
	}
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
	page, err := statuspage.New(statuspage.Options{State: store, Log: log, Version: buildVersion()})
	if err != nil {
		log.Warn("the metrics cannot be made", "error", err)
		return
	}
	b := hooks.NewStatusFiles(hooks.StatusFilesOptions{Paths: statusPaths(cfg), Metrics: page, Logger: log, Now: a.now})
	for i, p := range passes {
		s := summaries[i]
		switch {
		case p.left || s.ExitCode == exitInterrupted:
			continue
		case s.ExitCode == exitDone:
			b.SetProblem(p.config.Name, nil)
			a.passed(ctx, b, p.config)
		default:
			b.SetProblem(p.config.Name, problem(engine.WithClass(s.class, errors.New(s.Error))))
		}
		page.Metrics.BytesSent(p.config.Name, p.uploads.Bytes)
		if p.sync.ID == 0 {
			continue
		}
		trouble := p.err
		if exitCode(trouble) == exitBudget {
			trouble = nil
		}
		h := a.notifier(store, p.sync, p.config)
		err := h.Enqueue(ctx, problem(trouble), s.ExitCode == exitDone)
		if err == nil {
			var next time.Time
			if next, err = h.Deliver(ctx); err == nil && !next.IsZero() {
				log.Warn("a hook could not be told of everything; the next run goes on", "sync", p.config.Name)
			}
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("the hooks cannot be told", "sync", p.config.Name, "error", err)
		}
	}
	b.WriteMetrics()
}
