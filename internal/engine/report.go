package engine

import (
	"context"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/hooks"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// reportDelay collects changes that happen together into one report.
const reportDelay = 50 * time.Millisecond

// reportRest is how often the time of a report passes before the next one. The cost of a report grows with the number of
// documents that are not completed, and while they are uploaded there is always a change to report.
const reportRest = 10

// runReports reports the sync after each change, until ctx ends: to the state, where kbsync status finds it, and in the status files. It
// enqueues the messages to the hooks.
func (l *loops) runReports(ctx context.Context) {
	notifier := l.newNotifier(l.changed.signal)
	l.changed.signal() // for the messages that an earlier process could not deliver
	var took time.Duration
	for {
		if _, err := retry.SleepOrWake(ctx, l.sampler.wait(l.opts.Now()), l.changed); err != nil {
			return
		}
		if retry.Sleep(ctx, max(reportDelay, reportRest*took)) != nil {
			return
		}
		begun := time.Now()
		l.report(ctx, notifier)
		took = time.Since(begun)
		l.sample(ctx)
		l.notifier.Store(notifier)
		l.messages.signal()
	}
}

// call runs the loops that call hooks and heartbeats until ctx ends, in group. A call may take long, and delays no report.
func (l *loops) call(ctx context.Context, group *sync.WaitGroup) {
	group.Go(func() { l.runDeliveries(ctx) })
	group.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.complete:
				l.heartbeat(ctx)
			}
		}
	})
}

// runDeliveries calls the hooks of the sync until ctx ends.
func (l *loops) runDeliveries(ctx context.Context) {
	var next time.Time
	failures := 0
	for {
		wait := time.Hour
		if !next.IsZero() {
			wait = max(next.Sub(l.opts.Now()), 0)
		}
		if _, err := retry.SleepOrWake(ctx, wait, l.messages); err != nil {
			return
		}
		notifier := l.notifier.Load()
		if notifier == nil {
			continue
		}
		var err error
		if next, err = notifier.Deliver(ctx); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			l.logger.Error("cannot read the messages to the hooks", "error", err)
			next = l.opts.Now().Add(backoff(failures))
			failures++
		}
	}
}

// report reports how the sync stands.
func (l *loops) report(ctx context.Context, notifier *hooks.Notifier) {
	failure := l.lastErrors()
	l.saveLastError(ctx, failure)
	documents, err := l.opts.Store.Documents.Outstanding(ctx, l.sync.ID)
	if err != nil {
		if ctx.Err() == nil {
			l.logger.Error("cannot read the state", "error", err)
		}
		return
	}
	blocked, err := Blocked(ctx, l.opts.Store, l.config.Name, l.sync.ID)
	if err != nil {
		if ctx.Err() == nil {
			l.logger.Error("cannot read the state", "error", err)
		}
		return
	}
	busy := documents[state.Pending] + documents[state.Uploading] + documents[state.Training]
	failed := documents[state.Failed] + documents[state.Stuck] + documents[state.Uncertain]
	complete := failure == nil && blocked == nil && busy+failed == 0 && l.firstScanEnded.Load()
	problems := append(Remaining(l.config.Name, onlyFailed(documents), ""), blocked, failure)
	l.host.files.SetProblem(l.config.Name, l.problem(JoinErrors(problems)))
	if err := notifier.Enqueue(ctx, l.problem(failure), complete); err != nil && ctx.Err() == nil {
		l.logger.Error("cannot save the messages to the hooks", "error", err)
	}
	if complete && l.scanned.CompareAndSwap(true, false) {
		l.host.files.Touch()
		l.complete.signal()
	}
}

// onlyFailed returns the counts of the documents that are not on their way.
func onlyFailed(documents map[state.DocumentState]int) map[state.DocumentState]int {
	failed := map[state.DocumentState]int{}
	for _, s := range []state.DocumentState{state.Failed, state.Stuck, state.Uncertain} {
		failed[s] = documents[s]
	}
	return failed
}

// reportStart reports why the sync cannot be opened. If the state does not know it yet, only the status files can report it. If
// another process holds the lock, that process reports the rest.
func (l *loops) reportStart(ctx context.Context, failure error) {
	l.host.files.SetProblem(l.config.Name, l.problem(failure))
	if l.lock == nil || l.sync.ID == 0 {
		return
	}
	l.saveLastError(ctx, failure)
	notifier := l.newNotifier(nil)
	if err := notifier.Enqueue(ctx, l.problem(failure), false); err != nil && ctx.Err() == nil {
		l.logger.Error("cannot save the messages to the hooks", "error", err)
	}
	l.notifier.Store(notifier)
	l.messages.signal()
}
