package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// openPage makes the page. It counts even if it is not served.
func (d *daemon) openPage() (err error) {
	d.host.page, err = statuspage.New(statuspage.Options{
		State:       d.opts.Store,
		Log:         d.opts.Logger,
		Version:     d.opts.Version,
		Token:       d.opts.ListenToken,
		ReadLocally: d.opts.Config.ListenRead == "loopback",
		Syncs:       d.pageSyncs,
		Sync:        d.triggerSync,
		Reindex:     d.triggerReindex,
		Estimate:    d.estimateReindex,
		Ack:         d.triggerAck,
		Reload:      d.triggerReload,
	})
	return err
}

// listen listens on the address of the config, if it has one. The returned function serves the page.
func (d *daemon) listen(ctx context.Context) (serve func(context.Context) error, err error) {
	if d.opts.Config.Listen == "" {
		return nil, nil
	}
	l, err := statuspage.Listen(ctx, d.opts.Config.Listen)
	if err != nil {
		return nil, err
	}
	d.opts.Logger.Info("listening", "address", l.Addr().String())
	return func(ctx context.Context) error { return statuspage.Serve(ctx, l, d.host.page, d.opts.Logger) }, nil
}

// pageSyncs returns the syncs as the page needs them.
func (d *daemon) pageSyncs() []statuspage.Sync {
	var syncs []statuspage.Sync
	for _, l := range d.all() {
		s := statuspage.Sync{Name: l.config.Name, Halted: Classify(l.lastErrors()).NeedsPerson()}
		if every := max(l.config.Rescan, l.opts.Config.Period); every > 0 {
			s.MaxLag = 3*every + time.Minute
		}
		syncs = append(syncs, s)
	}
	// A reload may be between stopping the loops of a sync and beginning the next ones. The sync has not left the config.
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.opts.Config.Selected {
		if !slices.ContainsFunc(syncs, func(s statuspage.Sync) bool { return s.Name == name }) {
			syncs = append(syncs, statuspage.Sync{Name: name})
		}
	}
	return syncs
}

func notFound(sync string) error { return fmt.Errorf("sync %q: %w", sync, state.ErrNotFound) }

func (d *daemon) triggerSync(_ context.Context, name string) error {
	found, err := d.named(name)
	for _, l := range found {
		l.retry()
	}
	return err
}

// selection returns the documents that a request selects.
func (d *daemon) selection(request statuspage.Reindex) (selection state.Selection, err error) {
	if request.Retry {
		selection = state.Troubled()
	}
	if request.Failed {
		selection.States = append(selection.States, state.Failed)
	}
	if request.Stuck {
		selection.States = append(selection.States, state.Stuck)
	}
	if request.Key != "" {
		selection.Keys = []string{request.Key}
	}
	if request.OlderThan > 0 {
		selection.OlderThan = d.opts.Now().Add(-request.OlderThan)
	}
	if len(request.Globs) > 0 {
		if selection.Match, err = d.opts.MatchKeys(request.Globs); err != nil {
			return selection, fmt.Errorf("%w: %w", statuspage.ErrInvalid, err)
		}
	}
	return selection, nil
}

func (d *daemon) triggerReindex(ctx context.Context, request statuspage.Reindex) (int, error) {
	found, err := d.named(request.Sync)
	if err != nil {
		return 0, err
	}
	selection, err := d.selection(request)
	if err != nil {
		return 0, err
	}
	if !request.Confirmed {
		if err := d.refuseAll(ctx, found, selection); err != nil {
			return 0, err
		}
	}
	marked, err := d.mark(ctx, found, selection)
	if err != nil || !request.Retry {
		return marked, err
	}
	for _, l := range found {
		if id := l.syncID.Load(); id != 0 {
			n, err := d.opts.Store.Queue.ReopenBlocked(ctx, id)
			if err != nil {
				return marked, err
			}
			marked += n
		}
		l.retry() // as kbsync retry, which syncs: also what waits after a failure
	}
	return marked, nil
}

// estimateReindex returns how many documents triggerReindex would mark, and their bytes.
func (d *daemon) estimateReindex(ctx context.Context, request statuspage.Reindex) (documents int, bytes int64, err error) {
	found, err := d.named(request.Sync)
	if err != nil {
		return 0, 0, err
	}
	selection, err := d.selection(request)
	if err != nil {
		return 0, 0, err
	}
	for _, l := range found {
		id := l.syncID.Load()
		if id == 0 {
			continue
		}
		n, size, err := d.opts.Store.Queue.CountSelected(ctx, id, selection)
		if err != nil {
			return 0, 0, err
		}
		documents, bytes = documents+n, bytes+size
		if !request.Retry {
			continue
		}
		for blocked, err := range d.opts.Store.Documents.Blocked(ctx, id) {
			if err != nil {
				return 0, 0, err
			}
			documents, bytes = documents+1, bytes+blocked.Fingerprint.Size
		}
	}
	return documents, bytes, nil
}

// triggerAck records that sources were removed by hand, as kbsync sources ack does. Documents that become pending are uploaded at once.
func (d *daemon) triggerAck(ctx context.Context, request statuspage.Ack) (pending int, err error) {
	destination := request.Destination
	if destination == 0 {
		if destination, err = d.onlyDestination(ctx, request.Sync); err != nil {
			return 0, err
		}
	}
	pending, err = d.opts.Store.Inventory.MarkSourcesGone(ctx, destination, request.IDs)
	if err == nil {
		d.wakeUploads()
	}
	return pending, err
}

// onlyDestination returns the destination of a sync, or the one that all syncs have if the name is empty.
func (d *daemon) onlyDestination(ctx context.Context, sync string) (destination int64, err error) {
	if sync != "" {
		s, err := d.opts.Store.Syncs.Get(ctx, sync)
		return s.Destination.ID, err
	}
	all, err := d.opts.Store.Syncs.All(ctx)
	for _, s := range all {
		if destination != 0 && destination != s.Destination.ID {
			return 0, fmt.Errorf("%w: the syncs have several destinations; name the sync or the destination", statuspage.ErrInvalid)
		}
		destination = s.Destination.ID
	}
	return destination, err
}

// refuseAll returns an error if a selection leaves out no document of a sync that has several. A glob or an age can select them all
// without saying so. Failed and stuck documents have no source that would be there twice.
func (d *daemon) refuseAll(ctx context.Context, of []*loops, selection state.Selection) error {
	if len(selection.States) > 0 {
		return nil
	}
	for _, l := range of {
		id := l.syncID.Load()
		if id == 0 {
			continue
		}
		all, _, err := d.opts.Store.Queue.CountSelected(ctx, id, state.Selection{})
		if err != nil {
			return err
		}
		some, _, err := d.opts.Store.Queue.CountSelected(ctx, id, selection)
		if err != nil {
			return err
		}
		if some == all && all > 1 {
			return fmt.Errorf("sync %q: %w", l.config.Name, statuspage.ErrUnconfirmed)
		}
	}
	return nil
}

// errEnding is the answer to a reload that the end of the process precedes.
var errEnding = errors.New("kbsync is ending")

// triggerReload hands the reload to the event loop, and waits until the config is in effect.
func (d *daemon) triggerReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case d.reloads <- answer:
	case <-ctx.Done():
		return errEnding
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return errEnding
	}
}
