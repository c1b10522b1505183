package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A batch is the documents of one request to be.
type batch struct {
	docs     []*document
	bytes    int64 // of contents
	resendOf int64 // the uncertain batch that they were in; 0 for none
	probe    bool
}

// with returns a batch of the same kind that holds docs alone.
func (b *batch) with(docs []*document) *batch {
	out := &batch{docs: docs, resendOf: b.resendOf, probe: b.probe}
	for _, d := range docs {
		out.bytes += d.Fingerprint.Size
	}
	return out
}

// halves splits a batch of two or more.
func (b *batch) halves() []*batch {
	middle := len(b.docs) / 2
	return []*batch{b.with(b.docs[:middle:middle]), b.with(b.docs[middle:])}
}

var (
	// errInterrupted says that no request may begin now.
	errInterrupted = errors.New("uploads are interrupted")
	// errAbandoned ends a request before it is sealed.
	errAbandoned = errors.New("given up before it was sealed")
)

// A request is a batch on its way.
type request struct {
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

// abandon gives the request up unless its sealing has begun.
func (q *request) abandon(cause error) {
	if q.phase.CompareAndSwap(phaseOpen, phaseAbandoned) {
		q.cancel(cause)
	}
}

// process sends a batch and what comes of it, until each of its documents is settled
// or given back.
func (r *run) process(ctx context.Context, b *batch) {
	defer r.ended()
	todo := []*batch{b}
	for len(todo) > 0 {
		next, err := r.attempt(ctx, todo[0])
		todo = append(next, todo[1:]...)
		if err == nil {
			continue
		}
		if !errors.Is(err, errInterrupted) {
			r.stop(err, true)
		}
		for _, b := range todo {
			if err := r.release(ctx, b.docs, time.Time{}); err != nil {
				r.stop(err, true)
			}
		}
		return
	}
}

// attempt sends one request and settles what came of it. It returns the batches that
// are to go on. With an error every document of b is settled, given back or among
// those; it says why nothing else may be sent, errInterrupted that something else
// said so.
func (r *run) attempt(ctx context.Context, b *batch) (next []*batch, err error) {
	if len(b.docs) == 0 {
		return nil, nil
	}
	if len(b.docs) > 1 && r.tooLarge(b) {
		return b.halves(), nil // composed before the limit was known
	}
	free, err := r.slot(ctx, b)
	if err != nil {
		return []*batch{b}, err
	}
	defer free()
	if err := r.admit(ctx, b); err != nil {
		return []*batch{b}, err
	}
	id, err := r.in.journal.Begin(ctx, state.BatchSpec{
		SyncID:   r.in.sync.ID,
		ResendOf: b.resendOf,
		Probe:    b.probe,
		Members:  bare(b.docs),
		Bytes:    b.bytes,
		Sharing:  r.in.opts.Sharing,
	})
	if errors.Is(err, state.ErrBreakerOpen) {
		r.halt()
		return []*batch{b}, errInterrupted
	}
	if err != nil {
		return []*batch{b}, fmt.Errorf("write the journal: %w", err)
	}
	started := time.Now()
	parts := r.parts(b)
	q, result, err := r.upload(ctx, id, b, parts)
	r.in.opts.Logger.Debug("upload", "sync", r.in.sync.Name, "batch", id, "documents", len(b.docs), "bytes", b.bytes, "duration", time.Since(started), "error", err)
	sealed := q.phase.Load() == phaseSealed
	tell := func(end End, status int) {
		if r.in.opts.Progress.Request != nil {
			r.in.opts.Progress.Request(Request{End: end, StatusCode: status, Took: time.Since(started), Retry: b.resendOf != 0 || attempts(b.docs) > 0})
		}
	}
	if err == nil {
		if doubt := r.doubt(result); doubt != "" {
			tell(Uncertain, http.StatusOK)
			return nil, r.lost(ctx, id, b, http.StatusOK, doubt)
		}
		// The next request need not wait until this answer is on the disk.
		free()
		tell(Accepted, http.StatusOK)
		return nil, r.accept(ctx, id, b, parts, result)
	}
	_, unsent := errors.AsType[*replycx.UnsentError](err)
	complete := sealed && !unsent
	apiErr, answered := errors.AsType[*replycx.Error](err)
	if answered {
		r.remember(apiErr)
		j := judge(err, complete)
		switch {
		case j.outcome == outcomeUncertain:
			tell(Uncertain, j.status)
		case sealed:
			tell(Refused, j.status)
		default:
			tell(Abandoned, j.status)
		}
		return r.settle(ctx, id, b, j, err)
	}
	if complete {
		tell(Uncertain, 0)
	} else {
		tell(Abandoned, 0)
	}
	if ctx.Err() != nil {
		// Cut: what the journal says of the batch is what its next reader decides on. Only
		// that a sealed one was not sent is known here alone.
		if sealed && !complete {
			_ = r.in.journal.Refuse(context.WithoutCancel(ctx), id, state.Refusal{Message: err.Error(), Disposition: state.Requeue})
		}
		return nil, context.Cause(ctx)
	}
	if complete {
		r.remember(err)
		return r.settle(ctx, id, b, judge(err, true), err)
	}
	return r.unsealed(ctx, id, b, q, err)
}

// slot waits for one of the transfers to be free; free gives it back.
func (r *run) slot(ctx context.Context, b *batch) (free func(), err error) {
	r.mu.Lock()
	interrupt := r.interrupt
	r.mu.Unlock()
	if b.probe {
		interrupt = r.stopped
	}
	select {
	case r.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-r.slots }), nil
	case <-interrupt:
		return nil, errInterrupted
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tooLarge says whether a request of that size was refused as too large.
func (r *run) tooLarge(b *batch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.smallest > 0 && b.bytes >= r.smallest
}

// remember keeps the last failure, for the message of an outage.
func (r *run) remember(err error) {
	r.mu.Lock()
	r.lastErr = err
	r.mu.Unlock()
}

// admit waits until a request may begin.
func (r *run) admit(ctx context.Context, b *batch) error {
	for {
		r.mu.Lock()
		interrupted := r.cause != nil || r.broken && !b.probe
		wait, interrupt := time.Until(r.heldUntil), r.interrupt
		if b.probe {
			interrupt = r.stopped
		}
		limit := r.in.opts.MaxTransfer
		over := limit > 0 && r.transfer+b.bytes > limit
		if !interrupted && wait <= 0 && !over {
			r.transfer += b.bytes
			r.result.Requests++
		}
		r.mu.Unlock()
		switch {
		case interrupted:
			return errInterrupted
		case over:
			r.stop(&BudgetError{Limit: "max-transfer"}, false)
			return errInterrupted
		case wait <= 0:
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-interrupt:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// upload makes the request.
func (r *run) upload(ctx context.Context, id int64, b *batch, parts []replycx.Part) (*request, *replycx.UploadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := &request{cancel: cancel}
	r.mu.Lock()
	r.requests[q] = struct{}{}
	r.mu.Unlock()
	if r.mustNotSeal(b) {
		q.abandon(errAbandoned)
	}
	defer func() {
		r.mu.Lock()
		delete(r.requests, q)
		r.mu.Unlock()
	}()
	seal := func(ctx context.Context) error {
		if !q.phase.CompareAndSwap(phaseOpen, phaseSealing) {
			return errAbandoned
		}
		seals := make([]state.Seal, len(b.docs))
		for i, d := range b.docs {
			seals[i] = state.Seal{SHA256: d.sha, Size: d.Fingerprint.Size}
		}
		if err := r.in.journal.Seal(ctx, id, seals); err != nil {
			if _, refused := errors.AsType[*state.SealError](err); refused || ctx.Err() == nil {
				q.sealErr = err // otherwise the request's end is what ended it
			}
			return err
		}
		q.phase.Store(phaseSealed)
		if r.mustNotSeal(b) {
			return errAbandoned // the last byte is still ours
		}
		return nil
	}
	result, err := r.in.api.UploadSources(ctx, r.in.sync.Destination.KnowledgeBase, parts, &replycx.UploadOptions{Seal: seal})
	return q, result, err
}

func isBudget(err error) bool {
	_, ok := errors.AsType[*BudgetError](err)
	return ok
}

// mustNotSeal says whether a shutdown has begun, or the breaker has opened, since a
// request began.
func (r *run) mustNotSeal(b *batch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause != nil && !errors.Is(r.cause, errHeld) && !isBudget(r.cause) || r.broken && !b.probe
}

// parts are the form fields of a batch: d1, d2, and so on, or a text's name, if that is
// unique.
func (r *run) parts(b *batch) []replycx.Part {
	parts := make([]replycx.Part, len(b.docs))
	var taken map[string]bool
	if r.in.opts.SendText {
		taken = make(map[string]bool)
	}
	for i, d := range b.docs {
		name := SourceName(d.Key, r.in.opts.Names)
		parts[i] = replycx.Part{
			Field:    "d" + strconv.Itoa(i+1),
			Filename: name,
			Size:     d.Fingerprint.Size,
			Open:     func(ctx context.Context) (io.ReadCloser, error) { return r.reader(ctx, d) },
		}
		if r.in.opts.SendText && textFormat(d.Key) && usableField(name) && !taken[name] {
			// A text has no file name: its field is all that names it.
			taken[name] = true
			parts[i].Field, parts[i].Filename = name, ""
		}
	}
	return parts
}

// doubt says why an answer of success is not to be believed; empty if it is.
func (r *run) doubt(result *replycx.UploadResult) string {
	want := r.in.sync.Destination.KnowledgeBase
	if result.KnowledgeBaseID != 0 && result.KnowledgeBaseID != want {
		return fmt.Sprintf("the answer is for knowledge base %d", result.KnowledgeBaseID)
	}
	if len(result.Sources) == 0 {
		return "the answer names no source"
	}
	return ""
}

// accept records an answer.
func (r *run) accept(ctx context.Context, id int64, b *batch, parts []replycx.Part, result *replycx.UploadResult) error {
	answer := state.Answer{
		StatusCode: http.StatusOK,
		Sources:    make([][]state.SourceAnswer, len(b.docs)),
		NextPoll:   time.Now().Add(r.in.opts.PollAfter),
	}
	missing, bytes := 0, int64(0)
	for i, part := range parts {
		sources := result.Sources[part.Field]
		if len(sources) == 0 {
			missing++
			continue
		}
		bytes += part.Size
		answer.Sources[i] = make([]state.SourceAnswer, len(sources))
		for j, s := range sources {
			answer.Sources[i][j] = sourceAnswer(s)
		}
		delete(result.Sources, part.Field)
	}
	for _, sources := range result.Sources {
		for _, s := range sources {
			answer.Unasked = append(answer.Unasked, sourceAnswer(s))
		}
	}
	slices.SortFunc(answer.Unasked, func(a, b state.SourceAnswer) int { return cmp.Compare(a.ID, b.ID) })
	if err := r.record(ctx, "an accepted upload", true, func(ctx context.Context) error {
		_, err := r.in.journal.Accept(ctx, id, answer)
		return err
	}); err != nil {
		return err
	}
	accepted := len(b.docs) - missing
	r.mu.Lock()
	r.result.Uploaded += accepted
	r.result.Uncertain += missing
	r.result.Bytes += bytes
	if b.resendOf != 0 {
		r.result.Resent += accepted
	}
	r.busy, r.refusals = 0, nil
	r.largest = max(r.largest, b.bytes)
	r.mu.Unlock()
	if missing > 0 {
		r.defers("the answer did not name every document")
	}
	r.leave(b.docs...)
	r.done(accepted, bytes)
	return nil
}

func sourceAnswer(s replycx.Source) state.SourceAnswer {
	out := state.SourceAnswer{ID: s.ID, Type: s.Type, Name: s.Name, Status: string(s.Status), Errors: s.Errors}
	switch {
	case s.Errors != "", s.Status.Is(replycx.StatusFailed):
		out.Outcome = state.TrainingFailed
	case s.Status.Is(replycx.StatusCompleted):
		out.Outcome = state.TrainingCompleted
	}
	return out
}

// lost records that the answer of a sealed batch is not known.
func (r *run) lost(ctx context.Context, id int64, b *batch, status int, reason string) error {
	var streak int
	err := r.record(ctx, "a lost answer", false, func(ctx context.Context) (err error) {
		streak, err = r.in.store.Journal.MarkUncertain(ctx, id, status, reason)
		return err
	})
	if err != nil {
		return err
	}
	r.in.opts.Logger.Warn("the answer to an upload was lost; nothing is uploaded until one goes through",
		"sync", r.in.sync.Name, "batch", id, "documents", len(b.docs), "in_a_row", streak, "reason", reason)
	r.mu.Lock()
	r.result.Uncertain += len(b.docs)
	r.progress = time.Now()
	r.mu.Unlock()
	r.defers(reason)
	r.halt()
	r.leave(b.docs...)
	return nil
}

// settle records what an answer, or its loss, means for a batch.
func (r *run) settle(ctx context.Context, id int64, b *batch, j judgement, cause error) ([]*batch, error) {
	switch j.outcome {
	case outcomeUncertain:
		return nil, r.lost(ctx, id, b, j.status, j.message)
	case outcomeFatal:
		fatal := &FatalError{Err: cause}
		r.stop(fatal, true)
		return nil, errors.Join(fatal, r.refuse(ctx, id, b, j, state.Requeue, time.Time{}))
	case outcomeRefused:
		return r.refused(ctx, id, b, j, cause)
	}
	return nil, r.later(ctx, id, b, j)
}

// refuse ends a batch that left nothing behind. Its documents leave, unless they are
// kept.
func (r *run) refuse(ctx context.Context, id int64, b *batch, j judgement, to state.Disposition, nextAttempt time.Time) error {
	err := r.record(ctx, "a refused upload", false, func(ctx context.Context) error {
		return r.in.journal.Refuse(ctx, id, state.Refusal{StatusCode: j.status, Code: j.code, Message: j.message, Disposition: to, NextAttempt: nextAttempt})
	})
	if to != state.Keep || err != nil {
		r.leave(b.docs...)
	}
	return err
}

// later gives the documents of a batch back, to be sent when the API may be well again.
func (r *run) later(ctx context.Context, id int64, b *batch, j judgement) error {
	now := time.Now()
	wait := delay(attempts(b.docs))
	r.mu.Lock()
	r.busy++
	hold := time.Duration(0)
	switch {
	case j.retryAfter > 0:
		hold = min(j.retryAfter, r.in.opts.RetryAfterCap)
	case j.pause:
		hold = delay(r.busy - 1)
	case r.busy > 1:
		// One failure is bad luck. With more, all workers go easy, each a little.
		hold = min(delay(r.busy-2), time.Minute)
	}
	until := now.Add(hold)
	if until.After(r.heldUntil) {
		r.heldUntil = until
	}
	r.mu.Unlock()
	r.defers(j.message)
	err := r.refuse(ctx, id, b, j, state.Retry, now.Add(max(wait, hold)))
	if r.hopeless() {
		r.stop(errHeld, false) // the planner may be waiting for a worker, and they for the API
	}
	if err == nil && j.pause {
		if err = r.in.store.Journal.Pause(ctx, r.in.sync.Destination.ID, until); err != nil {
			err = fmt.Errorf("pause uploads: %w", err)
		}
	}
	return err
}

// quotaAfter is how many documents refused one after the other are no longer to blame.
const quotaAfter = 10

// refused goes on with a batch that was refused for what it holds: in halves, until the
// document at fault stands alone.
func (r *run) refused(ctx context.Context, id int64, b *batch, j judgement, cause error) ([]*batch, error) {
	r.mu.Lock()
	r.busy = 0 // the API answers
	if j.status == http.StatusRequestEntityTooLarge && (r.smallest == 0 || b.bytes < r.smallest) {
		r.smallest = b.bytes
	}
	r.mu.Unlock()
	if len(b.docs) > 1 && !r.in.opts.HoldRefused {
		if err := r.refuse(ctx, id, b, j, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		return b.halves(), nil
	}
	series, stopped := r.series(b, j)
	if stopped {
		return nil, r.refuse(ctx, id, b, j, state.Requeue, time.Time{})
	}
	if err := r.refuse(ctx, id, b, j, state.Fail, time.Time{}); err != nil {
		return nil, err
	}
	if len(series) == quotaAfter {
		r.mu.Lock()
		r.result.Failed -= len(series)
		r.result.Failures = r.result.Failures[:min(r.result.Failed, len(r.result.Failures))]
		r.mu.Unlock()
		r.defers(j.message)
		quota := &QuotaError{Documents: len(series), Code: j.reasonCode(), Err: cause}
		if err := r.in.store.Queue.Reopen(ctx, series); err != nil {
			return nil, errors.Join(quota, fmt.Errorf("make documents pending again: %w", err))
		}
		return nil, quota
	}
	r.done(len(b.docs), b.bytes)
	return nil, nil
}

// series counts documents refused alone with one code, none accepted between, and
// returns them. A 413 of what is larger than anything that was accepted tells of that
// document alone. stopped says that the series has stopped the run already.
func (r *run) series(b *batch, j judgement) (series []int64, stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refusals) >= quotaAfter {
		return nil, true
	}
	r.result.Failed += len(b.docs)
	for _, d := range b.docs {
		r.result.Failures = appendFailure(r.result.Failures, Failure{Key: d.Key, Code: j.code, Reason: j.message})
	}
	if len(b.docs) > 1 || j.status == http.StatusRequestEntityTooLarge && r.largest > 0 && b.bytes > r.largest {
		return nil, false
	}
	if code := j.reasonCode(); code != r.refusedFor {
		r.refusedFor, r.refusals = code, nil
	}
	r.refusals = append(r.refusals, b.docs[0].DocumentID)
	return slices.Clone(r.refusals), false
}

// unsealed goes on with a batch whose request was given up, or broke, before it was
// sealed, or after that but before its end went out.
func (r *run) unsealed(ctx context.Context, id int64, b *batch, q *request, cause error) ([]*batch, error) {
	j := judgement{message: cause.Error()}
	if refusal, ok := errors.AsType[*state.SealError](q.sealErr); ok {
		if err := r.refuse(ctx, id, b, j, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		return r.withoutKnown(ctx, b, refusal)
	}
	switch {
	case errors.Is(q.sealErr, state.ErrBreakerOpen):
		r.halt()
		return nil, errors.Join(errInterrupted, r.refuse(ctx, id, b, j, state.Requeue, time.Time{}))
	case q.sealErr != nil:
		// What cannot be recorded is not sent.
		err := fmt.Errorf("seal: %w", q.sealErr)
		r.stop(err, true)
		return nil, errors.Join(err, r.refuse(ctx, id, b, j, state.Requeue, time.Time{}))
	case q.phase.Load() == phaseAbandoned, errors.Is(cause, errAbandoned):
		return nil, errors.Join(errInterrupted, r.refuse(ctx, id, b, j, state.Requeue, time.Time{}))
	}
	if part, ok := errors.AsType[*replycx.PartError](cause); ok && part.Index < len(b.docs) && !isContext(part.Err) {
		if err := r.refuse(ctx, id, b, j, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		rest := b.with(slices.Delete(slices.Clone(b.docs), part.Index, part.Index+1))
		return []*batch{rest}, r.unable(ctx, b.docs[part.Index], part.Err)
	}
	r.remember(cause)
	return nil, r.later(ctx, id, b, j)
}

// isContext says that reading was cut by the end of the request, which is not the
// document's fault.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, replycx.ErrStalled)
}

// withoutKnown goes on without the members that kept a batch from being sealed.
func (r *run) withoutKnown(ctx context.Context, b *batch, refusal *state.SealError) ([]*batch, error) {
	var rest, known, tired []*document
	for i, d := range b.docs {
		switch {
		case slices.Contains(refusal.Lost, i):
			r.leave(d)
		case !slices.Contains(refusal.Known, i):
			rest = append(rest, d)
		case d.ResendOf != 0, d.rounds >= maxRounds:
			tired = append(tired, d)
		default:
			d.rounds++
			known = append(known, d)
		}
	}
	next := []*batch{b.with(rest)}
	if len(known) > 0 {
		r.leave(known...)
		r.mu.Lock()
		r.back = append(r.back, known...)
		r.mu.Unlock()
		r.signal()
	}
	return next, r.postpone(ctx, tired, "its content is known and then is not")
}

// record writes what an answer said, again and again if need be: an answer must not be
// lost. Unless always is set it gives up after the run's patience.
func (r *run) record(ctx context.Context, what string, always bool, write func(context.Context) error) error {
	const grace = 5 * time.Second
	detached := context.WithoutCancel(ctx)
	giveUp := time.Now().Add(r.in.opts.Patience)
	var cut time.Time
	for n := 0; ; n++ {
		err := write(detached)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("record %s: %w", what, err)
		if errors.Is(err, state.ErrBatchEnded) || errors.Is(err, state.ErrNotFound) {
			return err
		}
		r.in.opts.Logger.Error("the state cannot be written; trying again", "sync", r.in.sync.Name, "error", err)
		now := time.Now()
		if ctx.Err() != nil && cut.IsZero() {
			cut = now.Add(grace)
		}
		if !cut.IsZero() && now.After(cut) || !always && now.After(giveUp) {
			return err
		}
		pause := min(delay(n), 10*time.Second)
		if !cut.IsZero() {
			pause = min(pause, 500*time.Millisecond)
		}
		ended := ctx.Done()
		if !cut.IsZero() {
			ended = nil // noticed
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ended:
			timer.Stop()
		}
	}
}
