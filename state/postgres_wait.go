package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errUnanswered is the cause of a context whose time limit has passed.
var errUnanswered = errors.New("the database does not answer; check the server and the network")

// limited is a context that ends with errUnanswered after the limit.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, errUnanswered)
}

// unanswered names the cause of err if the time limit of ctx has passed. The result is no context error: the caller of a
// transaction did not end it.
func unanswered(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, errUnanswered) {
		return fmt.Errorf("%w (%s)", cause, err.Error()) // not wrapped
	}
	return err
}

// A patience is the context of a transaction. It ends when no statement has begun for its limit, and not with the context
// of the transaction's caller. So a database that cannot be reached holds a caller for a limited time, and a long import
// may go on.
type patience struct {
	context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func newPatience(ctx context.Context, limit time.Duration) *patience {
	p := &patience{limit: limit}
	p.Context, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	p.timer = time.AfterFunc(limit, func() { p.cancel(errUnanswered) })
	return p
}

// renew begins the limit again.
func (p *patience) renew() { p.timer.Reset(p.limit) }

func (p *patience) end() {
	p.timer.Stop()
	p.cancel(nil)
}
