package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// leadWait is how long one attempt to lead a sync waits for its leader to end.
const leadWait = 10 * time.Second

// share works on a sync whose state other processes share, until ctx ends. One process leads a sync: it scans the root and
// reports. The documents of a bucket are uploaded by every process, those of a directory by the leader, which has the files.
func (l *loops) share(ctx context.Context) {
	l.gate.Open() // the gate in the state is the one that counts
	var running sync.WaitGroup
	if l.config.Root.URL != "" {
		running.Go(func() { l.withUploadLiveness(func() { l.runUploads(ctx) }) })
	}
	if l.opts.UploadOnly {
		l.noteFirstScan()
	} else {
		running.Go(func() { l.lead(ctx) })
	}
	running.Wait()
	<-ctx.Done()
}

// lead leads the sync whenever no other process does, until ctx ends.
func (l *loops) lead(ctx context.Context) {
	failures := 0
	for wait := time.Duration(0); ctx.Err() == nil; wait = leadWait {
		lock, err := l.opts.Store.Lock(ctx, l.config.Name, wait)
		switch {
		case ctx.Err() != nil:
			if lock != nil {
				_ = lock.Unlock() // the lease ends with the process
			}
			return
		case errors.Is(err, state.ErrLocked):
			if wait == 0 {
				l.logger.Info("standing by: another process scans the root", "leader", err)
			}
			failures = 0
			l.noteFirstScan()
			continue
		case err != nil:
			l.setError(stageStart, err)
			l.noteFirstScan()
			delay := backoff(failures)
			failures++
			if _, err := retry.SleepOrWake(ctx, delay, l.retryNow); err != nil {
				return
			}
			continue
		}
		failures = 0
		l.setError(stageStart, nil)
		l.runTerm(ctx)
		if err := lock.Unlock(); err != nil && ctx.Err() == nil {
			l.logger.Debug("cannot give up the lease", "error", err)
		}
	}
}

// runTerm leads the sync until ctx ends or this process loses its lease.
func (l *loops) runTerm(ctx context.Context) {
	term, end, err := l.whileOwner(ctx)
	if err != nil {
		l.setError(stageStart, err)
		return
	}
	defer end()
	l.logger.Info("leading: this process scans the root")
	var running sync.WaitGroup
	running.Go(func() { l.withScanLiveness(func() { l.runScans(term) }) })
	running.Go(func() { l.runReports(term) })
	l.call(term, &running)
	if l.config.Root.URL == "" {
		running.Go(func() { l.withUploadLiveness(func() { l.runUploads(term) }) })
	}
	running.Wait()
	l.gate.Open() // a scan that ended with the term has left it shut
	if ctx.Err() == nil {
		l.logger.Warn("this process lost its lease; it stands by until it can lead again")
	}
}
