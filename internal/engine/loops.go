package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/hooks"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/watcher"
)

// A host holds the parts that the loops of all syncs of a daemon share.
type host struct {
	page     *statuspage.Page
	files    *hooks.StatusFiles
	trackers *Trackers
	changed  wakeup // the status of a sync may have changed
	// process ends softly with the process. work ends when the grace after that is over, or when a person cuts it: requests that were
	// begun are finished in it. No reload ends either.
	process, work context.Context
}

// The loops of a sync drive its worker for as long as the daemon has the sync. There are three, which share only the state and
// signals: one scans the parts that may have changed, one uploads the documents that are due, and one reports. Two more only call what a
// person has configured: hooks and heartbeats. So a large upload
// delays no scan, a slow hook delays no report, and the state holds everything that an interrupted loop goes on with.
//
// While a scan runs, and while a guard halts the sync or its root is missing, the gate is shut and uploads claim nothing: the
// changes of a scan count only when its guards have passed them.
type loops struct {
	*worker
	host   *host
	cancel context.CancelFunc
	done   chan struct{} // closed when they have ended

	gate     ingest.Gate
	scanNow  wakeup                         // a full scan is demanded
	scanSoon wakeup                         // a full scan would help
	due      wakeup                         // documents may be due for upload
	retryNow wakeup                         // an attempt that failed may succeed now
	changed  wakeup                         // there may be something to report
	messages wakeup                         // there may be messages to the hooks
	complete wakeup                         // the heartbeat is due
	notifier atomic.Pointer[hooks.Notifier] // nil until the state knows the sync

	syncID, destinationID atomic.Int64 // 0 until the sync is open
	firstScanEnded        atomic.Bool  // well or not
	scanned               atomic.Bool  // a full scan ended well since the last complete report
	scanLiveness          atomic.Pointer[liveness]
	uploadLiveness        atomic.Pointer[liveness]
	scanning, uploading   atomic.Bool

	sampler sampler // of the report loop, except for its counters

	mu     sync.Mutex
	errors [stageCount]error // the last error of each stage
}

// A stage is a part of the work that fails by itself.
type stage int

const (
	stageStart stage = iota
	stageScan
	stageListing // of a part of the root
	stageQueue   // reading what is due
	stageUpload
	stageTraining
	stageCount
)

// newLoops returns the loops of a sync, whose root is open. They do not run yet.
func newLoops(ctx context.Context, opts Options, h *host, s config.Sync) (*loops, error) {
	l := &loops{
		worker: newWorker(opts, s), host: h, done: make(chan struct{}),
		scanNow: newWakeup(), scanSoon: newWakeup(), due: newWakeup(), retryNow: newWakeup(), changed: newWakeup(),
		messages: newWakeup(), complete: newWakeup(),
	}
	if address := s.Notifications; address != "" {
		if err := watcher.CheckSubscription(address); err != nil {
			return nil, WithClass(ClassUsage, fmt.Errorf("sync %q: %w", s.Name, err))
		}
	}
	if err := l.openRoot(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// run opens the sync, as often as it takes, and runs the loops until ctx ends.
func (l *loops) run(ctx context.Context) {
	defer func() {
		_ = l.root.Close()
		if err := l.unlock(); err != nil {
			l.logger.Error("cannot release the lock", "error", err)
		}
	}()
	l.gate.Shut() // until the first scan has ended well
	var running sync.WaitGroup
	defer running.Wait()
	if !l.opts.Store.Shared() {
		l.call(ctx, &running)
	}
	if !l.start(ctx) {
		return
	}
	l.syncID.Store(l.sync.ID)
	l.destinationID.Store(l.sync.Destination.ID)
	l.host.trackers.Follow(l.sync.Destination)
	if l.opts.Store.Shared() {
		l.share(ctx)
		return
	}
	running.Go(func() { l.withScanLiveness(func() { l.runScans(ctx) }) })
	running.Go(func() { l.withUploadLiveness(func() { l.runUploads(ctx) }) })
	running.Go(func() { l.runReports(ctx) })
}

// withScanLiveness runs the scan loop with a liveness.
func (l *loops) withScanLiveness(run func()) {
	scan := newLiveness(l.host.page, "scan "+l.config.Name)
	l.scanLiveness.Store(scan)
	l.root.Listed = scan.tick
	defer scan.end()
	defer l.scanLiveness.Store(nil)
	run()
}

// withUploadLiveness runs the upload loop with a liveness.
func (l *loops) withUploadLiveness(run func()) {
	upload := newLiveness(l.host.page, "upload "+l.config.Name)
	l.uploadLiveness.Store(upload)
	defer upload.end()
	defer l.uploadLiveness.Store(nil)
	run()
}

// start opens the sync. After an error it tries again. It returns false when ctx has ended.
func (l *loops) start(ctx context.Context) bool {
	for failures := 0; ; failures++ {
		err := l.open(ctx)
		if ctx.Err() != nil {
			return false
		}
		l.setError(stageStart, err)
		if err == nil {
			return true
		}
		l.reportStart(ctx, err)
		l.noteFirstScan()
		delay := backoff(failures)
		if Classify(err) == ClassGuard {
			delay = fatalDelay
		}
		if _, err := retry.SleepOrWake(ctx, delay, l.retryNow); err != nil {
			return false
		}
	}
}

// discard gives up loops that never ran.
func (l *loops) discard() error {
	_ = l.root.Close()
	return l.unlock()
}

// noteFirstScan notes that the first scan has ended, well or not: the daemon is ready after that of each sync.
func (l *loops) noteFirstScan() {
	if l.firstScanEnded.CompareAndSwap(false, true) {
		l.host.changed.signal()
	}
}

// retry makes every loop that waits after a failure try again now, and demands a full scan.
func (l *loops) retry() {
	l.retryNow.signal()
	l.scanNow.signal()
}

// setError sets the last error of a stage; nil if it works. A new error is logged once.
func (l *loops) setError(of stage, err error) {
	l.mu.Lock()
	before := l.errors[of]
	l.errors[of] = err
	l.mu.Unlock()
	switch {
	case err == nil && before == nil:
		return
	case err == nil:
		l.logger.Info("works again", "was", before)
	case before != nil && before.Error() == err.Error():
		l.logger.Debug("still cannot continue", "error", err)
		return
	case Classify(err).NeedsPerson():
		l.logger.Error("halted until a person acts", "error", err)
	default:
		l.logger.Warn("cannot continue for now", "error", err)
	}
	l.changed.signal()
	l.host.changed.signal()
}

// lastErrors returns the last errors of all stages as one; nil if all work.
func (l *loops) lastErrors() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return JoinErrors(l.errors[:])
}

// healthy reports whether the loops give signs of life.
func (l *loops) healthy() bool {
	select {
	case <-l.done:
		return true
	default:
	}
	// A loop that does not run, because the sync is not open yet or another process leads it, gives no signs.
	scan, upload := l.scanLiveness.Load(), l.uploadLiveness.Load()
	return (scan == nil || scan.alive()) && (upload == nil || upload.alive())
}
