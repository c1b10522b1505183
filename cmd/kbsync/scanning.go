package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A round is what the scanning loop has before it.
type round struct {
	hints   hints // nil if nothing but time says when to scan
	insist  bool  // what a scan could not list is scanned again soon, for the hints wait for it
	scanner *watcher.Scanner
	sync    state.Sync // as of the last complete scan

	again    []string  // what has to settle
	againAt  time.Time // when it has
	next     time.Time // the next scan of everything; zero for never
	interval time.Duration
	failures int
	retryAt  time.Time // after a failure
	broken   int       // scans in a row that could not list everything that they were to
	clean    bool      // the last scan of everything ended well
	took     time.Duration
}

// scan scans what may have changed, whenever there is something.
func (k *keeper) scan(ctx context.Context) {
	r := &round{scanner: k.scanner(), sync: k.pass.sync, interval: cmp.Or(k.cfg.Period, k.config.Rescan)}
	hints, err := k.hints(ctx)
	if err != nil {
		return // ctx has ended
	}
	var wake <-chan struct{}
	if hints != nil {
		defer func() { _ = hints.Close() }()
		_, r.insist = hints.(*notifications)
		r.hints, wake = hints, hints.Wake()
	} else {
		r.next = time.Now()
	}
	for {
		timer := time.NewTimer(r.wait(time.Now()))
		wished := false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-wake:
		case <-k.look:
			soon := time.Now().Add(max(10*time.Second, 20*r.took))
			if r.hints != nil && (r.next.IsZero() || soon.Before(r.next)) {
				r.next = soon
			}
		case <-k.wish:
			wished = true
		}
		timer.Stop()
		k.scanTick.Load().tick()
		k.step(ctx, r, wished)
	}
}

// wait is how long nothing but an event makes the loop scan.
func (r *round) wait(now time.Time) time.Duration {
	wait := tickEvery
	for _, at := range []time.Time{r.againAt, r.next, r.retryAt} {
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(now), 0))
		}
	}
	return wait
}

// step scans what is to be scanned now, if anything.
func (k *keeper) step(ctx context.Context, r *round, wished bool) {
	now := time.Now()
	var dirty []string
	if r.hints != nil {
		dirty = r.hints.Take()
		defer r.hints.Count(k.d.page.Metrics, k.config.Name)
	}
	everything := wished || slices.Contains(dirty, "")
	if r.failures > 0 {
		// What a part shows says nothing while the whole is not in order.
		if !everything && now.Before(r.retryAt) {
			return
		}
		everything = true
	}
	periodic := !everything && !r.next.IsZero() && !now.Before(r.next)
	if periodic || !r.againAt.IsZero() && !now.Before(r.againAt) {
		dirty = append(dirty, r.again...)
		r.again, r.againAt = nil, time.Time{}
	}
	switch {
	case everything:
		r.again, r.againAt = nil, time.Time{}
		k.scanPart(ctx, r, []string{""})
	case len(dirty) > 0:
		if _, ok := k.scanPart(ctx, r, dirty); ok && periodic {
			k.scanPeriodically(ctx, r)
		}
	case periodic:
		k.scanPeriodically(ctx, r)
	}
}

// scanPeriodically scans everything although nothing is known to have changed, and tells what events had missed.
func (k *keeper) scanPeriodically(ctx context.Context, r *round) {
	clean := r.clean
	result, ok := k.scanPart(ctx, r, []string{""})
	if !ok || r.hints == nil || !clean {
		return
	}
	missed := result.New + result.Changed + result.Removed
	if missed > 0 {
		k.log().Info("a rescan found changes that no event told of", "changes", missed)
	}
	r.hints.Missed(missed)
	k.d.page.Metrics.MissedChanges(k.config.Name, missed)
}

