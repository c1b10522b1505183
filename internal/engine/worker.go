package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

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
	// recovered is how many requests of an earlier run were sealed and never answered.
	recovered int
	// lastError is the error that the state has of the sync. The goroutine that reports owns it.
	lastError string
}

func newWorker(opts Options, s config.Sync) *worker {
	return &worker{opts: opts, config: s, logger: opts.Logger.With("sync", s.Name)}
}

// openRoot opens the root of the sync.
func (w *worker) openRoot(ctx context.Context) (err error) {
	w.root, err = OpenRoot(ctx, w.opts.Config, w.config, w.opts.OwnFiles...)
	return err
}

// open opens the sync: it takes the lock unless the worker has it, enters the sync and its destination into the state, and
// recovers the work of an earlier process. After an error it may be called again.
func (w *worker) open(ctx context.Context) (err error) {
	if w.lock == nil {
		if w.lock, err = w.opts.Store.Lock(ctx, w.config.Name, w.opts.Config.LockTimeout); err != nil {
			return err
		}
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
	if w.recovered, err = w.opts.Store.Journal.Recover(ctx, w.sync.ID); err != nil {
		return err
	}
	if w.recovered > 0 {
		w.logger.Warn("an earlier run ended before the API answered its uploads; their documents may be in the knowledge base twice",
			"requests", w.recovered, "list", "kbsync sources --possible-duplicates")
	}
	return nil
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

// upload uploads the documents that are due.
func (w *worker) upload(ctx context.Context, options ingest.Options) (ingest.Result, error) {
	options.Logger = w.opts.Logger
	return ingest.New(w.opts.Store, w.opts.API.Client, w.root, w.sync, options).Run(ctx)
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
