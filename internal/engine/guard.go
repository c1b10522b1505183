package engine

import (
	"context"
	"fmt"

	"github.com/kbsync/kbsync/state"
)

// guardUploads halts the sync if a scan has found more to upload than it may, or if the inventory would not last.
func (w *worker) guardUploads(ctx context.Context) error {
	if err := w.guardState(ctx); err != nil {
		return err
	}
	limit := w.config.MaxUploads
	if limit == 0 {
		return nil
	}
	outstanding, err := w.opts.Store.Documents.Outstanding(ctx, w.sync.ID)
	if err != nil || outstanding[state.Pending] <= limit {
		return err
	}
	// Some pending documents share a content that is in the knowledge base.
	e := Estimate{Store: w.opts.Store, Root: w.root, Destination: w.sync.Destination, Checkers: w.opts.Config.Checkers, Policy: PreflightPolicy(w.config)}
	if err := e.Add(ctx, PendingDocuments(ctx, w.opts.Store, w.sync.ID)); err != nil {
		return err
	}
	if e.Uploads <= limit {
		return nil
	}
	return &haltError{"max-uploads", fmt.Sprintf("sync %q: %d documents would be uploaded, more than --max-uploads %d allows. "+
		"To upload them, run again with --max-uploads %d", w.sync.Name, e.Uploads, limit, e.Uploads)}
}

// guardState halts the first uploads to a real knowledge base if the state is in a place where it is soon lost: everything would
// be uploaded again after each loss, for good.
func (w *worker) guardState(ctx context.Context) error {
	if w.opts.Accept.State || w.opts.API.Local {
		return nil
	}
	reason := w.opts.Store.EphemeralReason()
	if reason == "" {
		return nil
	}
	id, err := w.opts.Store.Inventory.AnySource(ctx, w.sync.Destination.ID)
	if err != nil || id != 0 {
		return err
	}
	return &haltError{"new-state", fmt.Sprintf("sync %q: the state %s is new, and %s: after a loss every document would be uploaded again, permanently. "+
		"Put it on a disk or a volume that lasts with --state; if losing it does no harm, run again with --accept-new-state",
		w.sync.Name, w.opts.Config.State, reason)}
}