// scanPart scans what is below the prefixes. It is false where the scan did not end, or halted the sync.
func (k *keeper) scanPart(ctx context.Context, r *round, prefixes []string) (watcher.Result, bool) {
	whole := prefixes[0] == "" || slices.Contains(prefixes, "")
	k.gate.Shut()
	k.scanning.Store(true)
	began := time.Now()
	result, err := r.scanner.ScanAll(ctx, k.d.store.Scans, r.sync, prefixes)
	if err == nil {
		whole = whole || slices.Contains(result.Prefixes, "")
		err = k.pass.guardUploads(ctx, k.root)
	}
	r.took = time.Since(began)
	k.scanning.Store(false)
	if ctx.Err() != nil {
		return result, false
	}
	defer k.first()
	k.trouble(ofScan, err)
	if err != nil {
		r.failed(err)
		k.guardTripped(err)
		return result, false
	}
	r.failures, r.retryAt = 0, time.Time{}
	k.gate.Open()
	k.tellScan(result, whole)
	k.d.page.Metrics.RestlessFiles(k.config.Name, result.Restless)
	if r.again = append(r.again, result.Again...); len(result.Again) > 0 && r.againAt.IsZero() {
		// What settles later is found unsettled then, and looked at once more.
		r.againAt = result.SettleAt
	}
	r.recorded(result)
	if whole {
		r.clean = result.IncompleteCount == 0
		r.next = time.Time{}
		if r.interval > 0 {
			r.next = time.Now().Add(r.interval)
		}
		if !r.clean {
			r.next = time.Now().Add(min(cmp.Or(r.interval, mostPause), mostPause))
		}
		if e, ok := r.hints.(*events); ok && e.Stats().RootMissing {
			// The scan has seen the root before the watch has: it may go again unseen.
			r.next = time.Now().Add(leastPause)
		}
		if fresh, err := k.d.store.Syncs.Get(ctx, k.config.Name); err == nil {
			r.sync = fresh // with the root's identity
		}
		if k.pass.options.acceptRoot {
			k.pass.options.acceptRoot = false // it was for this root
			r.scanner = k.scanner()
		}
		k.trouble(ofListing, unlisted(result))
		k.forgive(ctx)
		k.scanned.Store(r.clean)
	}
	if result.New+result.Changed > 0 || whole {
		k.due.ring()
	}
	k.changed.ring()
	// Scans take half of the time at most, so that uploads come to take up what they find.
	_ = rest(ctx, min(r.took, 2*time.Second))
	return result, true
}

// recorded tells what hinted that a scan is recorded. What it could not list waits to be scanned again.
func (r *round) recorded(result watcher.Result) {
	if r.hints == nil {
		return
	}
	if r.broken++; result.IncompleteCount == 0 {
		r.broken = 0
	} else if r.insist {
		r.again = append(r.again, result.Prefixes...)
		if r.againAt.IsZero() {
			r.againAt = time.Now().Add(pause(r.broken, leastPause, mostPause))
		}
	}
	r.hints.Recorded(r.again)
}

// forgive drops the trouble of uploads when nothing is left that they could be for.
func (k *keeper) forgive(ctx context.Context) {
	waiting, err := k.d.store.Documents.Outstanding(ctx, k.id.Load())
	if err == nil && waiting[state.Pending]+waiting[state.Uploading]+waiting[state.Uncertain] == 0 {
		k.trouble(ofUpload, nil)
	}
}

// failed says when to scan again.
func (r *round) failed(err error) {
	r.failures++
	r.again, r.againAt = nil, time.Time{}
	most := mostPause
	switch {
	case errors.Is(err, watcher.ErrRootMissing):
		most = missingPause
	case exitCode(err) == exitGuard:
		most = max(guardPause, 20*r.took)
		r.failures = max(r.failures, 5)
	}
	r.retryAt = time.Now().Add(pause(r.failures, leastPause, most))
}

func (k *keeper) guardTripped(err error) {
	if e, ok := errors.AsType[*watcher.GuardError](err); ok {
		k.d.page.Metrics.GuardTripped(k.config.Name, string(e.Guard))
	} else if e, ok := errors.AsType[*haltError](err); ok {
		k.d.page.Metrics.GuardTripped(k.config.Name, e.guard)
	}
}

func unlisted(result watcher.Result) error {
	if result.IncompleteCount == 0 {
		return nil
	}
	return &exitError{exitTemporary, fmt.Errorf("%s of the root could not be listed, so nothing is taken for removed: %w", count(result.IncompleteCount, "part"), result.Incomplete[0])}
}

// tellScan logs a scan that found something.
func (k *keeper) tellScan(r watcher.Result, whole bool) {
	log := k.log().Debug
	if r.New+r.Changed+r.Removed > 0 || whole && !k.looked.Load() {
		log = k.log().Info
	}
	log("scanned", "all", whole, "listed", r.Listed, "new", r.New, "changed", r.Changed, "unchanged", r.Unchanged,
		"removed", r.Removed, "renamed", r.Renamed, "unsettled", r.Unsettled)
	if r.Restless > 0 {
		k.log().Debug("documents keep changing, and are sent when they rest", "documents", r.Restless, "first", r.RestlessKeys[0])
	}
}

// bucketLookups is how many single objects are looked up in a bucket at a time.
const bucketLookups = 16

func (k *keeper) scanner() *watcher.Scanner {
	options := scanOptions(k.config, k.pass.options)
	options.Rest = k.config.MinReupload
	if _, ok := k.root.place.(*watcher.Bucket); ok {
		options.Lookups = bucketLookups
	}
	return watcher.NewScanner(k.root, options)
}
