package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// A worker works on one sync: it has the lock, the root and the steps that both drivers use. One goroutine opens and closes it.
type worker struct {
	opts   Options
	config config.Sync
	logger *slog.Logger // with the name of the sync

	root *CountingRoot
	lock *state.Lock
	sync state.Sync // zero until the sync is open
	// unfinished is true when a run of uploads may have left claims or batches. The goroutine that uploads owns it.
	unfinished bool
	// adopting is true when the worker enters documents into a state that was lost, and uploads none.
	adopting bool
	// lastError is the error that the state has of the sync. The goroutine that reports owns it.
	lastError string
	marked    struct { // of the markers of the inventory
		sync.Mutex
		generation int64
		at         time.Time
		failed     bool
	}
	// warned is what the last warning about rules and left out files said. The goroutine that scans owns it.
	warned string
	// warnedUnsteady is true if the log says that time stamps do not hold still. The goroutine that uploads owns it.
	warnedUnsteady bool
}

func newWorker(opts Options, s config.Sync) *worker {
	return &worker{opts: opts, config: s, logger: opts.Logger.With("sync", s.Name)}
}

// openRoot opens the root of the sync.
func (w *worker) openRoot(ctx context.Context) (err error) {
	w.root, err = OpenRoot(ctx, w.opts.Config, w.config, w.opts.OwnFiles...)
	return err
}

// LockPatience is how long to wait for the lock of a sync at least: a process that recovers a sync of which it is not the owner
// holds the lock for a moment.
const LockPatience = 500 * time.Millisecond

// takeLock takes the lock of the sync, and waits for it up to patience, at least LockPatience.
func (w *worker) takeLock(ctx context.Context, patience time.Duration) (err error) {
	w.lock, err = w.opts.Store.Lock(ctx, w.config.Name, max(patience, LockPatience))
	return err
}

// open opens the sync: it takes the lock unless the worker has it, enters the sync and its destination into the state, and
// recovers the work that earlier processes left. After an error it may be called again.
func (w *worker) open(ctx context.Context) (err error) {
	if w.lock == nil && !w.opts.Store.Shared() {
		if err := w.takeLock(ctx, w.opts.Config.LockTimeout); err != nil {
			return err
		}
	}
	if err := w.guardState(ctx); err != nil {
		w.sync, _ = w.opts.Store.Syncs.Get(ctx, w.config.Name) // for the report, if the state knows the sync
		w.lastError = w.sync.LastError
		return err
	}
	destination := w.opts.API.Destination(w.config.KnowledgeBase)
	w.sync, err = w.opts.Store.Syncs.Ensure(ctx, w.config.Name, w.config.Root.String(), destination, w.opts.Accept.Destination)
	if is[*state.DestinationError](err) {
		// For the report: the state knows the sync, with another destination.
		w.sync, _ = w.opts.Store.Syncs.Get(ctx, w.config.Name)
	}
	w.lastError = w.sync.LastError
	if err != nil {
		return WithRemedy(err)
	}
	w.warnOverlap(ctx)
	if w.config.Preflight != config.Block {
		if _, err := w.opts.Store.Queue.ReopenBlocked(ctx, w.sync.ID); err != nil {
			return err
		}
	}
	return w.recover(ctx)
}

// recover ends the uploads that no process works on any more: those of the sync, which the worker has the lock of, and those of
// every sync without an owner, which would keep its documents waiting. No run of uploads of the sync may be under way.
func (w *worker) recover(ctx context.Context) error {
	w.unfinished = true
	uncertain, err := w.opts.Store.Journal.Recover(ctx, w.sync.ID)
	if err != nil {
		return err
	}
	w.unfinished = false
	logRecovered(w.opts.Logger, state.Recovered{Sync: w.config.Name, Uncertain: uncertain})
	recoverUnowned(ctx, &w.opts)
	return nil
}

// recoverUnowned ends the uploads of every sync that no process works on: its process was killed, and since then the sync was
// not started or has left the config. A failure there ends no other sync.
func recoverUnowned(ctx context.Context, opts *Options) {
	recovered, err := opts.Store.Journal.RecoverUnowned(ctx)
	for _, r := range recovered {
		logRecovered(opts.Logger, r)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrUnavailable) { // the loops report a database that is down
		opts.Logger.Warn("cannot recover the uploads of syncs without a process", "error", err)
	}
}

func logRecovered(logger *slog.Logger, r state.Recovered) {
	if r.Uncertain > 0 {
		logger.Warn("an earlier run ended before the API answered its uploads; their documents may be in the knowledge base twice",
			"sync", r.Sync, "requests", r.Uncertain, "list", "kbsync sources --possible-duplicates")
	}
}

// unlock releases the lock, if the worker has it.
func (w *worker) unlock() error {
	if w.lock == nil {
		return nil
	}
	lock := w.lock
	w.lock = nil
	return lock.Unlock()
}

// upload recovers what an earlier run left, and uploads the documents that are due.
func (w *worker) upload(ctx context.Context, options ingest.Options) (result ingest.Result, err error) {
	ctx, span := startSpan(ctx, w.opts.Tracer, "upload", syncAttribute(w.config))
	defer func() { endSpan(span, err, uploadAttributes(result)...) }()
	if err := w.recover(ctx); err != nil {
		return ingest.Result{}, err
	}
	options.Logger = w.opts.Logger
	options.Shared = w.opts.Store.Shared()
	request := options.Progress.Request
	options.Progress.Request = func(r ingest.Request) {
		if request != nil {
			request(r)
		}
		w.markSoon(ctx)
	}
	defer w.mark(context.WithoutCancel(ctx))
	result, err = ingest.New(w.opts.Store, w.opts.API.Client, w.root, w.sync, options).Run(ctx)
	w.unfinished = err != nil
	w.warnUnsteady(w.root.Root)
	return result, err
}

// whileOwner returns a context that also ends when this process loses its lease in a shared state.
func (w *worker) whileOwner(ctx context.Context) (context.Context, context.CancelFunc, error) {
	lost, err := w.opts.Store.LeaseLost(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	if lost != nil {
		go func() {
			select {
			case <-lost:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel, nil
}

// setGate shuts or opens the gate of the sync for the processes that share the state.
func (w *worker) setGate(ctx context.Context, shut bool) error {
	if !w.opts.Store.Shared() {
		return nil
	}
	return w.opts.Store.Scans.SetGate(ctx, w.sync.ID, shut)
}

// saveLastError writes why the sync cannot go on to the state, where kbsync status finds it; nil if it can.
func (w *worker) saveLastError(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if w.sync.ID == 0 || text == w.lastError {
		return
	}
	if err := w.opts.Store.Syncs.SetLastError(ctx, w.sync.ID, text); err != nil {
		if ctx.Err() == nil {
			w.logger.Warn("cannot save the sync's status", "error", err)
		}
		return
	}
	w.lastError = text
}

// WithRemedy adds the remedy to an error: the flag that a person may type.
func WithRemedy(err error) error {
	if e, ok := errors.AsType[*state.DestinationError](err); ok {
		return fmt.Errorf("%w. To upload every document there, run again with --accept-new-destination; the sources at the old "+
			"destination are left behind", e)
	}
	return err
}
