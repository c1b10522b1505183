package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDelayDoublesUpToItsBound(t *testing.T) {
	p := Policy{Min: time.Second, Max: 10 * time.Second}
	for failures, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		if got := p.Delay(failures, 0.9); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
	for _, failures := range []int{-1, 1 << 40} {
		if got := p.Delay(failures, 0); got < p.Min || got > p.Max {
			t.Errorf("after %d failures: %v is out of bounds", failures, got)
		}
	}
	if got := (Policy{Min: time.Minute, Max: time.Second}).Delay(0, 0); got != time.Second {
		t.Errorf("a minimum above the maximum gives %v, want the maximum", got)
	}
}

func TestJitterStaysInItsRange(t *testing.T) {
	for name, c := range map[string]struct {
		policy    Policy
		low, high time.Duration // after one failure
	}{
		"full":  {FullJitter(time.Second, time.Minute), 0, 2 * time.Second},
		"equal": {EqualJitter(time.Second, time.Minute), time.Second, 2 * time.Second},
		"added": {AddedJitter(time.Second, time.Minute), 2 * time.Second, 2400 * time.Millisecond},
	} {
		if got := c.policy.Delay(1, 0); got != c.low {
			t.Errorf("%s: the shortest delay is %v, want %v", name, got, c.low)
		}
		if got := c.policy.Delay(1, 0.999999); got < c.high-time.Millisecond || got > c.high {
			t.Errorf("%s: the longest delay is %v, want %v", name, got, c.high)
		}
	}
}

func TestSleepEndsWithItsTimeItsContextOrAWakeup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Sleep(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Fatalf("slept %v: %v", time.Since(began), err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := Sleep(ctx, time.Hour); !errors.Is(err, cause) {
			t.Fatalf("the cause is %v", err)
		}
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		if woken, err := SleepOrWake(t.Context(), time.Hour, wake); !woken || err != nil {
			t.Fatalf("woken %v: %v", woken, err)
		}
		if woken, err := SleepOrWake(t.Context(), time.Second, wake); woken || err != nil {
			t.Fatalf("woken %v: %v", woken, err)
		}
	})
}
