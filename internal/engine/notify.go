package engine

import (
	"context"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/hooks"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// newNotifier returns a notifier of the sync, which the state must know. room, if not nil, is called when news that waited can be
// enqueued.
func (w *worker) newNotifier(room func()) *hooks.Notifier {
	return hooks.NewNotifier(w.opts.Store, w.sync, hooks.Options{
		Hooks: w.config.Hooks, Environ: w.opts.Environ, UserAgent: w.opts.userAgent(), Logger: w.opts.Logger, Now: w.opts.Now, Room: room,
	})
}

// problem returns an error as hooks and status files report it.
func (w *worker) problem(err error) *hooks.Problem {
	if err == nil {
		return nil
	}
	class := Classify(err)
	return &hooks.Problem{Text: err.Error(), Kind: class.String(), ExitCode: w.opts.ExitCode(class), InDoubt: InDoubt(err)}
}

// InDoubt reports whether an error says that the root or the state may be the wrong one, so that a person must not act yet on the documents which
// seem to be gone.
func InDoubt(err error) bool {
	return is[*watcher.GuardError](err) || is[*haltError](err) || is[*state.DestinationError](err) ||
		isOneOf(watcher.ErrRootMissing, watcher.ErrRootChanged, state.ErrMoved, state.ErrLockLost)(err)
}

// heartbeat requests the heartbeat, because every document of the sync is uploaded and trained.
func (w *worker) heartbeat(ctx context.Context) {
	url := w.config.HeartbeatURL
	if url == "" {
		return
	}
	if err := hooks.Heartbeat(ctx, url, w.opts.userAgent()); err != nil && ctx.Err() == nil {
		w.logger.Warn("the heartbeat failed; the next pass tries again", "error", err)
	}
}

func newStatusFiles(opts *Options, metrics hooks.Metrics) *hooks.StatusFiles {
	return hooks.NewStatusFiles(hooks.StatusFilesOptions{
		Paths: statusPaths(opts.Config), Metrics: metrics, Logger: opts.Logger, Now: opts.Now,
	})
}

func statusPaths(cfg *config.Config) hooks.Paths {
	return hooks.Paths{Touch: cfg.TouchFile, Error: cfg.ErrorFile, Metrics: cfg.MetricsFile}
}
