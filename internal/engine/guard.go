package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// guardUploads halts the sync if a scan has found more to upload than it may.
func (w *worker) guardUploads(ctx context.Context) error {
	limit := w.config.MaxUploads
	if limit == 0 {
		return nil
	}
	outstanding, err := w.opts.Store.Documents.Outstanding(ctx, w.sync.ID)
	if err != nil || outstanding[state.Pending] <= limit {
		return err
	}
	// Some pending documents share a content that is in the knowledge base.
	e := Estimate{
		Store: w.opts.Store, Root: w.root, Destination: w.sync.Destination, Checkers: w.opts.Config.Checkers,
		Policy: PreflightPolicy(w.config), SyncID: w.sync.ID, Resaved: w.config.Resaved,
	}
	if err := e.Add(ctx, PendingDocuments(ctx, w.opts.Store, w.sync.ID)); err != nil {
		return err
	}
	return GuardUploads(w.config, e.Uploads)
}

// GuardUploads returns the error that halts a sync which would upload more documents than it may.
func GuardUploads(s config.Sync, uploads int) error {
	if s.MaxUploads == 0 || uploads <= s.MaxUploads {
		return nil
	}
	return &haltError{"max-uploads", fmt.Sprintf("sync %q: %d documents would be uploaded, more than --max-uploads %d allows. "+
		"To upload them, run again with --max-uploads %d", s.Name, uploads, s.MaxUploads, uploads)}
}

// guardState halts a sync before its first byte if its state is not the inventory of the last upload, or would not last.
func (w *worker) guardState(ctx context.Context) error {
	err := GuardState(ctx, w.opts.Config, w.opts.Store, w.opts.API, w.config)
	halted, ok := errors.AsType[*haltError](err)
	if ok && w.adopting && halted.guard == guardLostState {
		return nil // to adopt is the remedy
	}
	if !ok || !w.opts.Accept.State {
		return err
	}
	if halted.guard == guardNewState {
		return nil
	}
	w.logger.Warn("continues, because --accept-new-state is set", "guard", halted.text)
	w.remark(ctx)
	return nil
}

// remark makes the markers name the state, whatever they named before.
func (w *worker) remark(ctx context.Context) {
	if w.opts.API.Embedded {
		return
	}
	if err := WriteMarkers(ctx, w.opts.Config, w.opts.Store, w.config, w.opts.API.Origin, w.opts.Now()); err != nil {
		w.logger.Warn("cannot mark the state as the inventory; the next run may halt again", "error", err)
	}
}

// The guards of the state.
const (
	guardNewState  = "new-state"  // the state is new, and will soon be lost
	guardLostState = "lost-state" // the state is not the inventory of the last upload
)

// GuardState decides whether uploads of a sync may go into a state. It returns an error of ClassGuard, which the person may accept, if the
// state is new, older or another one than the state of the last upload, as the markers of the sync say; and if it is new and in a
// place where it is soon lost: everything would be uploaded again, for good.
func GuardState(ctx context.Context, cfg *config.Config, store *state.Store, api *API, s config.Sync) error {
	if api.Embedded {
		return nil
	}
	used, err := uploadedTo(ctx, store, api, s)
	if err != nil {
		return err
	}
	identity, err := store.Identity(ctx)
	if err != nil {
		return err
	}
	for _, path := range markerPaths(cfg, s, api.Origin) {
		m, err := readMarker(path)
		if err != nil {
			return WithClass(ClassGuard, fmt.Errorf("sync %q: %w", s.Name, err))
		}
		if m == nil {
			continue
		}
		found := ""
		switch {
		case m.Inventory == identity.ID && m.Generation > identity.Generation:
			found = "is older than the last upload"
		case m.Inventory != identity.ID && used:
			found = "is another one than that of the last upload"
		case m.Inventory != identity.ID:
			found = "is new, but there were uploads before"
		}
		if found != "" {
			return m.halt(cfg, s, path, found)
		}
	}
	reason := store.EphemeralReason()
	if reason == "" || used || api.Local {
		return nil
	}
	return &haltError{guardNewState, fmt.Sprintf("sync %q: the state %s is new, and %s: after a loss every document would be uploaded again, permanently. "+
		"Put it on a disk or a volume that lasts with --state; if losing it does no harm, run again with --accept-new-state",
		s.Name, cfg.State, reason)}
}

// halt returns the error for a state that a marker does not fit.
func (m *marker) halt(cfg *config.Config, s config.Sync, path, found string) error {
	return &haltError{guardLostState, fmt.Sprintf("sync %q: the state %s %s (to knowledge base %d on %s, with the state %s, as %s says). "+
		"What it does not know would be uploaded again, permanently. Put that state back, or load its newest backup into a new one with "+
		"kbsync state import FILE; without a backup, kbsync state adopt enters the documents of the root as uploaded. Only if all may be "+
		"uploaded again, run again with --accept-new-state",
		s.Name, cfg.State, found, m.KnowledgeBase, m.At.Format("2006-01-02 15:04 MST"), m.State, path)}
}

// uploadedTo reports whether the state has a source of the sync's knowledge base.
func uploadedTo(ctx context.Context, store *state.Store, api *API, s config.Sync) (bool, error) {
	syncs, err := store.Syncs.All(ctx)
	if err != nil {
		return false, err
	}
	for _, known := range syncs {
		if d := known.Destination; d.KnowledgeBase == s.KnowledgeBase && api.Serves(d) {
			id, err := store.Inventory.AnySource(ctx, d.ID)
			return id != 0, err
		}
	}
	return false, nil
}
