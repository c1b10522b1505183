package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// upload uploads what is due, whenever there is something.
func (k *keeper) upload(ctx context.Context) {
	fruitless := 0
	var notBefore time.Time
	for {
		wait, err := k.untilDue(ctx, notBefore)
		if err != nil && ctx.Err() == nil {
			k.trouble(ofUpload, err)
			notBefore = time.Now().Add(mostPause)
			continue
		}
		if wait > 0 {
			// Other processes mark documents and tell nobody: the queue is looked at now and then.
			timer := time.NewTimer(min(wait, lookEvery))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			case <-k.due:
			case <-k.again:
				notBefore, fruitless = time.Time{}, 0
			}
			timer.Stop()
			k.uploadTick.Load().tick()
			continue
		}
		if !k.gather(ctx) {
			return
		}
		before := k.streak(ctx)
		result, err := k.uploadOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		k.d.wake(k.destination.Load())
		k.changed.ring()
		if result.Changed+result.Vanished > 0 {
			k.look.ring()
		}
		if err != nil && exitCode(err) == exitOther {
			// A run that could not write what it knew has left claims and batches behind, and nobody works on them any more.
			if _, err := k.d.store.Journal.Recover(ctx, k.id.Load()); err != nil {
				k.log().Error("the state cannot be put in order", "error", err)
			}
		}
		if err == nil && result.Unreadable == 0 && result.Uncertain == 0 {
			k.trouble(ofUpload, nil)
		} else if err == nil {
			k.trouble(ofUpload, incomplete(result))
		} else {
			k.trouble(ofUpload, err)
		}
		if result.Uploaded+result.Shared+result.Failed > 0 {
			fruitless = 0
		} else {
			fruitless++
		}
		notBefore = time.Now().Add(afterUpload(err, fruitless, k.streak(ctx) > before))
	}
}

// lookEvery is how often the queue is looked at although nobody said that there is something in it.
const lookEvery = 2 * time.Second

// runPatience is how long a run waits for what becomes due: another run begins then, and this one can be told of.
const runPatience = 20 * time.Second

// afterUpload is how long uploads wait after a run. tried says that the run had one more lost answer.
func afterUpload(err error, fruitless int, tried bool) time.Duration {
	outage, isOutage := errors.AsType[*ingest.OutageError](err)
	switch {
	case err == nil && fruitless == 0:
		return 0
	case err == nil:
		return pause(fruitless, leastPause, mostPause)
	case isOutage && outage.Streak >= 3 && tried:
		return outagePause
	case halts(err) || is[*ingest.QuotaError](err):
		return fatalPause
	}
	return pause(fruitless+3, leastPause, fatalPause)
}

func incomplete(r ingest.Result) error {
	text := fmt.Sprintf("the answers for %s were lost", count(r.Uncertain, "document"))
	if r.Unreadable > 0 {
		text = count(r.Unreadable, "document") + " cannot be read"
		if len(r.Unread) > 0 {
			text += fmt.Sprintf(", such as %s: %s", quoted(r.Unread[0].Key), r.Unread[0].Reason)
		}
	}
	return &exitError{exitTemporary, errors.New(text)}
}

// streak is how many answers were lost in a row at the destination.
func (k *keeper) streak(ctx context.Context) int {
	n, _, err := k.d.store.Journal.Breaker(ctx, k.destination.Load())
	if err != nil {
		return 0
	}
	return n
}

// untilDue is how long nothing is to be uploaded, as far as is known now.
func (k *keeper) untilDue(ctx context.Context, notBefore time.Time) (time.Duration, error) {
	now := time.Now()
	if now.Before(notBefore) {
		return notBefore.Sub(now), nil
	}
	if k.gate.IsShut() {
		return tickEvery, nil // whoever opens it gives due
	}
	resendAfter := time.Minute
	if k.config.OnUncertain == config.Hold {
		resendAfter = -1
	}
	due, err := k.d.store.Queue.NextDue(ctx, k.id.Load(), resendAfter)
	switch {
	case err != nil:
		return 0, err
	case due.IsZero():
		return tickEvery, nil
	}
	return max(due.Sub(now), 0), nil
}

// gather waits until a batch is full, or was waited for long enough.
func (k *keeper) gather(ctx context.Context) bool {
	deadline := time.Now().Add(k.config.Batch.Wait)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return ctx.Err() == nil
		}
		waiting, err := k.d.store.Documents.Outstanding(ctx, k.id.Load())
		if err != nil || waiting[state.Pending] >= k.config.Batch.Documents {
			return ctx.Err() == nil
		}
		if !rest(ctx, min(left, tickEvery), k.due) {
			return false
		}
		k.uploadTick.Load().tick()
	}
}

// uploadOnce uploads until nothing is due. When ctx ends, the answers of what is sent are waited for within the grace.
func (k *keeper) uploadOnce(ctx context.Context) (ingest.Result, error) {
	k.uploading.Store(true)
	defer k.uploading.Store(false)
	hard, cut := (&signals{soft: ctx, hard: k.d.app.signals.hard}).graceful(k.cfg.ShutdownGrace)
	defer cut()
	options := ingestOptions(k.cfg, k.config)
	// These bound a pass, which has an end.
	options.MaxTransfer, options.MaxDuration = 0, 0
	options.Patience = runPatience
	options.Logger = k.d.app.out.log
	options.Stop = ctx.Done()
	options.Gate = &k.gate
	wake := newBell()
	options.Wake = wake
	metrics := k.d.page.Metrics
	options.Progress = ingest.Progress{
		Sent: func(n int64) { metrics.BytesSent(k.config.Name, n) },
		Done: func(int, int64) { k.d.wake(k.destination.Load()) },
		Request: func(r ingest.Request) {
			ends := map[ingest.End]state.BatchState{
				ingest.Accepted: state.BatchAccepted, ingest.Refused: state.BatchRefused, ingest.Abandoned: state.BatchAbandoned, ingest.Uncertain: state.BatchUncertain,
			}
			metrics.BatchEnded(k.config.Name, ends[r.End])
			metrics.UploadRequest(k.config.Name, r.StatusCode, r.Took)
			if r.Retry {
				metrics.Retried(k.config.Name)
			}
		},
	}
	ended, stop := context.WithCancel(ctx)
	var helper sync.WaitGroup
	helper.Go(func() {
		for ended.Err() == nil {
			// The requests have limits of their own, and may be long.
			k.uploadTick.Load().tick()
			timer := time.NewTimer(tickEvery)
			select {
			case <-ended.Done():
			case <-timer.C:
			case <-k.due:
				if k.gather(ended) {
					wake.ring()
				}
			}
			timer.Stop()
		}
	})
	result, err := ingest.New(k.d.store, k.pass.api.client, k.root, k.pass.sync, options).Run(hard)
	stop()
	helper.Wait()
	if result.Uploaded+result.Shared+result.Failed > 0 {
		k.log().Info("uploaded", "documents", result.Uploaded, "shared", result.Shared, "bytes", result.Bytes, "requests", result.Requests, "failed", result.Failed)
	}
	return result, err
}
