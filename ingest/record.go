package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// recordAccepted records an answer of success. The state decides which of its members are accepted: an answer may name
// another knowledge base, or sources that belong to other documents.
func (u *uploader) recordAccepted(
	ctx context.Context, q *request, parts []replycx.Part, result *replycx.UploadResult,
) error {
	answer := answerOf(parts, result)
	answer.NextPoll = time.Now().Add(u.opts.PollAfter)
	var receipt state.Receipt
	err := u.persist(ctx, "an accepted upload", true, func(ctx context.Context) (err error) {
		receipt, err = u.journal.Accept(ctx, q.upload, answer)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range receipt.Conflicts {
		u.opts.Logger.Warn("the answer to an upload names a source that cannot belong to the document",
			"sync", u.sync.Name, "batch", q.upload.ID(), "source", c.SourceID, "reason", c.Reason)
	}
	if receipt.Streak > 0 {
		u.report.requestEnded(q, Uncertain, http.StatusOK)
		u.openBreaker(q, receipt.Streak, "the answer names no document with a source of its own")
		return nil
	}
	u.report.requestEnded(q, Accepted, http.StatusOK)
	missing := len(receipt.Uncertain)
	var bytes int64
	for i, part := range parts {
		if !slices.Contains(receipt.Uncertain, i) {
			bytes += part.Size
		}
	}
	accepted := len(q.batch.docs) - missing
	u.report.update(func(res *Result) {
		res.Uploaded += accepted
		res.Uncertain += missing
		res.Bytes += bytes
		if q.batch.resendOf != 0 {
			res.Resent += accepted
		}
	})
	u.throttle.answered()
	u.limits.accepted(q.batch.bytes)
	if missing > 0 {
		u.report.deferred("the answer does not give every document a source of its own")
	}
	u.inFlight.remove(q.batch.docs...)
	u.report.done(accepted, bytes)
	return nil
}

// answerOf returns the sources of an answer by position.
func answerOf(parts []replycx.Part, result *replycx.UploadResult) state.Answer {
	answer := state.Answer{
		StatusCode:    http.StatusOK,
		KnowledgeBase: result.KnowledgeBaseID,
		Sources:       make([][]state.SourceAnswer, len(parts)),
	}
	for i, part := range parts {
		for _, s := range result.Sources[part.Field] {
			answer.Sources[i] = append(answer.Sources[i], sourceAnswer(s))
		}
		if len(answer.Sources[i]) > 0 && slices.Contains(result.Missing, part.Field) {
			answer.Unreadable = append(answer.Unreadable, i)
		}
		delete(result.Sources, part.Field)
	}
	for _, sources := range result.Sources {
		for _, s := range sources {
			answer.Unasked = append(answer.Unasked, sourceAnswer(s))
		}
	}
	slices.SortFunc(answer.Unasked, func(a, b state.SourceAnswer) int { return cmp.Compare(a.ID, b.ID) })
	return answer
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

// recordOutcome records a failed upload that the API answered, or whose answer was lost.
func (u *uploader) recordOutcome(ctx context.Context, q *request, o outcome, cause error) ([]*batch, error) {
	switch o.kind {
	case outcomeUncertain:
		return nil, u.recordUncertain(ctx, q, o.status, o.message)
	case outcomeFatal:
		fatal := &FatalError{Err: cause}
		u.stop(fatal, true)
		if err := u.refuse(ctx, q, o, state.Requeue, time.Time{}); err != nil {
			return nil, err
		}
		return nil, fatal
	case outcomeRefused:
		return u.recordRefused(ctx, q, o, cause)
	}
	return nil, u.recordBusy(ctx, q, o)
}

// recordUncertain records that the answer to a sealed batch is unknown, and opens the breaker.
func (u *uploader) recordUncertain(ctx context.Context, q *request, status int, reason string) error {
	var streak int
	err := u.persist(ctx, "a lost answer", false, func(ctx context.Context) (err error) {
		streak, err = u.breaker.MarkUncertain(ctx, q.upload, status, reason)
		return err
	})
	if err != nil {
		return err
	}
	u.openBreaker(q, streak, reason)
	return nil
}

// openBreaker halts uploads after a batch of which every document is uncertain.
func (u *uploader) openBreaker(q *request, streak int, reason string) {
	u.opts.Logger.Warn("the answer to an upload was lost; uploads are halted until one is accepted",
		"sync", u.sync.Name, "batch", q.upload.ID(), "documents", len(q.batch.docs), "in_a_row", streak, "reason", reason)
	u.report.update(func(res *Result) { res.Uncertain += len(q.batch.docs) })
	u.report.progressed()
	u.report.deferred(reason)
	u.halt()
	u.inFlight.remove(q.batch.docs...)
}

// recordBusy gives the documents of a batch back until the API may accept them.
func (u *uploader) recordBusy(ctx context.Context, q *request, o outcome) error {
	now := time.Now()
	wait := delay(attempts(q.batch.docs))
	pause := u.throttle.busy(o, now)
	u.report.deferred(o.message)
	err := u.refuse(ctx, q, o, state.Retry, now.Add(max(wait, pause)))
	if u.patienceExceeded() {
		u.stop(errPatience, false) // the planner may wait for a worker, and the workers for the API
	}
	if err == nil && o.pause {
		err = u.breaker.Pause(ctx, u.sync.Destination.ID, now.Add(pause))
	}
	return err
}

// recordRefused goes on after a batch that the API refused for its contents: in halves, until the document at fault is
// alone.
func (u *uploader) recordRefused(ctx context.Context, q *request, o outcome, cause error) ([]*batch, error) {
	b := q.batch
	u.throttle.answered()
	if o.status == http.StatusRequestEntityTooLarge {
		u.limits.refused(b.bytes)
	}
	if len(b.docs) > 1 && !u.opts.HoldRefused {
		if err := u.refuse(ctx, q, o, state.Keep, time.Time{}); err != nil {
			return nil, err
		}
		return b.halves(), nil
	}
	row, stopped := u.countRefusal(b, o)
	if stopped {
		return nil, u.refuse(ctx, q, o, state.Requeue, time.Time{})
	}
	if err := u.refuse(ctx, q, o, state.Fail, time.Time{}); err != nil {
		return nil, err
	}
	if len(row) > 0 {
		return nil, u.recordQuota(ctx, row, o, cause)
	}
	u.report.done(len(b.docs), b.bytes)
	return nil, nil
}

// countRefusal reports a refused batch as failed and counts it among the refusals in a row. A 413 of a document that is
// larger than every accepted request is no sign of a quota. At a quota countRefusal returns the documents of the row;
// stopped is true if another worker has found the quota.
func (u *uploader) countRefusal(b *batch, o outcome) (row []*document, stopped bool) {
	if u.refusals.isQuota() {
		return nil, true
	}
	u.report.failed(b.docs, o)
	if len(b.docs) > 1 || o.status == http.StatusRequestEntityTooLarge && u.limits.aboveAccepted(b.bytes) {
		return nil, false
	}
	row, stopped = u.refusals.add(b.docs[0], o.reason())
	if stopped {
		u.report.unfailed(b.docs)
	}
	return row, stopped
}

// recordQuota makes documents pending again that a quota has failed.
func (u *uploader) recordQuota(ctx context.Context, row []*document, o outcome, cause error) error {
	u.report.unfailed(row)
	u.report.deferred(o.message)
	quota := &QuotaError{Documents: len(row), Code: o.reason(), Err: cause}
	ids := make([]int64, len(row))
	for i, d := range row {
		ids[i] = d.DocumentID
	}
	if err := u.queue.Reopen(ctx, ids); err != nil {
		return errors.Join(quota, err)
	}
	return quota
}

// refuse ends a batch that created no source. Its documents leave the in-flight set unless the caller keeps them.
func (u *uploader) refuse(ctx context.Context, q *request, o outcome, to state.Disposition, nextAttempt time.Time) error {
	refusal := state.Refusal{StatusCode: o.status, Code: o.code, Message: o.message, Disposition: to, NextAttempt: nextAttempt}
	err := u.persist(ctx, "a refused upload", false, func(ctx context.Context) error {
		return u.journal.Refuse(ctx, q.upload, refusal)
	})
	if to != state.Keep || err != nil {
		u.inFlight.remove(q.batch.docs...)
	}
	return err
}

const (
	// persistAfterCut is how long persist tries after the end of its context.
	persistAfterCut = 5 * time.Second
	// The longest pauses between two attempts of persist, before and after the end of its context.
	maxPersistPause         = 10 * time.Second
	maxPersistPauseAfterCut = 500 * time.Millisecond
)

// persist calls write until the state has the outcome of a request: an outcome must not be lost. Unless always is set,
// persist gives up after the run's patience.
func (u *uploader) persist(ctx context.Context, outcome string, always bool, write func(context.Context) error) error {
	detached := context.WithoutCancel(ctx)
	giveUp := time.Now().Add(u.opts.Patience)
	var cut time.Time // zero while ctx has not ended
	for n := 0; ; n++ {
		err := write(detached)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("record %s: %w", outcome, err)
		if errors.Is(err, state.ErrBatchEnded) || errors.Is(err, state.ErrNotFound) {
			return err
		}
		u.opts.Logger.Error("cannot write the state, trying again", "sync", u.sync.Name, "error", err)
		now := time.Now()
		if ctx.Err() != nil && cut.IsZero() {
			cut = now.Add(persistAfterCut)
		}
		if !cut.IsZero() && now.After(cut) || !always && now.After(giveUp) {
			return err
		}
		pause, ended := min(delay(n), maxPersistPause), ctx.Done()
		if !cut.IsZero() {
			pause, ended = min(pause, maxPersistPauseAfterCut), nil
		}
		_, _ = retry.SleepOrWake(detached, pause, ended) // detached never ends
	}
}
