package engine

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A pass drives a worker once: it brings the knowledge base of one sync up to date with its root.
type pass struct {
	*worker
	run      *RunOptions
	soft     context.Context // ends with the first signal
	trackers *Trackers
	result   PassResult
	isMarked bool
	renewal  renewal
}

// A PassResult is the result of a pass.
type PassResult struct {
	// Config is the sync in the config, and Sync the sync as the state knows it; its ID is 0 if the pass ended before it was open.
	Config  config.Sync
	Sync    state.Sync
	Scanned bool
	Scan    watcher.Result
	Uploads ingest.Result
	// Marked is how many documents RunOptions.Mark marked.
	Marked int
	// LeftToOther is set if another process holds the lock and does the work for the documents that were marked.
	LeftToOther bool
	// Err is why the pass was halted or stopped, and TrainingErr why the training was not followed to its end.
	Err, TrainingErr error

	worker *worker
}

// approve asks whether the documents that a scan has found may be uploaded.
func (p *pass) approve(ctx context.Context) error {
	if p.run.Approve == nil {
		return nil
	}
	p.result.Config, p.result.Sync = p.config, p.sync
	return p.run.Approve(ctx, p.opts.Store, p.result)
}

// maxScans is how many scans a pass makes: a second one finds the documents that changed while the first upload read them.
const maxScans = 2

// once makes the pass. It returns why the pass was halted or stopped.
func (p *pass) once(ctx context.Context) (err error) {
	ctx, span := startSpan(ctx, p.opts.Tracer, "pass", syncAttribute(p.config))
	defer func() { endSpan(span, err) }()
	defer func() {
		if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), ErrMaxDuration) {
			err = ErrMaxDuration
		}
	}()
	if err := p.takeLockOrMark(ctx); err != nil || p.result.LeftToOther {
		return err
	}
	defer func() { err = errors.Join(err, p.unlock()) }()
	err = p.open(ctx)
	defer func() { p.save(err) }()
	if err != nil {
		return err
	}
	if err := p.mark(ctx); err != nil {
		return err
	}
	if err := p.openRoot(p.soft); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.root.Close()) }()
	p.root.Listed = p.run.Progress.Listed
	p.trackers.Follow(p.sync.Destination)
	for range maxScans {
		if err := p.setGate(ctx, true); err != nil {
			return err
		}
		if err := p.scan(ctx); err != nil {
			return err
		}
		if err := p.guardUploads(ctx); err != nil {
			return err
		}
		if err := p.approve(ctx); err != nil {
			return err
		}
		if err := p.setGate(ctx, false); err != nil {
			return err
		}
		if err := p.uploadOnce(ctx); err != nil {
			return err
		}
		if p.result.Uploads.Changed+p.result.Uploads.Vanished == 0 {
			break
		}
	}
	return nil
}

// markPatience is how long a pass with marks waits for a process that is about to end.
const markPatience = time.Second

// takeLockOrMark takes the lock of the sync. If documents are to be marked and another process holds the lock, they are marked without
// it and that process does the rest.
func (p *pass) takeLockOrMark(ctx context.Context) (err error) {
	wait := p.opts.Config.LockTimeout
	if p.run.Mark != nil {
		wait = max(wait, markPatience)
	}
	err = p.takeLock(ctx, wait)
	if p.run.Mark == nil || !errors.Is(err, state.ErrLocked) {
		return err
	}
	if p.sync, err = p.opts.Store.Syncs.Get(ctx, p.config.Name); err != nil {
		return err
	}
	if err := p.mark(ctx); err != nil {
		return err
	}
	// The other process may have ended in between, and missed the marks.
	err = p.takeLock(ctx, 0)
	if errors.Is(err, state.ErrLocked) {
		p.result.LeftToOther = true
		return nil
	}
	return err
}

// mark marks documents, once.
func (p *pass) mark(ctx context.Context) (err error) {
	if p.run.Mark == nil || p.isMarked {
		return nil
	}
	p.result.Marked, err = p.run.Mark(ctx, p.opts.Store, p.sync)
	p.isMarked = err == nil
	return err
}

