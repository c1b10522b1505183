package watcher

import (
	"math/rand/v2"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
)

// againPolicy decides when a root is watched again after a shortage. An attempt lists every directory of the root, and takes
// watches that other programs may need.
var againPolicy = retry.AddedJitter(time.Minute, time.Hour)

// attempts has the attempts to watch a root by events. The goroutine of run uses it.
type attempts struct {
	policy  retry.Policy
	failed  int       // in a row
	working time.Time // when events began to work; zero if they do not
	wait    time.Duration
}

// tryAgain returns a channel that receives when events are to be tried again; nil if the reason to poll does not pass.
func (w *Watch) tryAgain(why *mustPollError) <-chan time.Time {
	a := &w.attempts
	worked := a.working
	a.working = time.Time{}
	if !why.passing {
		return nil
	}
	// Where events work for a short time only, the next attempt waits as after a failed one.
	if !worked.IsZero() && time.Since(worked) > a.wait {
		a.failed = 0
	}
	a.wait = a.policy.Delay(a.failed, rand.Float64())
	a.failed++
	return time.After(a.wait)
}

// eventsWork notes that all watches of the root are set.
func (w *Watch) eventsWork() {
	a := &w.attempts
	if !a.working.IsZero() {
		return
	}
	a.working = time.Now()
	if a.failed == 0 {
		return
	}
	w.mu.Lock()
	clear(w.logged) // a new shortage is worth a line
	w.mu.Unlock()
	w.opts.Logger.Info("the root is watched by events again", "root", w.dir.path)
}
