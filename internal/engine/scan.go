package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A scanLoop scans the parts of a root that may have changed, and now and then everything.
type scanLoop struct {
	*loops
	schedule   scanSchedule
	source     changeSource // nil if only time decides when to scan
	scanner    *watcher.Scanner
	known      state.Sync // as of the last full scan
	acceptRoot bool
}

// runScans scans until ctx ends.
func (l *loops) runScans(ctx context.Context) {
	source, err := l.openChanges(ctx)
	if err != nil {
		return // ctx has ended
	}
	if source != nil {
		defer func() { _ = source.Close() }()
	}
	l.scanOn(ctx, source)
}

// scanOn scans what the source names, or only by time if it is nil, until ctx ends.
func (l *loops) scanOn(ctx context.Context, source changeSource) {
	s := &scanLoop{loops: l, source: source, known: l.sync, acceptRoot: l.opts.Accept.Root}
	s.schedule.interval = cmp.Or(l.opts.Config.Period, l.config.Rescan)
	s.scanner = s.newScanner()
	var wake <-chan struct{}
	if source != nil {
		wake = source.Wake()
	} else {
		s.schedule.next = l.opts.Now()
	}
	for {
		timer := time.NewTimer(s.schedule.wait(l.opts.Now()))
		triggered := false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-wake:
		case <-l.scanSoon:
			if source != nil {
				s.schedule.soon(l.opts.Now())
			}
		case <-l.scanNow:
			triggered = true
		}
		timer.Stop()
		l.scanLiveness.Load().tick()
		s.step(ctx, triggered)
	}
}

// step scans the prefixes that are due, if any.
func (s *scanLoop) step(ctx context.Context, triggered bool) {
	var dirty []string
	if s.source != nil {
		dirty = s.source.Take()
		defer func() { countChanges(s.source, s.host.page.Metrics, s.config.Name) }()
	}
	prefixes, periodic := s.schedule.take(s.opts.Now(), dirty, triggered)
	if len(prefixes) > 0 {
		if _, ok := s.scan(ctx, prefixes); !ok {
			return
		}
	}
	if periodic {
		s.scanPeriodically(ctx)
	}
}

// scanPeriodically scans everything although no event demands it, and reports the changes that events had missed.
func (s *scanLoop) scanPeriodically(ctx context.Context) {
	clean := s.schedule.clean
	result, ok := s.scan(ctx, []string{""})
	if !ok || s.source == nil || !clean {
		return
	}
	missed := result.New + result.Changed + result.Removed
	if missed > 0 {
		s.logger.Info("a rescan found changes without events", "changes", missed)
	}
	countMissed(s.source, missed)
	s.host.page.Metrics.MissedChanges(s.config.Name, missed)
}

// scan scans below the prefixes. It returns false if the scan did not end or halted the sync.
func (s *scanLoop) scan(ctx context.Context, prefixes []string) (watcher.Result, bool) {
	whole := slices.Contains(prefixes, "")
	s.gate.Shut()
	s.scanning.Store(true)
	began := s.opts.Now()
	result, err := s.scanGated(ctx, prefixes)
	whole = whole || slices.Contains(result.Prefixes, "")
	s.schedule.took = s.opts.Now().Sub(began)
	s.scanning.Store(false)
	if ctx.Err() != nil {
		return result, false
	}
	defer s.noteFirstScan()
	s.setError(stageScan, err)
	if err != nil {
		s.schedule.failed(s.opts.Now(), err)
		s.countGuard(err)
		return result, false
	}
	s.gate.Open()
	s.logScan(result, whole)
	s.host.page.Metrics.RestlessFiles(s.config.Name, result.Restless)
	s.schedule.succeeded(result)
	left := s.schedule.recorded(s.opts.Now(), result)
	if s.source != nil {
		s.source.Recorded(left)
	}
	if whole {
		s.warnLeftOut(result)
		s.completed(ctx, result)
		scannedAll(s.source)
	}
	if result.IncompleteCount > 0 {
		s.setError(stageListing, unlisted(result))
	} else if len(s.schedule.unlisted) == 0 {
		s.setError(stageListing, nil)
	}
	if result.New+result.Changed > 0 || whole {
		s.due.signal()
	}
	s.changed.signal()
	// Scans take half of the time at most, so that uploads can claim the documents which scans find. A longer scan of everything rests in
	// the schedule.
	_ = retry.Sleep(ctx, min(s.schedule.took, 2*time.Second))
	return result, true
}

