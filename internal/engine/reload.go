package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/kbsync/kbsync/internal/config"
)

// A reload is the way from one config to another.
type reload struct {
	config    *config.Config
	api       *API
	reconnect bool // a setting outside of the syncs has changed: all loops and trackers are replaced
	stop      []*loops
	start     []*loops
	unchanged int
}

// reload reads the config again. After an error everything is as it was before.
func (d *daemon) reload(ctx context.Context) (err error) {
	d.service.reloading()
	defer func() {
		d.host.page.Metrics.Reloaded(err == nil)
		if err != nil {
			d.opts.Logger.Error("config reload failed, keeping the previous one", "error", err)
		}
		d.service.notify("READY=1")
	}()
	cfg, err := d.opts.Load()
	if err != nil {
		return err
	}
	if err := fixed(d.opts.Config, cfg); err != nil {
		return err
	}
	r, err := d.planReload(ctx, cfg)
	if err != nil {
		return err
	}
	d.apply(ctx, r)
	d.opts.Logger.Info("config reloaded",
		"syncs", len(cfg.Selected), "unchanged", r.unchanged, "started", len(r.start), "stopped", len(r.stop))
	return nil
}

// fixed returns an error if a setting has changed that a running process cannot change.
func fixed(old, cfg *config.Config) error {
	switch {
	case cfg.State != old.State:
		return fmt.Errorf("the state has changed to %s; restart kbsync for that", cfg.State)
	case cfg.Listen != old.Listen || cfg.ListenTokenFile != old.ListenTokenFile:
		return errors.New("the listener's address or token has changed; restart kbsync for that")
	}
	return nil
}

// planReload makes everything that can fail: the connection and the loops of syncs that are new or have changed.
func (d *daemon) planReload(ctx context.Context, cfg *config.Config) (r *reload, err error) {
	r = &reload{config: cfg, api: d.opts.API, reconnect: !reflect.DeepEqual(common(cfg), common(d.opts.Config))}
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, discard(r.start))
		if r.api != d.opts.API {
			err = errors.Join(err, r.api.Close())
		}
	}()
	if r.reconnect && d.opts.Connect != nil {
		api, err := d.opts.Connect(ctx, cfg)
		if err != nil {
			return r, err
		}
		r.api = api
	}
	var kept []string
	for _, l := range d.all() {
		s, ok := cfg.Sync(l.config.Name)
		if ok && slices.Contains(cfg.Selected, s.Name) && !r.reconnect && reflect.DeepEqual(s, l.config) {
			kept = append(kept, s.Name)
			continue
		}
		r.stop = append(r.stop, l)
	}
	r.unchanged = len(kept)
	opts := d.opts.Options
	opts.Config, opts.API = cfg, r.api
	for _, s := range opts.syncs() {
		if slices.Contains(kept, s.Name) {
			continue
		}
		l, err := newLoops(ctx, opts, &d.host, s)
		if err != nil {
			return r, err
		}
		r.start = append(r.start, l)
	}
	return r, nil
}

// apply replaces the loops. It cannot fail.
func (d *daemon) apply(ctx context.Context, r *reload) {
	for _, l := range r.stop {
		l.cancel()
	}
	for _, l := range r.stop {
		<-l.done
		d.mu.Lock()
		delete(d.loops, l.config.Name)
		d.mu.Unlock()
		d.host.files.SetProblem(l.config.Name, nil)
	}
	if r.reconnect {
		d.host.trackers.stop()
	}
	if d.opts.API != r.api {
		_ = d.opts.API.Close() // it has only idle connections
	}
	d.opts.Config, d.opts.API = r.config, r.api
	d.host.files.SetPaths(statusPaths(r.config))
	if r.reconnect {
		d.host.trackers = d.newTrackers(ctx, d.opts.Options)
	}
	for _, l := range r.start {
		d.begin(ctx, l)
	}
	d.retry()
}

// common returns the settings of a config that all syncs share.
func common(cfg *config.Config) config.Config {
	c := *cfg
	c.Syncs, c.Selected, c.Warnings = nil, nil, nil
	return c
}
