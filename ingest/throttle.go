package ingest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
)

// The policy of the delay before another attempt, and the shortest delay.
var attemptPolicy = retry.FullJitter(time.Second, 5*time.Minute)

const minDelay = 50 * time.Millisecond

// delay returns how long a document or a request waits after so many failed attempts.
func delay(attempts int) time.Duration {
	return max(attemptPolicy.Delay(attempts, rand.Float64()), minDelay)
}

// maxBusy is how many busy answers in a row, without progress during the run's patience, end a run.
const maxBusy = 3

// A throttle decides whether a request may begin and whether one may be sealed. It holds the cause that stops the run, the
// breaker, the pause that the API asked for, and the budget of bytes.
type throttle struct {
	retryAfterCap time.Duration
	maxTransfer   int64         // 0 for no limit
	stopped       chan struct{} // closed when the run stops

	mu          sync.Mutex
	cause       error         // why the run stops
	breakerOpen bool          // as far as this run knows
	interrupt   chan struct{} // closed while the run is stopped or the breaker is open
	pausedUntil time.Time     // no request begins before
	busyInARow  int           // busy answers since the last accepted one
	lastErr     error         // of the last failed request
	transferred int64         // content bytes of all requests
}

func newThrottle(opts Options) *throttle {
	return &throttle{
		retryAfterCap: opts.RetryAfterCap,
		maxTransfer:   opts.MaxTransfer,
		stopped:       make(chan struct{}),
		interrupt:     make(chan struct{}),
	}
}

// stop stops the run. Only the first cause counts, except that any other one replaces errPatience, which is no error.
func (t *throttle) stop(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.cause == nil:
		t.cause = cause
		close(t.stopped)
		t.interruptLocked()
	case errors.Is(t.cause, errPatience):
		t.cause = cause
	}
}

// openBreaker forbids every seal but a probe's, until closeBreaker.
func (t *throttle) openBreaker() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.breakerOpen = true
	t.interruptLocked()
}

// closeBreaker lets requests begin again. The planner calls it when the state's breaker is closed and no batch is in flight.
func (t *throttle) closeBreaker() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.breakerOpen = false
	if t.cause == nil {
		t.interrupt = make(chan struct{})
	}
}

func (t *throttle) interruptLocked() {
	select {
	case <-t.interrupt:
	default:
		close(t.interrupt)
	}
}

func (t *throttle) isStopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause != nil
}

// stopCause returns why the run stops, or nil.
func (t *throttle) stopCause() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause
}

func (t *throttle) isBreakerOpen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.breakerOpen
}

// isInterrupted reports whether no request but a probe may begin.
func (t *throttle) isInterrupted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause != nil || t.breakerOpen
}

// interrupted returns a channel that is closed when a batch may not begin any more. The breaker does not interrupt a probe.
func (t *throttle) interrupted(probe bool) <-chan struct{} {
	if probe {
		return t.stopped
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.interrupt
}

// forbidsSeal reports whether a request that has begun may not be sealed. A run that stops for its budget or its patience
// lets the requests that have begun end.
func (t *throttle) forbidsSeal(probe bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.breakerOpen && !probe {
		return true
	}
	_, isBudget := errors.AsType[*BudgetError](t.cause)
	return t.cause != nil && !isBudget && !errors.Is(t.cause, errPatience)
}

// admit waits until a request with so many content bytes may begin. Errors: errInterrupted, *BudgetError, the cause of the
// context's end.
func (t *throttle) admit(ctx context.Context, bytes int64, probe bool) error {
	for {
		wait, err := t.tryAdmit(bytes, probe)
		if wait <= 0 || err != nil {
			return err
		}
		if _, err := retry.SleepOrWake(ctx, wait, t.interrupted(probe)); err != nil {
			return err
		}
	}
}

// tryAdmit counts the bytes and returns 0 if a request may begin now, or how long to wait.
func (t *throttle) tryAdmit(bytes int64, probe bool) (wait time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil || t.breakerOpen && !probe {
		return 0, errInterrupted
	}
	if t.maxTransfer > 0 && t.transferred+bytes > t.maxTransfer {
		return 0, &BudgetError{Limit: "max-transfer"}
	}
	if wait = time.Until(t.pausedUntil); wait > 0 {
		return wait, nil
	}
	t.transferred += bytes
	return 0, nil
}

// pause lets no request begin before until, but at most for the cap of a Retry-After.
func (t *throttle) pause(until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit := time.Now().Add(t.retryAfterCap); until.After(limit) {
		until = limit
	}
	t.pauseLocked(until)
}

func (t *throttle) pauseLocked(until time.Time) {
	if until.After(t.pausedUntil) {
		t.pausedUntil = until
	}
}

func (t *throttle) pauseEnds() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pausedUntil
}

// busy counts a busy answer, and pauses all workers: for the time that the API asked for, or for a delay that grows with
// the busy answers in a row. One failure without such a request pauses nothing.
func (t *throttle) busy(o outcome, now time.Time) (pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busyInARow++
	switch {
	case o.retryAfter > 0:
		pause = min(o.retryAfter, t.retryAfterCap)
	case o.pause:
		pause = delay(t.busyInARow - 1)
	case t.busyInARow > 1:
		pause = min(delay(t.busyInARow-2), time.Minute)
	}
	t.pauseLocked(now.Add(pause))
	return pause
}

// answered ends the count of busy answers in a row.
func (t *throttle) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busyInARow = 0
}

// failed keeps the last error of a request for the message of an outage.
func (t *throttle) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastErr = err
}

// outage returns the error of a run that ends after streak uncertain batches.
func (t *throttle) outage(streak int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.lastErr
	if err == nil {
		err = errors.New("the answers to earlier uploads were lost")
	}
	return &OutageError{Streak: streak, Err: err}
}

// patienceExceeded reports whether no request can begin before the run's patience ends.
func (t *throttle) patienceExceeded(patienceEnds time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	return t.pausedUntil.After(now) && t.pausedUntil.After(patienceEnds) || t.busyInARow >= maxBusy && now.After(patienceEnds)
}