// scan records the changes of the root. It waits once for files that may still be written to, and for further ones as long as there are
// too many to look at together.
func (p *pass) scan(ctx context.Context) (err error) {
	ctx, span := startSpan(ctx, p.opts.Tracer, "scan", syncAttribute(p.config))
	defer func() { endSpan(span, err, scanAttributes(p.result.Scan)...) }()
	scanner := watcher.NewScanner(p.root, ScanOptions(p.opts.Config, p.config, p.opts.Store, p.root, p.opts.Accept.Root))
	first := !p.result.Scanned
	result, err := scanner.Scan(ctx, p.opts.Store.Scans, p.sync, "")
	p.addScan(result, first)
	for more := true; more && err == nil && result.Unsettled > 0; {
		more = result.Postponed > 0
		wait := max(0, min(result.SettleAt.Sub(p.opts.Now()), p.config.Settle+time.Second))
		p.run.Progress.step("waiting for files that may still be written to", "sync", p.sync.Name, "documents", result.Unsettled, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		result, err = scanner.Scan(ctx, p.opts.Store.Scans, p.sync, "")
		more = more && result.New+result.Changed > 0
		p.addScan(result, false)
	}
	if err != nil {
		return err
	}
	p.warnLeftOut(result)
	for _, e := range result.Incomplete {
		p.logger.Warn("cannot list a part of the root, so no document counts as removed", "error", e)
	}
	p.run.Progress.step("scanned", "sync", p.sync.Name, "listed", result.Listed, "new", result.New, "changed", result.Changed,
		"unchanged", result.Unchanged, "removed", result.Removed, "renamed", result.Renamed, "unsettled", result.Unsettled)
	return nil
}

// addScan adds a scan to the result. A document that an earlier scan of the pass found is unchanged in a later one.
func (p *pass) addScan(r watcher.Result, first bool) {
	if !first {
		before := p.result.Scan
		r.Unchanged = max(r.Unchanged-before.New-before.Changed, 0)
		r.New += before.New
		r.Changed += before.Changed
		r.Removed += before.Removed
		r.Renamed += before.Renamed
	}
	p.result.Scan, p.result.Scanned = r, true
}

// uploadOnce uploads the documents that are due. The first signal ends it softly: it waits for the answers to requests that are under way.
func (p *pass) uploadOnce(ctx context.Context) error {
	work, cancel := Graceful(p.soft, p.opts.Cut, func() time.Duration { return p.opts.Config.ShutdownGrace })
	defer cancel()
	options := ingestOptions(p.opts.Config, p.config)
	owning, end, err := p.whileOwner(p.soft)
	if err != nil {
		return err
	}
	defer end()
	options.Stop = owning.Done()
	options.Progress = p.run.Progress.ingest(p.trackers.wakeAll)
	if options.MaxDuration > 0 {
		options.MaxDuration = max(options.MaxDuration-p.opts.Now().Sub(p.run.Began), time.Nanosecond)
	}
	if options.MaxTransfer > 0 {
		options.MaxTransfer = max(options.MaxTransfer-p.result.Uploads.Bytes, 1)
	}
	if err := p.run.Progress.expect(ctx, p.sync.ID); err != nil {
		return err
	}
	result, err := p.upload(trace.ContextWithSpan(work, trace.SpanFromContext(ctx)), options)
	if errors.Is(err, ingest.ErrStopped) && p.soft.Err() == nil {
		err = state.ErrLeaseLost
	}
	p.addUploads(result)
	p.trackers.wakeAll()
	if result.Requests > 0 || err != nil {
		p.run.Progress.step("uploaded", "sync", p.sync.Name, "documents", result.Uploaded, "shared", result.Shared, "bytes", result.Bytes,
			"requests", result.Requests, "failed", result.Failed)
	}
	if p.renewal.next(p.soft, p.opts.API, err, result.Progressed()) {
		p.run.Progress.step("the API refused the token; going on with a new one", "sync", p.sync.Name)
		return p.uploadOnce(ctx)
	}
	return err
}

// addUploads adds an upload to the result.
func (p *pass) addUploads(r ingest.Result) {
	before := p.result.Uploads
	r.Uploaded += before.Uploaded
	r.Shared += before.Shared
	r.Resaved += before.Resaved
	r.Requests += before.Requests
	r.Asked += before.Asked
	r.Bytes += before.Bytes
	r.Failed += before.Failed
	r.Uncertain += before.Uncertain
	r.Resent += before.Resent
	r.Blocked += before.Blocked
	r.Warned += before.Warned
	r.Failures = append(before.Failures, r.Failures...)
	p.result.Uploads = r
}

// save writes to the state why the pass was halted. A signal or a used budget changes nothing there.
func (p *pass) save(err error) {
	switch Classify(err) {
	case ClassInterrupted, ClassBudget:
		return
	}
	p.saveLastError(context.WithoutCancel(p.opts.Cut), err)
}
