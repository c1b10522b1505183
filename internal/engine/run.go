package engine

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// RunOptions are the options of RunOnce.
type RunOptions struct {
	Options
	// Began is when the run began; Config.MaxDuration is counted from it.
	Began time.Time
	// Wait makes the run wait for the training.
	Wait bool
	// Mark, if not nil, marks documents of a sync to be uploaded once more, before its pass. It returns how many.
	Mark func(ctx context.Context, store *state.Store, sync state.Sync) (int, error)
	// Approve, if not nil, is asked after each scan and before its uploads, when the guards have passed. Its error halts the pass.
	Approve func(ctx context.Context, store *state.Store, pass PassResult) error
	// Progress shows how the run goes on.
	Progress Progress
}

// Progress has functions that a run calls while it works, from several goroutines; they must be quick. Nil ones are not called.
type Progress struct {
	// Step is called after each step of the work, with a message and its attributes.
	Step func(message string, args ...any)
	// Listed is called for each document of a listing.
	Listed func()
	// Expect is called before the uploads of a sync begin.
	Expect func(ctx context.Context, syncID int64) error
	// Upload has the functions that an upload calls.
	Upload ingest.Progress
	// Trained is called after each answer to a status request.
	Trained func(tracker.Result)
}

func (p *Progress) step(message string, args ...any) {
	if p.Step != nil {
		p.Step(message, args...)
	}
}

func (p *Progress) expect(ctx context.Context, syncID int64) error {
	if p.Expect == nil {
		return nil
	}
	return p.Expect(ctx, syncID)
}

// ingest returns the functions of an upload; done is called when there may be new sources.
func (p *Progress) ingest(done func()) ingest.Progress {
	upload := p.Upload
	upload.Done = func(documents int, bytes int64) {
		if p.Upload.Done != nil {
			p.Upload.Done(documents, bytes)
		}
		done()
	}
	return upload
}

// sleep waits for d. It returns the cause of the context's end if that comes first.
func sleep(ctx context.Context, d time.Duration) error { return retry.Sleep(ctx, d) }

// A RunResult is the result of a run.
type RunResult struct {
	Passes  []PassResult   // of the selected syncs, in their order
	Trained tracker.Result // sums of all destinations
}

// parallelSyncs is how many syncs have their pass at a time.
const parallelSyncs = 4

// RunOnce makes one pass over each selected sync, several at a time and independently, while a tracker for each destination
// follows the training. Then it waits for the training if RunOptions.Wait is set. After the end of ctx it begins nothing new and returns when
// the answers to requests that are under way are recorded.
func RunOnce(ctx context.Context, opts RunOptions) RunResult {
	ctx, span := startSpan(ctx, opts.Tracer, "run")
	defer span.End()
	soft := ctx
	if limit := opts.Config.MaxDuration; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, opts.Began.Add(limit), ErrMaxDuration)
		defer cancel()
	}
	trackers := NewTrackers(ctx, opts.Options, opts.Progress.Trained)
	var passes []*pass
	var group errgroup.Group
	group.SetLimit(parallelSyncs)
	for _, s := range opts.syncs() {
		p := &pass{worker: newWorker(opts.Options, s), run: &opts, soft: soft, trackers: trackers}
		passes = append(passes, p)
		group.Go(func() error {
			p.result.Err = p.once(ctx)
			return nil // the failure of one sync does not end the others
		})
	}
	_ = group.Wait()
	result := RunResult{Trained: trackers.Wait(opts.Wait)}
	for _, p := range passes {
		p.result.Config, p.result.Sync, p.result.worker = p.config, p.sync, p.worker
		if p.sync.ID != 0 {
			p.result.TrainingErr = trackers.Err(p.sync.Destination.ID, opts.Wait)
		}
		result.Passes = append(result.Passes, p.result)
	}
	return result
}

// configuredSyncs returns the syncs of the config, also those that are not selected: a pass of one does not end the series of the others.
func configuredSyncs(cfg *config.Config) []statuspage.Sync {
	var syncs []statuspage.Sync
	for _, s := range cfg.Syncs {
		syncs = append(syncs, statuspage.Sync{Name: s.Name})
	}
	return syncs
}

// ReportPasses reports passes to the hooks of their syncs and in the status files. outcomes are the errors that sum up each pass;
// nil for a complete one.
func ReportPasses(ctx context.Context, opts Options, passes []PassResult, outcomes []error) {
	page, err := statuspage.New(statuspage.Options{
		State: opts.Store, Log: opts.Logger, Version: opts.Version, Syncs: func() []statuspage.Sync { return configuredSyncs(opts.Config) },
	})
	if err != nil {
		opts.Logger.Warn("cannot make the metrics", "error", err)
		return
	}
	files := newStatusFiles(&opts, page)
	reported := func(i int) bool { return !passes[i].LeftToOther && Classify(outcomes[i]) != ClassInterrupted }
	// The files come first, because the calls may take long.
	for i, p := range passes {
		if !reported(i) {
			continue
		}
		files.SetProblem(p.Config.Name, p.worker.problem(outcomes[i]))
		if outcomes[i] == nil {
			files.Touch()
		}
		page.Metrics.BytesSent(p.Config.Name, p.Uploads.Bytes)
	}
	files.WriteMetrics()
	for i, p := range passes {
		if reported(i) && outcomes[i] == nil {
			p.worker.heartbeat(ctx)
		}
	}
	for i, p := range passes {
		if reported(i) && p.Sync.ID != 0 {
			p.notify(ctx, outcomes[i] == nil)
		}
	}
}

// notify reports a pass to the hooks of its sync.
func (p *PassResult) notify(ctx context.Context, complete bool) {
	failure := p.Err
	if Classify(failure) == ClassBudget {
		failure = nil
	}
	notifier := p.worker.newNotifier(nil)
	err := notifier.Enqueue(ctx, p.worker.problem(failure), complete)
	if err == nil {
		var next time.Time
		if next, err = notifier.Deliver(ctx); err == nil && !next.IsZero() {
			p.worker.logger.Warn("a hook did not take every message; the next run sends them again")
		}
	}
	if err != nil && ctx.Err() == nil {
		p.worker.logger.Warn("cannot notify the hooks", "error", err)
	}
}
