package tracker

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// spread is how much longer than its bound a pause may be, by chance, so that runs that
// began together do not ask together for ever. It is never shorter: a pause that is
// costs requests.
const spread = 0.2

// pollDelay is the pause after so many questions, or failures: least after none, doubled
// from one to the next up to most, and longer by up to a fifth for random in [0, 1).
func pollDelay(polls int, least, most time.Duration, random float64) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval: least,
		Multiplier:      2,
		MaxInterval:     most,
		Clock:           backoff.SystemClock,
	}
	b.Reset()
	pause := least
	for range min(max(polls, 0), 32) + 1 {
		pause = b.NextBackOff()
	}
	return pause + time.Duration(random*spread*float64(pause))
}
