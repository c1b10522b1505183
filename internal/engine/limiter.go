package engine

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A Limiter keeps the requests to an account below a rate. Processes that share a state share the rate.
type Limiter struct {
	local  *rate.Limiter // nil for no limit
	shared atomic.Pointer[sharedRate]
}

// A sharedRate is the rate of an account in a shared state.
type sharedRate struct {
	journal  *state.Journal
	account  string
	interval time.Duration
	burst    int
}

// NewLimiter returns a limiter of so many requests a second; 0 for no limit.
func NewLimiter(perSecond float64) *Limiter {
	if perSecond <= 0 {
		return &Limiter{}
	}
	return &Limiter{local: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))}
}

// Share shares the rate of the account with all processes that use the state. It does nothing if the state is not shared. A nil
// limiter limits nothing.
func (l *Limiter) Share(store *state.Store, account string) {
	if l == nil || l.local == nil || !store.Shared() {
		return
	}
	interval := time.Duration(float64(time.Second) / float64(l.local.Limit()))
	if interval < time.Millisecond {
		return // the state counts milliseconds
	}
	l.shared.Store(&sharedRate{store.Journal, account, interval, l.local.Burst()})
}

// Wait waits until the next request may be sent. It implements replycx.Limiter.
func (l *Limiter) Wait(ctx context.Context) error {
	if l.local == nil {
		return nil
	}
	s := l.shared.Load()
	if s == nil {
		return l.local.Wait(ctx)
	}
	wait, err := s.journal.Turn(ctx, s.account, s.interval, s.burst)
	if err != nil {
		return err
	}
	return retry.Sleep(ctx, wait)
}
