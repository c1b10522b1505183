package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/watcher"
)

// A reload is the way from one config to another.
type reload struct {
	config    *config.Config
	api       *API
	useToken  func() // nil if no command gives the token
	track     bool   // the trackers have other options
	stop      []*loops
	start     []*loops
	unchanged int
	err       error // nothing is applied
}

// reloading has the reloads that are demanded. One is planned at a time, beside the event loop, because a command that gives a token and a
// root on a network may take long.
type reloading struct {
	planning bool
	demanded []chan error // the answers to demands that came since the planning began
	begun    []chan error // the answers to those before
	planned  chan *reload // of size one
}

// demandReload plans a reload, or another one after that which is being planned: the config may have changed since that read it.
// answer, if not nil, receives the error; its size is one.
func (d *daemon) demandReload(ctx context.Context, answer chan error) {
	if answer == nil {
		answer = make(chan error, 1)
	}
	d.reloading.demanded = append(d.reloading.demanded, answer)
	d.beginReload(ctx)
}

func (d *daemon) beginReload(ctx context.Context) {
	r := &d.reloading
	if r.planning || len(r.demanded) == 0 {
		return
	}
	r.planning, r.begun, r.demanded = true, r.demanded, nil
	d.service.reloading()
	d.group.Go(func() error {
		r.planned <- d.planReload(ctx)
		return nil
	})
}

// endReload applies a planned reload. After an error everything is as it was before.
func (d *daemon) endReload(ctx context.Context, r *reload) {
	if r.err != nil {
		d.opts.Logger.Error("config reload failed, keeping the previous one", "error", r.err)
	} else {
		d.apply(ctx, r)
		d.opts.Logger.Info("config reloaded",
			"syncs", len(r.config.Selected), "unchanged", r.unchanged, "started", len(r.start), "stopped", len(r.stop))
	}
	d.host.page.Metrics.Reloaded(r.err == nil)
	d.service.notify("READY=1")
	for _, answer := range d.reloading.begun {
		answer <- r.err
	}
	d.reloading.planning, d.reloading.begun = false, nil
	d.beginReload(ctx)
}

// refuse answers all demands, because the process ends.
func (r *reloading) refuse() {
	for _, answer := range slices.Concat(r.begun, r.demanded) {
		answer <- errEnding
	}
	r.begun, r.demanded = nil, nil
}

// discard gives up a reload that was planned and not applied. Nothing is being planned any more.
func (r *reloading) discard() error {
	select {
	case planned := <-r.planned:
		return discard(planned.start)
	default:
		return nil
	}
}

// fixed returns an error if a setting has changed that a running process cannot change.
func fixed(old, cfg *config.Config) error {
	switch {
	case cfg.State != old.State:
		return fmt.Errorf("the state has changed to %s; restart kbsync for that", cfg.State)
	case cfg.Listen != old.Listen || cfg.ListenTokenFile != old.ListenTokenFile || cfg.ListenRead != old.ListenRead:
		return errors.New("the listener's address, token or readers have changed; restart kbsync for that")
	}
	return nil
}

// planReload reads the config and makes everything that can fail: the connection, the loops of syncs that are new or have changed, and
// last the token. It changes nothing.
func (d *daemon) planReload(ctx context.Context) *reload {
	r := &reload{api: d.opts.API}
	if r.err = d.plan(ctx, r); r.err == nil {
		return r
	}
	r.err = errors.Join(r.err, discard(r.start))
	if r.api != d.opts.API {
		r.err = errors.Join(r.err, r.api.Close())
	}
	r.start = nil
	return r
}

func (d *daemon) plan(ctx context.Context, r *reload) (err error) {
	old := d.opts.Config
	cfg, err := d.opts.Load()
	if err != nil {
		return err
	}
	if err := fixed(old, cfg); err != nil {
		return err
	}
	r.config = cfg
	reconnect := changed(connectionSettings, old, cfg)
	r.track = changed(trackerSettings, old, cfg)
	if reconnect && d.opts.Connect != nil {
		if r.api, err = d.opts.Connect(ctx, cfg); err != nil {
			r.api = d.opts.API
			return err
		}
	}
	var kept []string
	for _, l := range d.all() {
		s, ok := cfg.Sync(l.config.Name)
		if ok && slices.Contains(cfg.Selected, s.Name) && sameLoops(old, l.config, cfg, s) {
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
			return err
		}
		r.start = append(r.start, l)
	}
	if !reconnect && d.opts.API.RenewToken != nil {
		r.useToken, err = d.opts.API.RenewToken(ctx)
	}
	return err
}

// apply puts a reload into effect. It cannot fail, and waits for no request: the loops of a sync that is to restart end when the answers
// to their requests are recorded, and then its new loops begin.
func (d *daemon) apply(ctx context.Context, r *reload) {
	if r.useToken != nil {
		r.useToken()
	}
	if d.opts.API != r.api {
		_ = d.opts.API.Close() // the requests under way keep their connections
	}
	d.mu.Lock()
	d.opts.Config, d.opts.API = r.config, r.api
	d.mu.Unlock()
	if d.opts.Loaded != nil {
		d.opts.Loaded(r.config)
	}
	d.host.files.SetPaths(statusPaths(r.config))
	for _, l := range r.stop {
		d.stop(l)
	}
	if r.track {
		d.host.trackers.restart(d.endless(), d.opts.API.Serves)
	}
	for _, l := range r.start {
		d.begin(ctx, l)
	}
	d.retry()
}

// changed reports whether those settings of two configs differ.
func changed(settings func(*config.Config) any, old, cfg *config.Config) bool {
	return !reflect.DeepEqual(settings(old), settings(cfg))
}

// connectionSettings returns the settings that the connection to the API is made from.
func connectionSettings(cfg *config.Config) any { return cfg.API }

// trackerSettings returns the settings that trackers are made from.
func trackerSettings(cfg *config.Config) any { return []any{cfg.API, cfg.Poll, cfg.TrainTimeout} }

// sameLoops reports whether the loops of a sync are made from the same settings in both configs.
func sameLoops(old *config.Config, was config.Sync, cfg *config.Config, is config.Sync) bool {
	return reflect.DeepEqual(was, is) && !changed(loopSettings, old, cfg) &&
		slices.Equal(privateKeys(old, was), privateKeys(cfg, is))
}

// loopSettings returns the settings outside of the syncs that the loops of each sync are made from: all that are not known to have no
// part in them.
func loopSettings(cfg *config.Config) any {
	c := *cfg
	c.Syncs, c.Selected, c.Warnings = nil, nil, nil
	c.Log = config.Log{}                                 // of the console
	c.ShutdownGrace = 0                                  // read at the end of the process
	c.LockTimeout = 0                                    // the loops have the lock, or try again
	c.MaxTransfer, c.MaxDuration = 0, 0                  // of a pass
	c.Poll.Max, c.TrainTimeout = 0, 0                    // of the trackers
	c.TouchFile, c.ErrorFile, c.MetricsFile = "", "", "" // of the status files; in a root they are private files
	return c
}

// privateKeys returns the keys of the files of kbsync in the root of a sync.
func privateKeys(cfg *config.Config, s config.Sync) []string {
	if s.Root.Dir == "" {
		return nil
	}
	keys := watcher.OwnKeys(s.Root.Dir, cfg.Private()...)
	slices.Sort(keys)
	return slices.Compact(keys)
}
