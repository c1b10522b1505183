package ingest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatienceIsExceededByALongPauseOrBusyAnswersInARow(t *testing.T) {
	const patience = time.Minute
	now := time.Now()
	for _, c := range []struct {
		name     string
		progress time.Duration // ago
		paused   time.Duration // from now on
		busy     int
		want     bool
	}{
		{name: "no failure", progress: time.Hour},
		{name: "paused for a while", progress: 10 * time.Second, paused: 20 * time.Second, busy: 1},
		{name: "paused for longer", progress: 10 * time.Second, paused: 55 * time.Second, busy: 1, want: true},
		{name: "was paused", progress: time.Hour, paused: -time.Second, busy: 1},
		{name: "two failures", progress: time.Hour, busy: 2},
		{name: "three failures", progress: time.Hour, busy: 3, want: true},
		{name: "three failures just now", progress: time.Second, busy: 3},
	} {
		throttle := newThrottle(Options{})
		throttle.pausedUntil, throttle.busyInARow = now.Add(c.paused), c.busy
		if got := throttle.patienceExceeded(now.Add(patience - c.progress)); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestAdmitWaitsForThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := newThrottle(Options{RetryAfterCap: time.Minute})
		start := time.Now()
		throttle.pause(start.Add(time.Hour)) // beyond the cap
		if err := throttle.admit(t.Context(), 1, false); err != nil || time.Since(start) != time.Minute {
			t.Fatalf("%v after %v, want a pause of the cap", err, time.Since(start))
		}
	})
}

func TestAdmitEndsWithTheRunTheBudgetAndTheContext(t *testing.T) {
	stopped := newThrottle(Options{})
	stopped.stop(ErrStopped)
	stopped.stop(errPatience)
	if err := stopped.admit(t.Context(), 1, false); !errors.Is(err, errInterrupted) || !errors.Is(stopped.stopCause(), ErrStopped) {
		t.Errorf("stopped: got %v, cause %v", err, stopped.stopCause())
	}

	limited := newThrottle(Options{MaxTransfer: 10})
	if err := limited.admit(t.Context(), 10, false); err != nil {
		t.Errorf("within the budget: %v", err)
	}
	if _, ok := errors.AsType[*BudgetError](limited.admit(t.Context(), 1, false)); !ok {
		t.Error("beyond the budget a request was admitted")
	}

	paused := newThrottle(Options{RetryAfterCap: time.Hour})
	paused.pause(time.Now().Add(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := paused.admit(ctx, 1, false); !errors.Is(err, context.Canceled) {
		t.Errorf("context ended: %v", err)
	}
}

func TestOpenBreakerAdmitsOnlyAProbe(t *testing.T) {
	throttle := newThrottle(Options{})
	throttle.openBreaker()
	if err := throttle.admit(t.Context(), 1, false); !errors.Is(err, errInterrupted) || !throttle.forbidsSeal(false) {
		t.Errorf("open: got %v", err)
	}
	if err := throttle.admit(t.Context(), 1, true); err != nil || throttle.forbidsSeal(true) {
		t.Errorf("open, a probe: got %v", err)
	}
	throttle.closeBreaker()
	if err := throttle.admit(t.Context(), 1, false); err != nil || throttle.forbidsSeal(false) {
		t.Errorf("closed: got %v", err)
	}
}

func TestOnlySomeCausesForbidTheSealOfABegunRequest(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  bool
	}{
		{ErrStopped, true}, {context.Canceled, true}, {&FatalError{Err: errInterrupted}, true},
		{errPatience, false}, {&BudgetError{Limit: "max-duration"}, false},
	} {
		throttle := newThrottle(Options{})
		throttle.stop(c.cause)
		if got := throttle.forbidsSeal(false); got != c.want {
			t.Errorf("%v: got %v", c.cause, got)
		}
	}
}

func TestBusyAnswersPauseAllWorkersFromTheSecondOn(t *testing.T) {
	throttle, now := newThrottle(Options{RetryAfterCap: time.Minute}), time.Now()
	if pause := throttle.busy(outcome{}, now); pause != 0 {
		t.Errorf("after one: %v", pause)
	}
	if pause := throttle.busy(outcome{}, now); pause < minDelay || pause > time.Second {
		t.Errorf("after two: %v", pause)
	}
	if pause := throttle.busy(outcome{retryAfter: time.Hour}, now); pause != time.Minute || !throttle.pauseEnds().Equal(now.Add(time.Minute)) {
		t.Errorf("with a Retry-After beyond the cap: %v", pause)
	}
	throttle.answered()
	if pause := throttle.busy(outcome{}, now); pause != 0 {
		t.Errorf("after an answer: %v", pause)
	}
}
