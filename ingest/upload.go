package ingest

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// An uploader sends batches and records their outcomes. All workers of a run share one.
type uploader struct {
	*run
	api     API
	journal journal
	breaker breaker
	opener  *opener
	slots   chan struct{} // one for each transfer
}

func newUploader(in *Ingest, r *run) *uploader {
	return &uploader{
		run:     r,
		api:     in.api,
		journal: in.journal,
		breaker: in.breaker,
		opener:  newOpener(in.root, in.opts),
		slots:   make(chan struct{}, in.opts.Transfers),
	}
}

// process sends a batch, and the batches that follow from it, until each document has an outcome or was given back.
func (u *uploader) process(ctx context.Context, b *batch) {
	defer u.inFlight.endBatch()
	todo := []*batch{b}
	for len(todo) > 0 {
		next, err := u.attempt(ctx, todo[0])
		todo = append(next, todo[1:]...)
		if err == nil {
			continue
		}
		if !errors.Is(err, errInterrupted) {
			u.stop(err, true)
		}
		for _, b := range todo {
			if err := u.release(ctx, b.docs, time.Time{}); err != nil {
				u.inFlight.resolveAgain(b.docs...) // the planner gives them back at the end of the run
				u.stop(err, true)
			}
		}
		return
	}
}

// attempt sends one request and records its outcome. It returns the batches to go on with. With an error, each document of
// b has an outcome, was given back, or is in one of those batches, and nothing else may be sent: errInterrupted if the
// throttle holds the reason, any other error is the reason.
func (u *uploader) attempt(ctx context.Context, b *batch) (next []*batch, err error) {
	if len(b.docs) == 0 {
		return nil, nil
	}
	if len(b.docs) > 1 && !b.trial && u.limits.tooLarge(b.bytes) {
		return b.halves(), nil // the planner made it before the limit was known
	}
	free, err := u.slot(ctx, b.probe)
	if err != nil {
		return []*batch{b}, err
	}
	defer free()
	if err := u.admit(ctx, b); err != nil {
		return []*batch{b}, err
	}
	upload, err := u.begin(ctx, b)
	if err != nil {
		return []*batch{b}, err
	}
	q := &request{upload: upload, batch: b, started: time.Now()}
	parts := u.opener.parts(b, u.opts)
	result, err := u.send(ctx, q, parts)
	q.took = time.Since(q.started)
	u.opts.Logger.Debug("upload", "sync", u.sync.Name, "batch", upload.ID(), "documents", len(b.docs), "bytes", b.bytes,
		"duration", q.took, "error", err)
	if err == nil && q.phase.Load() != phaseSealed {
		err = errAnsweredEarly
	}
	if err != nil {
		return u.failed(ctx, q, err)
	}
	if len(result.Sources) == 0 {
		u.report.requestEnded(q, Uncertain, http.StatusOK)
		return nil, u.recordUncertain(ctx, q, http.StatusOK, "the answer names no source")
	}
	u.refusals.reset() // before a refusal of the next request is counted
	free()             // the next request need not wait until this answer is on the disk
	return nil, u.recordAccepted(ctx, q, parts, result)
}

// slot waits for a free transfer. free gives the slot back; it may be called twice.
func (u *uploader) slot(ctx context.Context, probe bool) (free func(), err error) {
	select {
	case u.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-u.slots }), nil
	case <-u.throttle.interrupted(probe):
		return nil, errInterrupted
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// admit waits until the throttle admits the batch. A spent budget stops the run.
func (u *uploader) admit(ctx context.Context, b *batch) error {
	err := u.throttle.admit(ctx, b.bytes, b.probe)
	if budget, ok := errors.AsType[*BudgetError](err); ok {
		u.stop(budget, false)
		return errInterrupted
	}
	if err == nil {
		u.report.update(func(res *Result) { res.Requests++ })
	}
	return err
}

// begin begins the batch in the journal.
func (u *uploader) begin(ctx context.Context, b *batch) (*state.Upload, error) {
	upload, err := u.journal.Begin(ctx, state.BatchSpec{
		SyncID:   u.sync.ID,
		ResendOf: b.resendOf,
		Probe:    b.probe,
		Members:  unwrap(b.docs),
		Bytes:    b.bytes,
		Sharing:  u.opts.Sharing,
	})
	if errors.Is(err, state.ErrBreakerOpen) {
		u.halt()
		return nil, errInterrupted
	}
	return upload, err
}

// send makes the request.
func (u *uploader) send(ctx context.Context, q *request, parts []replycx.Part) (*replycx.UploadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q.cancel = cancel
	u.inFlight.addRequest(q)
	defer u.inFlight.removeRequest(q)
	if u.throttle.forbidsSeal(q.batch.probe) {
		q.abandon(errAbandoned) // stop or halt came before the request was in the set
	}
	seal := func(ctx context.Context) error { return u.seal(ctx, q) }
	return u.api.UploadSources(ctx, u.sync.Destination.KnowledgeBase, parts, &replycx.UploadOptions{Seal: seal})
}

