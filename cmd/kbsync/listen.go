package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// openPage makes the page, which counts whether it is served or not.
func (d *daemon) openPage() error {
	options := statuspage.Options{
		State:   d.store,
		Log:     d.app.out.log,
		Version: buildVersion(),
		Syncs:   d.views,
		Sync:    d.wishSync,
		Reindex: d.wishReindex,
		Reload:  d.wishReload,
	}
	if path := d.cfg.ListenTokenFile; path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("read --listen-token-file: %w", err)}
		}
		if options.Token, err = d.app.aToken(data); err != nil {
			return &exitError{exitUsage, fmt.Errorf("--listen-token-file %s %w", path, err)}
		}
	}
	var err error
	d.page, err = statuspage.New(options)
	return err
}

// listen takes the address, if there is one. The returned function serves it.
func (d *daemon) listen(ctx context.Context) (func(context.Context) error, error) {
	if d.cfg.Listen == "" {
		return nil, nil
	}
	l, err := statuspage.Listen(ctx, d.cfg.Listen)
	if err != nil {
		return nil, err
	}
	d.app.out.log.Info("listening", "address", l.Addr().String())
	return func(ctx context.Context) error { return statuspage.Serve(ctx, l, d.page, d.app.out.log) }, nil
}

// views are the syncs as the page has to know them.
func (d *daemon) views() []statuspage.Sync {
	var views []statuspage.Sync
	for _, k := range d.all() {
		v := statuspage.Sync{Name: k.config.Name}
		if err := k.troubled(); err != nil {
			v.Halted = halts(err)
		}
		if every := max(k.config.Rescan, k.cfg.Period); every > 0 {
			v.MaxLag = 3*every + time.Minute
		}
		views = append(views, v)
	}
	return views
}

// wished returns the keepers that a wish is for.
func (d *daemon) wished(name string) ([]*keeper, error) {
	if name == "" {
		return d.all(), nil
	}
	if k := d.keeper(name); k != nil {
		return []*keeper{k}, nil
	}
	return nil, fmt.Errorf("sync %q: %w", name, state.ErrNotFound)
}

func (d *daemon) wishSync(_ context.Context, name string) error {
	keepers, err := d.wished(name)
	for _, k := range keepers {
		k.retry()
	}
	return err
}

func (d *daemon) wishReindex(ctx context.Context, wish statuspage.Reindex) (int, error) {
	keepers, err := d.wished(wish.Sync)
	if err != nil {
		return 0, err
	}
	sel := state.Selection{}
	if wish.Failed {
		sel.States = append(sel.States, state.Failed)
	}
	if wish.Stuck {
		sel.States = append(sel.States, state.Stuck)
	}
	if wish.OlderThan > 0 {
		sel.OlderThan = d.app.now().Add(-wish.OlderThan)
	}
	if len(wish.Globs) > 0 {
		if sel.Match, err = keyMatcher(wish.Globs); err != nil {
			return 0, err
		}
	}
	marked := 0
	for _, k := range keepers {
		if k.id.Load() == 0 {
			continue
		}
		n, err := d.store.Queue.Mark(ctx, k.id.Load(), sel)
		if err != nil {
			return marked, err
		}
		marked += n
		k.again.ring()
		k.due.ring()
	}
	return marked, nil
}

// wishReload asks the goroutine that reloads, and waits for it.
func (d *daemon) wishReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case d.reloads <- answer:
		return <-answer
	case <-ctx.Done():
		return errors.New("kbsync is ending, or busy")
	}
}