// scanGated scans below the prefixes, while the processes that share the state claim nothing. After an error they go on
// waiting.
func (s *scanLoop) scanGated(ctx context.Context, prefixes []string) (result watcher.Result, err error) {
	ctx, span := startSpan(ctx, s.opts.Tracer, "scan", syncAttribute(s.config))
	defer func() { endSpan(span, err, scanAttributes(result)...) }()
	if err := s.setGate(ctx, true); err != nil {
		return watcher.Result{}, err
	}
	result, err = s.scanner.ScanAll(ctx, s.opts.Store.Scans, s.known, prefixes)
	if err == nil {
		err = s.guardUploads(ctx)
	}
	if err == nil {
		err = s.setGate(ctx, false)
	}
	return result, err
}

// completed notes a full scan that ended well.
func (s *scanLoop) completed(ctx context.Context, result watcher.Result) {
	s.schedule.completed(s.opts.Now(), result)
	if rootMissing(s.source) {
		// The scan has seen the root before the watch has, and the root may disappear without an event.
		s.schedule.next = s.opts.Now().Add(minDelay)
	}
	if known, err := s.opts.Store.Syncs.Get(ctx, s.config.Name); err == nil {
		s.known = known // with the identity of the root
	}
	if s.acceptRoot {
		s.acceptRoot = false // it was for this root
		s.scanner = s.newScanner()
	}
	s.clearUploadError(ctx)
	s.scanned.Store(s.schedule.clean)
}

// clearUploadError drops the error of the uploads if no document is left that it could be about.
func (s *scanLoop) clearUploadError(ctx context.Context) {
	documents, err := s.opts.Store.Documents.Outstanding(ctx, s.sync.ID)
	if err == nil && documents[state.Pending]+documents[state.Uploading]+documents[state.Uncertain] == 0 {
		s.setError(stageUpload, nil)
	}
}

func (s *scanLoop) countGuard(err error) {
	if e, ok := errors.AsType[*watcher.GuardError](err); ok {
		s.host.page.Metrics.GuardTripped(s.config.Name, string(e.Guard))
	} else if e, ok := errors.AsType[*haltError](err); ok {
		s.host.page.Metrics.GuardTripped(s.config.Name, e.guard)
	}
}

// unlisted returns an error for the parts of a root that a scan could not list.
func unlisted(result watcher.Result) error {
	if result.IncompleteCount == 0 {
		return nil
	}
	return WithClass(ClassTemporary, fmt.Errorf("cannot list %s of the root, so no document counts as removed there until a scan has listed it: %w",
		count(result.IncompleteCount, "part"), result.Incomplete[0]))
}

// logScan logs a scan, at a higher level if it found something.
func (s *scanLoop) logScan(r watcher.Result, whole bool) {
	log := s.logger.Debug
	if r.New+r.Changed+r.Removed > 0 || whole && !s.firstScanEnded.Load() {
		log = s.logger.Info
	}
	log("scanned", "all", whole, "listed", r.Listed, "new", r.New, "changed", r.Changed, "unchanged", r.Unchanged,
		"removed", r.Removed, "renamed", r.Renamed, "unsettled", r.Unsettled)
	if r.Restless > 0 {
		s.logger.Debug("documents keep changing; each is uploaded after its rest", "documents", r.Restless, "first", r.RestlessKeys[0])
	}
}

// bucketLookups is how many single objects are looked up in a bucket at a time.
const bucketLookups = 16

func (s *scanLoop) newScanner() *watcher.Scanner {
	options := ScanOptions(s.opts.Config, s.config, s.opts.Store, s.root, s.acceptRoot)
	options.Rest = s.config.MinReupload
	if _, ok := s.root.Root.(*watcher.Bucket); ok {
		options.Lookups = bucketLookups
	}
	return watcher.NewScanner(s.root, options)
}
