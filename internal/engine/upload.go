package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

const (
	// pollQueueEvery is how often the queue is read without a signal: other processes mark documents and signal nothing.
	pollQueueEvery = 2 * time.Second
	// pollSharedEvery is the same for a state that other processes fill.
	pollSharedEvery = time.Second
	// runPatience is how long a run of uploads waits for documents to become due. Another run begins then, and the loop can
	// report this one.
	runPatience = 20 * time.Second
	// outageDelay follows too many lost answers, because each upload that is tried may be in the knowledge base twice.
	outageDelay = time.Hour
	// outageStreak is how many answers lost in a row are too many.
	outageStreak = 3
)

// runUploads uploads the documents that are due until ctx ends.
func (l *loops) runUploads(ctx context.Context) {
	fruitless := 0 // runs in a row that uploaded nothing
	var queue queueReader
	var notBefore time.Time
	var renewal renewal
	for {
		wait, err := queue.wait(ctx, l, notBefore)
		if err != nil {
			return
		}
		if wait > 0 {
			retryNow, err := l.waitForDue(ctx, wait)
			if err != nil {
				return
			}
			if retryNow {
				queue, notBefore, fruitless = queueReader{}, time.Time{}, 0
			}
			continue
		}
		if !l.gather(ctx) {
			return
		}
		streak := l.streak(ctx)
		result, err := l.uploadDue(ctx)
		if ctx.Err() != nil {
			return
		}
		progressed := result.Progressed()
		if renewal.next(ctx, l.opts.API, err, progressed) {
			l.logger.Info("the API refused the token; going on with a new one")
			continue
		}
		l.afterRun(ctx, result, err)
		fruitless++
		if progressed {
			fruitless = 0
		}
		notBefore = l.opts.Now().Add(uploadDelay(err, fruitless, l.streak(ctx) > streak))
	}
}

// A queueReader reads when documents are due, and reads again after a failure, later each time.
type queueReader struct {
	failures int // in a row
	again    time.Time
}

// wait returns how long to wait before documents are due, at least until notBefore. It recovers what a failed run has left without waiting
// for that time, because other processes that share the state wait for it. The error is that of ctx.
func (q *queueReader) wait(ctx context.Context, l *loops, notBefore time.Time) (time.Duration, error) {
	now := l.opts.Now()
	wait := notBefore.Sub(now)
	if wait > 0 && !l.unfinished {
		return wait, nil
	}
	if pause := q.again.Sub(now); pause > 0 {
		return pause, nil
	}
	due, err := l.untilDue(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	l.setError(stageQueue, err)
	if err != nil {
		pause := backoff(q.failures)
		q.again = now.Add(pause)
		q.failures++
		return pause, nil
	}
	q.failures = 0
	return max(wait, due), nil
}

// waitForDue waits until documents may be due. It reports whether failed work is to be retried now. It returns the error of ctx.
func (l *loops) waitForDue(ctx context.Context, wait time.Duration) (retryNow bool, err error) {
	poll := pollQueueEvery
	if l.opts.Store.Shared() {
		poll = pollSharedEvery
	}
	timer := time.NewTimer(min(wait, poll))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
	case <-l.due:
	case <-l.retryNow:
		retryNow = true
	}
	l.uploadLiveness.Load().tick()
	return retryNow, nil
}

// afterRun reports a run of uploads to the other loops and the trackers.
func (l *loops) afterRun(ctx context.Context, result ingest.Result, err error) {
	l.host.trackers.wake(l.sync.Destination.ID)
	l.changed.signal()
	if result.Changed+result.Vanished > 0 {
		l.scanSoon.signal()
	}
	if err == nil {
		err = incomplete(result)
	}
	l.setError(stageUpload, err)
}

// uploadDelay returns how long to wait after a run. lostAnswer is set if the run lost another answer.
func uploadDelay(err error, fruitless int, lostAnswer bool) time.Duration {
	outage, isOutage := errors.AsType[*ingest.OutageError](err)
	switch {
	case err == nil && fruitless == 0:
		return 0
	case err == nil:
		return retry.Policy{Min: minDelay, Max: maxDelay}.Delay(fruitless-1, 0)
	case isOutage && outage.Streak >= outageStreak && lostAnswer:
		return outageDelay
	case Classify(err).NeedsPerson() || is[*ingest.QuotaError](err):
		return fatalDelay
	}
	return retry.Policy{Min: minDelay, Max: fatalDelay}.Delay(fruitless+2, 0)
}

// incomplete returns an error for the documents that a run left behind; nil for none.
func incomplete(r ingest.Result) error {
	if r.Unreadable == 0 && r.Uncertain == 0 {
		return nil
	}
	text := fmt.Sprintf("the answers for %s were lost", count(r.Uncertain, "document"))
	if r.Unreadable > 0 {
		text = count(r.Unreadable, "document") + " cannot be read"
		if len(r.Unread) > 0 {
			text += fmt.Sprintf(", such as %q: %s", r.Unread[0].Key, r.Unread[0].Reason)
		}
	}
	return WithClass(ClassTemporary, errors.New(text))
}

