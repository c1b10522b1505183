package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A pass brings the knowledge base of one sync up to date with its root, once.
type pass struct {
	app      *app
	cfg      *config.Config
	config   config.Sync
	options  passOptions
	store    *state.Store
	api      *api
	trackers *trackers
	progress *progress
	began    time.Time

	// What came of it.
	sync     state.Sync
	scanned  bool
	scan     watcher.Result
	uploads  ingest.Result
	recorded int // possible duplicates that an earlier run left
	marked   int
	isMarked bool
	left     bool // to the process that holds the lock
	err      error
}

// run is the pass itself. It returns why the pass was halted or stopped; what was done until then is in p.
func (p *pass) run(soft context.Context) (err error) {
	defer func() {
		if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(soft), engine.ErrMaxDuration) {
			err = engine.ErrMaxDuration
		}
	}()
	lock, err := p.lock(soft)
	if err != nil || p.left {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	p.sync, err = p.store.Syncs.Ensure(soft, p.config.Name, p.config.Root.String(), p.api.destination(p.config.KnowledgeBase), p.options.acceptDestination)
	if is[*state.DestinationError](err) {
		p.sync, _ = p.store.Syncs.Get(soft, p.config.Name)
	}
	defer func() { p.recordTrouble(err) }()
	if err != nil {
		return halted(err)
	}
	if p.recorded, err = p.store.Journal.Recover(soft, p.sync.ID); err != nil {
		return err
	}
	if p.recorded > 0 {
		p.app.out.log.Warn("an earlier run ended before the answers to its uploads came; what they held may be in the knowledge base twice",
			"sync", p.sync.Name, "requests", p.recorded, "list", "kbsync sources --possible-duplicates")
	}
	if err := p.mark(soft); err != nil {
		return err
	}
	root, err := p.app.openRoot(p.cfg, p.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	root.listed = p.progress.listed
	p.trackers.follow(p.sync.Destination)

	// A second round is for what changed while the first one read it.
	for range 2 {
		if err := p.scanRoot(soft, root); err != nil {
			return err
		}
		if err := p.guardUploads(soft, root); err != nil {
			return err
		}
		if err := p.upload(soft, root); err != nil {
			return err
		}
		if p.uploads.Changed+p.uploads.Vanished == 0 {
			break
		}
	}
	return nil
}

// lock takes the sync's lock. Where documents are to be marked and another process holds it, they are marked all the same
// and that process does the rest.
func (p *pass) lock(ctx context.Context) (*state.Lock, error) {
	wait := p.cfg.LockTimeout
	if p.options.mark != nil {
		wait = max(wait, markingPatience)
	}
	lock, err := p.store.Lock(ctx, p.config.Name, wait)
	if p.options.mark == nil || !errors.Is(err, state.ErrLocked) {
		return lock, err
	}
	if p.sync, err = p.store.Syncs.Get(ctx, p.config.Name); err != nil {
		return nil, err
	}
	if err := p.mark(ctx); err != nil {
		return nil, err
	}
	// Where it has ended meanwhile, it may have missed the marks.
	lock, err = p.store.Lock(ctx, p.config.Name, 0)
	if errors.Is(err, state.ErrLocked) {
		p.left = true
		return nil, nil
	}
	return lock, err
}

// mark marks what reindex and retry name, once.
func (p *pass) mark(ctx context.Context) (err error) {
	if p.options.mark != nil && !p.isMarked {
		p.marked, err = p.options.mark(ctx, p.store, p.sync)
		p.isMarked = err == nil
	}
	return err
}

// markingPatience is how long reindex and retry wait for a process that is about to end.
const markingPatience = time.Second

// scanRoot records what changed on the root. Files that are still being written are waited for, once.
func (p *pass) scanRoot(ctx context.Context, root *watched) error {
	scanner := watcher.NewScanner(root, scanOptions(p.config, p.options))
	first := !p.scanned
	result, err := scanner.Scan(ctx, p.store.Scans, p.sync, "")
	p.addScan(result, first)
	if err == nil && result.Unsettled > 0 {
		wait := max(0, min(result.SettleAt.Sub(p.app.now()), p.config.Settle+time.Second))
		p.progress.say("waiting for files that were just written", "sync", p.sync.Name, "documents", result.Unsettled, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		result, err = scanner.Scan(ctx, p.store.Scans, p.sync, "")
		p.addScan(result, false)
	}
	if err != nil {
		return err
	}
	for _, e := range result.Incomplete {
		p.app.out.log.Warn("a part of the root cannot be listed, so nothing is taken for removed", "sync", p.sync.Name, "error", e)
	}
	p.progress.say("scanned", "sync", p.sync.Name, "listed", result.Listed, "new", result.New, "changed", result.Changed,
		"unchanged", result.Unchanged, "removed", result.Removed, "renamed", result.Renamed, "unsettled", result.Unsettled)
	return nil
}

// addScan adds a scan to what the pass found: a document that was found before is unchanged in a later scan of one pass.
func (p *pass) addScan(r watcher.Result, first bool) {
	if !first {
		r.Unchanged -= p.scan.New + p.scan.Changed
		r.New += p.scan.New
		r.Changed += p.scan.Changed
		r.Removed += p.scan.Removed
		r.Renamed += p.scan.Renamed
		r.Unchanged = max(r.Unchanged, 0)
	}
	p.scan, p.scanned = r, true
}

// A haltError is a guard's that weighs what a scan has found to be uploaded.
type haltError struct{ guard, text string }

func (e *haltError) Error() string { return e.text }

// Class is that of a guard.
func (e *haltError) Class() engine.Class { return engine.ClassGuard }

// guardUploads halts a pass that would upload more than it may, or into an inventory that is not going to last.
func (p *pass) guardUploads(ctx context.Context, root *watched) error {
	if err := p.guardState(ctx); err != nil {
		return err
	}
	limit := p.config.MaxUploads
	if limit == 0 {
		return nil
	}
	outstanding, err := p.store.Documents.Outstanding(ctx, p.sync.ID)
	if err != nil || outstanding[state.Pending] <= limit {
		return err
	}
	// Not all that is pending is uploaded: what is known is shared.
	e := newEstimate(p.app, p.store, root, p.sync.Destination, p.cfg.Checkers)
	if err := e.add(ctx, pendingDocuments(ctx, p.store, p.sync.ID)); err != nil {
		return err
	}
	if e.uploads > limit {
		return &haltError{"max-uploads", fmt.Sprintf("sync %q: %d documents would be uploaded, more than --max-uploads %d allows. If that is what you want, run again with --max-uploads %d",
			p.sync.Name, e.uploads, limit, e.uploads)}
	}
	return nil
}

// guardState halts the first uploads to a real knowledge base when the state is where it is soon lost: everything would be uploaded
// again then, and again, for good.
func (p *pass) guardState(ctx context.Context) error {
	if p.options.acceptState || p.api.emulator != nil || p.cfg.API.Local() {
		return nil
	}
	place := p.store.EphemeralReason()
	if place == "" {
		return nil
	}
	id, err := p.store.Inventory.AnySource(ctx, p.sync.Destination.ID)
	if err != nil || id != 0 {
		return err
	}
	return &haltError{"new-state", fmt.Sprintf("sync %q: the state %s is new, and %s: everything would be uploaded once more then, for good. Put it on a disk or a volume that lasts "+
		"with --state; if losing it does no harm, run again with --accept-new-state", p.sync.Name, p.cfg.State, place)}
}

// upload sends what is due. The first signal ends it softly: the answers of what is sent are waited for.
func (p *pass) upload(soft context.Context, root *watched) error {
	ctx, cancel := p.app.signals.graceful(p.cfg.ShutdownGrace)
	defer cancel()
	options := ingestOptions(p.cfg, p.config)
	options.Logger = p.app.out.log
	options.Stop = p.app.signals.soft.Done()
	options.Progress = p.progress.ingest(p.trackers.wake)
	if options.MaxDuration > 0 {
		options.MaxDuration = max(options.MaxDuration-p.app.now().Sub(p.began), time.Nanosecond)
	}
	if options.MaxTransfer > 0 {
		options.MaxTransfer = max(options.MaxTransfer-p.uploads.Bytes, 1)
	}
	if err := p.progress.expect(soft, p.store, p.sync.ID); err != nil {
		return err
	}
	result, err := ingest.New(p.store, p.api.client, root, p.sync, options).Run(ctx)
	p.addUploads(result)
	p.trackers.wake()
	if result.Requests > 0 || err != nil {
		p.progress.say("uploaded", "sync", p.sync.Name, "documents", result.Uploaded, "shared", result.Shared, "bytes", result.Bytes,
			"requests", result.Requests, "failed", result.Failed)
	}
	return err
}

func (p *pass) addUploads(r ingest.Result) {
	before := p.uploads
	r.Uploaded += before.Uploaded
	r.Shared += before.Shared
	r.Requests += before.Requests
	r.Asked += before.Asked
	r.Bytes += before.Bytes
	r.Failed += before.Failed
	r.Uncertain += before.Uncertain
	r.Resent += before.Resent
	r.Failures = append(before.Failures, r.Failures...)
	p.uploads = r
}

// recordTrouble notes in the state why the pass was halted, for status.
func (p *pass) recordTrouble(err error) {
	text := ""
	if err != nil {
		switch exitCode(err) {
		case exitInterrupted, exitBudget:
			return
		}
		text = err.Error()
	}
	if p.sync.ID == 0 || text == p.sync.LastError {
		return
	}
	if err := p.store.Syncs.SetLastError(context.WithoutCancel(p.app.signals.hard), p.sync.ID, text); err != nil {
		p.app.out.log.Warn("the state does not take a note", "error", err)
	}
}

// halted adds to an error what to type.
func halted(err error) error {
	if e, ok := errors.AsType[*state.DestinationError](err); ok {
		return fmt.Errorf("%w. If that is meant, run again with --accept-new-destination: everything is uploaded there, and what was uploaded before is left behind", e)
	}
	return err
}

func scanOptions(s config.Sync, o passOptions) watcher.ScanOptions {
	return watcher.ScanOptions{
		Settle:        s.Settle,
		MaxDelete:     watcher.MaxDelete(s.MaxDelete),
		AllowEmpty:    s.AllowEmpty,
		AcceptNewRoot: o.acceptRoot,
	}
}

func ingestOptions(cfg *config.Config, s config.Sync) ingest.Options {
	o := ingest.Options{
		Documents:      s.Batch.Documents,
		Bytes:          int64(s.Batch.Bytes),
		Transfers:      cfg.Transfers,
		Checkers:       cfg.Checkers,
		HoldUncertain:  s.OnUncertain == config.Hold,
		HoldRefused:    s.OnRefused == config.Hold,
		Sharing:        state.Sharing{Each: s.Duplicates == config.Each, UploadRenamed: s.OnRename == config.Upload},
		SendText:       s.SendAs == config.Text,
		BytesPerSecond: int64(cfg.BWLimit),
		MaxTransfer:    int64(cfg.MaxTransfer),
		MaxDuration:    cfg.MaxDuration,
		PollAfter:      cfg.Poll.Min,
	}
	switch s.UploadName {
	case config.Key:
		o.Names = ingest.Key
	case config.Base:
		o.Names = ingest.Base
	}
	return o
}
