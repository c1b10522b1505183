package main

import (
	"context"
	"sync"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// progress shows the progress of a run of the engine.
type progress struct {
	*console.Progress
	expected sync.Map // the ids of the syncs whose pending work is counted
}

// startProgress shows progress until End is called.
func (a *app) startProgress() *progress { return &progress{Progress: a.out.StartProgress()} }

// expect counts the pending work of a sync before its first uploads begin. Later uploads of the run are of documents that changed
// meanwhile, which are counted already. Only the bars need it.
func (p *progress) expect(ctx context.Context, store *state.Store, syncID int64) error {
	if !p.ShowsBars() {
		return nil
	}
	if _, counted := p.expected.LoadOrStore(syncID, true); counted {
		return nil
	}
	outstanding, err := store.Documents.Outstanding(ctx, syncID)
	if err != nil {
		return err
	}
	p.ExpectTraining(outstanding[state.Training])
	if outstanding[state.Pending] == 0 {
		return nil
	}
	for d, err := range store.Documents.All(ctx, syncID, state.Pending) {
		if err != nil {
			return err
		}
		p.ExpectUpload(d.Fingerprint.Size)
	}
	return nil
}

// engine returns the functions that a run calls.
func (p *progress) engine(store *state.Store) engine.Progress {
	return engine.Progress{
		Step:    p.Step,
		Listed:  p.Listed,
		Expect:  func(ctx context.Context, syncID int64) error { return p.expect(ctx, store, syncID) },
		Upload:  ingest.Progress{Sent: p.Sent, Done: p.Uploaded},
		Trained: p.tracked,
	}
}

// tracked counts the documents whose training ended with a status answer.
func (p *progress) tracked(r tracker.Result) { p.Trained(r.Completed + r.Failed + r.Stuck) }