// streak returns how many answers were lost in a row at the destination.
func (l *loops) streak(ctx context.Context) int {
	n, _, err := l.opts.Store.Journal.Breaker(ctx, l.sync.Destination.ID)
	if err != nil {
		return 0
	}
	return n
}

// untilDue returns how long no document is due, as far as the state knows. It recovers first what a failed run has left: claimed
// documents are never due.
func (l *loops) untilDue(ctx context.Context) (time.Duration, error) {
	if l.unfinished {
		if err := l.recover(ctx); err != nil {
			return 0, err
		}
	}
	if l.gate.IsShut() {
		return livenessEvery, nil // the scan that opens it signals due
	}
	resendAfter := time.Minute
	if l.config.OnUncertain == config.Hold {
		resendAfter = -1
	}
	due, err := l.opts.Store.Queue.NextDue(ctx, l.sync.ID, resendAfter)
	switch {
	case err != nil:
		return 0, err
	case due.IsZero():
		return livenessEvery, nil
	}
	return max(due.Sub(l.opts.Now()), 0), nil
}

// gather waits until a batch is full, or has waited long enough. It returns false when ctx has ended.
func (l *loops) gather(ctx context.Context) bool {
	deadline := time.Now().Add(l.config.Batch.Wait)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return ctx.Err() == nil
		}
		documents, err := l.opts.Store.Documents.Outstanding(ctx, l.sync.ID)
		if err != nil || documents[state.Pending] >= l.config.Batch.Documents {
			return ctx.Err() == nil
		}
		if _, err := retry.SleepOrWake(ctx, min(left, livenessEvery), l.due); err != nil {
			return false
		}
		l.uploadLiveness.Load().tick()
	}
}

// uploadDue uploads until no document is due. When ctx ends, it waits for the answers to sealed requests: as long as they may take
// if the sync ends or is replaced, and within the grace if the process ends.
func (l *loops) uploadDue(ctx context.Context) (ingest.Result, error) {
	l.uploading.Store(true)
	defer l.uploading.Store(false)
	wake := newWakeup()
	options := ingestOptions(l.opts.Config, l.config)
	// These bound a pass, which has an end.
	options.MaxTransfer, options.MaxDuration = 0, 0
	options.Patience = runPatience
	owning, release, err := l.whileOwner(ctx)
	if err != nil {
		return ingest.Result{}, err
	}
	defer release()
	options.Stop = owning.Done()
	options.Gate = &l.gate
	options.Wake = wake
	options.Progress = l.uploadProgress()
	running, end := context.WithCancel(l.host.work)
	var helper sync.WaitGroup
	helper.Go(func() { l.accompany(running, wake) })
	result, err := l.upload(l.host.work, options)
	end()
	helper.Wait()
	if errors.Is(err, ingest.ErrStopped) && ctx.Err() == nil {
		err = state.ErrLeaseLost
	}
	if result.Progressed() {
		l.logger.Info("uploaded", "documents", result.Uploaded, "shared", result.Shared, "resaved", result.Resaved, "bytes", result.Bytes,
			"requests", result.Requests, "failed", result.Failed)
	}
	return result, err
}

// accompany wakes a run of uploads when further documents are due, and gives signs of life while its requests, which have limits
// of their own, may take long. It returns when running ends.
func (l *loops) accompany(running context.Context, wake wakeup) {
	for running.Err() == nil {
		l.uploadLiveness.Load().tick()
		woken, err := retry.SleepOrWake(running, livenessEvery, l.due)
		if err == nil && woken && l.gather(running) {
			wake.signal()
		}
	}
}

// uploadProgress returns the functions that count uploads in the metrics.
func (l *loops) uploadProgress() ingest.Progress {
	metrics, name := l.host.page.Metrics, l.config.Name
	return ingest.Progress{
		Sent: func(n int64) { metrics.BytesSent(name, n) },
		Done: func(int, int64) { l.host.trackers.wake(l.sync.Destination.ID) },
		Request: func(r ingest.Request) {
			metrics.BatchEnded(name, batchState(r.End))
			metrics.UploadRequest(name, r.StatusCode, r.Took)
			if r.Retry {
				metrics.Retried(name)
			}
		},
	}
}

// batchState returns the state of a batch that ended so.
func batchState(end ingest.End) state.BatchState {
	switch end {
	case ingest.Accepted:
		return state.BatchAccepted
	case ingest.Refused:
		return state.BatchRefused
	case ingest.Abandoned:
		return state.BatchAbandoned
	}
	return state.BatchUncertain
}
