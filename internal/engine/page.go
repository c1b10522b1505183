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

func (d *daemon) triggerReindex(ctx context.Context, trigger statuspage.Reindex) (int, error) {
	found, err := d.named(trigger.Sync)
	if err != nil {
		return 0, err
	}
	selection := state.Selection{}
	if trigger.Failed {
		selection.States = append(selection.States, state.Failed)
	}
	if trigger.Stuck {
		selection.States = append(selection.States, state.Stuck)
	}
	if trigger.OlderThan > 0 {
		selection.OlderThan = d.opts.Now().Add(-trigger.OlderThan)
	}
	if len(trigger.Globs) > 0 {
		if selection.Match, err = d.opts.MatchKeys(trigger.Globs); err != nil {
			return 0, fmt.Errorf("%w: %w", statuspage.ErrInvalid, err)
		}
	}
	if !trigger.Confirmed {
		if err := d.refuseAll(ctx, found, selection); err != nil {
			return 0, err
		}
	}
	return d.mark(ctx, found, selection)
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
