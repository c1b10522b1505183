package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A keeper keeps one sync true to its root, for as long as watch runs. It has three loops that share nothing but the state
// and bells: one scans what may have changed, one uploads what is due, and one tells of it. So a large upload keeps
// nobody from noticing changes, and whatever ends is carried on from the state.
//
// While a scan goes on, and while a guard halts the sync or its root is missing, the gate is shut: uploads take up nothing new
// then, for what a scan records counts only when its guards have weighed it.
type keeper struct {
	d    *daemon
	pass *pass // what one pass of sync needs; for its steps
	// config is that of the sync, and cfg the config that it is part of.
	config config.Sync
	cfg    *config.Config
	root   *watched
	lock   *state.Lock
	cancel context.CancelFunc
	done   chan struct{}

	gate    ingest.Gate
	wish    bell // a scan of everything is wanted now
	look    bell // a scan of everything would help, soon
	due     bell // something may be due for uploads
	again   bell // what failed may go through now
	changed bell // there may be something to tell

	id, destination atomic.Int64 // 0 until the sync is entered
	looked          atomic.Bool  // the first scan has ended, well or not
	scanned         atomic.Bool  // a complete scan ended well since something was told of it
	scanTick        atomic.Pointer[pulse]
	uploadTick      atomic.Pointer[pulse]
	scanning        atomic.Bool
	uploading       atomic.Bool

	mu       sync.Mutex
	troubles map[part]error
	noted    string // the trouble that the state has
	unlocked bool
}

// A part of a keeper's work can have trouble of its own.
type part int

const (
	ofStart part = iota
	ofScan
	ofListing // a part of the root cannot be listed
	ofUpload
	ofTraining
)

func (d *daemon) newKeeper(cfg *config.Config, api *api, s config.Sync) (*keeper, error) {
	k := &keeper{
		d: d, cfg: cfg, config: s, done: make(chan struct{}),
		wish: newBell(), look: newBell(), due: newBell(), again: newBell(), changed: newBell(),
		troubles: map[part]error{},
	}
	k.pass = &pass{app: d.app, cfg: cfg, config: s, options: d.options, store: d.store, api: api, progress: &progress{out: d.app.out, done: make(chan struct{})}}
	var err error
	if k.root, err = d.app.openRoot(cfg, s); err != nil {
		return nil, err
	}
	if address := s.Notifications; address != "" {
		if err := watcher.CheckSubscription(address); err != nil {
			return nil, &exitError{exitUsage, fmt.Errorf("sync %q: %w", s.Name, errors.Join(err, k.root.Close()))}
		}
	}
	return k, nil
}

func (k *keeper) log() *slog.Logger { return k.d.app.out.log.With("sync", k.config.Name) }

// run works until ctx ends.
func (k *keeper) run(ctx context.Context) {
	defer func() {
		if err := k.unlock(); err != nil {
			k.log().Error("the lock cannot be given back", "error", err)
		}
	}()
	k.gate.Shut() // until the first scan has ended well
	for failures := 1; ; failures++ {
		err := k.start(ctx)
		if ctx.Err() != nil {
			return
		}
		k.trouble(ofStart, err)
		if err == nil {
			break
		}
		k.tellOfStart(ctx, err)
		k.first()
		wait := pause(failures, leastPause, mostPause)
		if exitCode(err) == exitGuard {
			wait = fatalPause
		}
		if !rest(ctx, wait, k.again) {
			return
		}
	}
	defer func() { _ = k.root.Close() }()
	scan, upload := k.pulse("scan"), k.pulse("upload")
	defer scan.end()
	defer upload.end()
	k.scanTick.Store(scan)
	k.uploadTick.Store(upload)
	k.root.listed = scan.tick
	var loops sync.WaitGroup
	loops.Go(func() { k.scan(ctx) })
	loops.Go(func() { k.upload(ctx) })
	loops.Go(func() { k.report(ctx) })
	loops.Wait()
}

