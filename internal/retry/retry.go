// Package retry computes the delay before the next attempt and waits for it. It makes no attempt itself: the caller's row
// or loop counts the failures.
//
// Policy.Delay is a pure function of the failures and a random number, so a test of a caller needs no clock.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// A Policy is an exponential backoff: the delay doubles with each failure from Min to Max, and is then multiplied by a
// random factor between Low and High. With both factors 0 the delay is not randomized.
type Policy struct {
	Min, Max  time.Duration
	Low, High float64
}

// FullJitter spreads each delay evenly between 0 and its bound. It suits attempts of many workers that failed together.
func FullJitter(least, most time.Duration) Policy {
	return Policy{Min: least, Max: most, Low: 0, High: 1}
}

// EqualJitter spreads each delay evenly between half of its bound and the bound. It suits attempts that are expensive.
func EqualJitter(least, most time.Duration) Policy {
	return Policy{Min: least, Max: most, Low: 0.5, High: 1}
}

// AddedJitter makes each delay up to a fifth longer than its bound, and never shorter. It suits polling, where a shorter
// delay costs a request.
func AddedJitter(least, most time.Duration) Policy {
	return Policy{Min: least, Max: most, Low: 1, High: 1.2}
}

// mostDoublings keeps the loop of Bound short. No caller has a Max of more than 2^32 times its Min.
const mostDoublings = 32

// Bound is the delay without the random factor: Min after no failure, doubled by each one, at most Max.
func (p Policy) Bound(failures int) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval: p.Min,
		Multiplier:      2,
		MaxInterval:     p.Max,
		Clock:           backoff.SystemClock,
	}
	b.Reset()
	bound := min(p.Min, p.Max)
	for range min(max(failures, 0), mostDoublings) + 1 {
		bound = b.NextBackOff()
	}
	return min(bound, p.Max)
}

// Delay is how long to wait after so many failures, for a random number in [0, 1).
func (p Policy) Delay(failures int, random float64) time.Duration {
	bound := p.Bound(failures)
	if p.Low == 0 && p.High == 0 {
		return bound
	}
	return time.Duration(float64(bound) * (p.Low + random*(p.High-p.Low)))
}

// Sleep waits for d. It returns the cause of the context's end if that comes first.
func Sleep(ctx context.Context, d time.Duration) error {
	_, err := SleepOrWake(ctx, d, nil)
	return err
}

// SleepOrWake waits for d or for a value on wake, whichever comes first; a closed wake counts as a value. woken is true
// when wake ended the wait. It returns the cause of the context's end if that comes first.
func SleepOrWake(ctx context.Context, d time.Duration, wake <-chan struct{}) (woken bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-wake:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
