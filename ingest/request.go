package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/state"
)

var (
	// errInterrupted is returned when no request may begin now, for a reason that the throttle holds.
	errInterrupted = errors.New("uploads are interrupted")
	// errAbandoned ends a request before it is sealed.
	errAbandoned = errors.New("abandoned before it was sealed")
	// errAnsweredEarly is the error of a request whose answer claims success before the request was sealed. The API cannot
	// have the whole request then.
	errAnsweredEarly = errors.New("the answer claims success before the whole request was sent")
)

// A request is a batch that is being sent.
type request struct {
	upload  *state.Upload
	batch   *batch
	started time.Time
	took    time.Duration // from the first byte to the answer
	phase   atomic.Int32
	cancel  context.CancelCauseFunc
	sealErr error
}

// The phases of a request. Sealing and abandoning exclude each other.
const (
	phaseOpen int32 = iota
	phaseSealing
	phaseSealed
	phaseAbandoned
)

// abandon cancels the request unless its sealing has begun.
func (q *request) abandon(cause error) {
	if q.phase.CompareAndSwap(phaseOpen, phaseAbandoned) {
		q.cancel(cause)
	}
}