// start takes what the sync needs, and what an earlier process left.
func (k *keeper) start(ctx context.Context) (err error) {
	if k.lock == nil {
		if k.lock, err = k.d.store.Lock(ctx, k.config.Name, k.cfg.LockTimeout); err != nil {
			return err
		}
	}
	p := k.pass
	p.sync, err = k.d.store.Syncs.Ensure(ctx, k.config.Name, k.config.Root.String(), p.api.destination(k.config.KnowledgeBase), p.options.acceptDestination)
	if err != nil {
		return halted(err)
	}
	k.noted = p.sync.LastError
	left, err := k.d.store.Journal.Recover(ctx, p.sync.ID)
	if err != nil {
		return err
	}
	if left > 0 {
		k.log().Warn("an earlier run ended before the answers to its uploads came; what they held may be in the knowledge base twice",
			"requests", left, "list", "kbsync sources --possible-duplicates")
	}
	k.id.Store(p.sync.ID)
	k.destination.Store(p.sync.Destination.ID)
	k.d.follow(p.sync.Destination)
	return nil
}

func (k *keeper) unlock() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lock == nil || k.unlocked {
		return nil
	}
	k.unlocked = true
	return k.lock.Unlock()
}

// first notes that the first scan has ended, well or not: whoever waits for the daemon to be ready has waited long enough.
func (k *keeper) first() {
	if k.looked.CompareAndSwap(false, true) {
		k.d.service.changed.ring()
	}
}

// retry makes whatever waits after a failure try again now, and scans everything.
func (k *keeper) retry() {
	k.again.ring()
	k.wish.ring()
}

// trouble notes what keeps a part of the work from being done; nil that nothing does. It is told once.
func (k *keeper) trouble(of part, err error) {
	k.mu.Lock()
	before := k.troubles[of]
	if err == nil {
		delete(k.troubles, of)
	} else {
		k.troubles[of] = err
	}
	k.mu.Unlock()
	switch {
	case err == nil && before == nil:
		return
	case err == nil:
		k.log().Info("works again", "was", before)
	case before == nil || before.Error() != err.Error():
		if _, is := errors.AsType[*watcher.GuardError](err); is || halts(err) {
			k.log().Error("halted until a person acts", "error", err)
		} else {
			k.log().Warn("cannot go on for now", "error", err)
		}
	default:
		k.log().Debug("cannot go on still", "error", err)
		return
	}
	k.changed.ring()
	k.d.service.changed.ring()
}

// halts reports whether an error needs a person, and not only time.
func halts(err error) bool { return engine.Classify(err).NeedsPerson() }

// troubled returns what is wrong now, nil for nothing.
func (k *keeper) troubled() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []error
	for of := ofStart; of <= ofTraining; of++ {
		if err := k.troubles[of]; err != nil {
			all = append(all, err)
		}
	}
	return engine.JoinErrors(all)
}

// A pulse is a loop's sign of life, for the page and for the service manager.
type pulse struct {
	loop *statuspage.Loop
	last atomic.Int64 // in Unix nanoseconds
}

func (k *keeper) pulse(name string) *pulse {
	p := &pulse{loop: k.d.page.Loop(name+" "+k.config.Name, loopsTick)}
	p.last.Store(time.Now().UnixNano())
	return p
}

// tick is cheap enough to be called for each document.
func (p *pulse) tick() {
	now := time.Now().UnixNano()
	if now-p.last.Load() < int64(time.Second) {
		return
	}
	p.last.Store(now)
	p.loop.Tick()
}

func (p *pulse) end() { p.loop.End() }

func (p *pulse) beats() bool { return time.Since(time.Unix(0, p.last.Load())) < loopsTick }

// healthy says whether the loops go on.
func (k *keeper) healthy() bool {
	select {
	case <-k.done:
		return true
	default:
	}
	scan, upload := k.scanTick.Load(), k.uploadTick.Load()
	if scan == nil || upload == nil {
		return true // it waits to begin
	}
	return scan.beats() && upload.beats()
}

// describe gives what a dump of the status says of the loops.
func (k *keeper) describe() []any {
	return []any{"scanning", k.scanning.Load(), "uploading", k.uploading.Load()}
}