// seal seals the request in the journal before its last byte is sent.
func (u *uploader) seal(ctx context.Context, q *request) error {
	if !q.phase.CompareAndSwap(phaseOpen, phaseSealing) {
		return errAbandoned
	}
	seals := make([]state.Seal, len(q.batch.docs))
	for i, d := range q.batch.docs {
		seals[i] = state.Seal{SHA256: d.sha, Size: d.Fingerprint.Size, Core: d.core}
	}
	if err := u.journal.Seal(ctx, q.upload, seals); err != nil {
		if _, refused := errors.AsType[*state.SealError](err); refused || ctx.Err() == nil {
			q.sealErr = err // with a context that has ended, the end of the request is the cause
		}
		return err
	}
	q.phase.Store(phaseSealed)
	if u.throttle.forbidsSeal(q.batch.probe) {
		return errAbandoned // the last byte is not sent yet
	}
	return nil
}

// failed goes on after a request that was not accepted.
func (u *uploader) failed(ctx context.Context, q *request, cause error) ([]*batch, error) {
	sealed := q.phase.Load() == phaseSealed
	_, unsent := errors.AsType[*replycx.UnsentError](cause)
	complete := sealed && !unsent
	o := classify(cause, complete)
	u.report.requestEnded(q, endOf(o, cause, sealed), o.status)
	if apiErr, answered := errors.AsType[*replycx.Error](cause); answered {
		u.throttle.failed(apiErr)
		return u.recordOutcome(ctx, q, o, cause)
	}
	if ctx.Err() != nil {
		if complete {
			return nil, context.Cause(ctx) // Recover makes the sealed batch uncertain
		}
		// The row of a sealed batch must say that it was not sent, since only this process knows.
		return nil, u.giveUp(ctx, q, cause, context.Cause(ctx))
	}
	if complete {
		u.throttle.failed(cause)
		return u.recordOutcome(ctx, q, o, cause)
	}
	return u.unsealed(ctx, q, cause)
}

// endOf returns the end of a request that was not accepted.
func endOf(o outcome, cause error, sealed bool) End {
	_, answered := errors.AsType[*replycx.Error](cause)
	switch {
	case o.kind == outcomeUncertain:
		return Uncertain
	case answered && sealed:
		return Refused
	}
	return Abandoned
}

// unsealed goes on after a request that ended before it was sealed, or after that but before its last byte.
func (u *uploader) unsealed(ctx context.Context, q *request, cause error) ([]*batch, error) {
	o := outcome{kind: outcomeBusy, message: cause.Error()}
	if refusal, ok := errors.AsType[*state.SealError](q.sealErr); ok {
		if err := u.refuse(ctx, q, o, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		return u.withoutKnown(ctx, q.batch, refusal)
	}
	switch {
	case errors.Is(q.sealErr, state.ErrBreakerOpen):
		u.halt()
		return nil, u.giveUp(ctx, q, cause, errInterrupted)
	case q.sealErr != nil:
		// A request that cannot be recorded is not sent.
		u.stop(q.sealErr, true)
		return nil, u.giveUp(ctx, q, cause, q.sealErr)
	case q.phase.Load() == phaseAbandoned, errors.Is(cause, errAbandoned):
		return nil, u.giveUp(ctx, q, cause, errInterrupted)
	}
	if part, ok := errors.AsType[*replycx.PartError](cause); ok && part.Index < len(q.batch.docs) && !isContext(part.Err) {
		if err := u.refuse(ctx, q, o, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		return []*batch{q.batch.without(part.Index)}, u.recordUnread(ctx, q.batch.docs[part.Index], part.Err)
	}
	u.throttle.failed(cause)
	return nil, u.recordBusy(ctx, q, o)
}

// giveUp ends a batch that was not sent, with its documents pending as before, and returns reason, why the run goes on no
// further. If the journal does not take the end, giveUp returns that error: it must stop the run, whatever the reason was.
func (u *uploader) giveUp(ctx context.Context, q *request, cause, reason error) error {
	o := outcome{kind: outcomeBusy, message: cause.Error()}
	if err := u.refuse(ctx, q, o, state.Requeue, time.Time{}); err != nil {
		return err
	}
	return reason
}

// isContext reports whether the end of the request ended the reading. Then the document is not to blame.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, replycx.ErrStalled)
}

// withoutKnown goes on without the documents that kept a batch from being sealed.
func (u *uploader) withoutKnown(ctx context.Context, b *batch, refusal *state.SealError) ([]*batch, error) {
	lost, known := indexSet(refusal.Lost), indexSet(refusal.Known)
	var rest, again, exhausted []*document
	for i, d := range b.docs {
		switch {
		case lost[i]:
			u.inFlight.remove(d)
		case !known[i]:
			rest = append(rest, d)
		case d.ResendOf != 0, d.rounds >= maxRounds:
			exhausted = append(exhausted, d)
		default:
			d.rounds++
			again = append(again, d)
		}
	}
	if len(again) > 0 {
		u.inFlight.remove(again...)
		u.inFlight.resolveAgain(again...)
	}
	return []*batch{b.with(rest)}, u.retryLater(ctx, exhausted, "its content is known at the seal and unknown before it")
}

func indexSet(positions []int) map[int]bool {
	set := make(map[int]bool, len(positions))
	for _, i := range positions {
		set[i] = true
	}
	return set
}
