package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

func (a *app) watchCommand() *cobra.Command {
	o := passOptions{wait: true}
	oneTime := false
	cmd := &cobra.Command{
		Use:   "watch [NAME...]",
		Short: "Stay, and keep the knowledge bases true to the roots",
		Long: `watch stays and works on all syncs of the config, or on those that are named, each by itself: it notices changes as they
happen, lists each root now and then all the same (--rescan), uploads what has settled, and follows the training. A sync
that has trouble waits and tries again; no other sync has to wait for it.

SIGHUP reads the config again, SIGTERM and SIGINT end in good order, SIGUSR1 writes how things stand to the log.

  kbsync watch --listen :9090`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			if oneTime {
				return a.sync(cmd.Context(), cfg, o)
			}
			return a.watch(cmd.Context(), cfg, o, func() (*config.Config, error) { return a.load(cmd, args...) })
		},
	}
	settingFlags(cmd.Flags(), config.ScopeSync, config.ScopeWatch)
	acceptFlags(cmd, &o)
	cmd.Flags().BoolVar(&oneTime, "one-time", false, "Make one pass, wait for the training, and end with the code of kbsync sync.")
	return cmd
}

// How long a watch waits before it tries again.
const (
	fatalPause   = 5 * time.Minute // what a person has to mend: the token, the knowledge base, a quota
	outagePause  = time.Hour       // after too many lost answers: each upload that is tried may be there twice
	leastPause   = time.Second
	mostPause    = time.Minute
	tokenEvery   = 5 * time.Second // the token's file is looked at
	statusEvery  = 5 * time.Second // the service manager is told
	loopsTick    = 2 * time.Minute // a loop that does not tick for so long hangs
	tickEvery    = 15 * time.Second
	guardPause   = 30 * time.Second
	missingPause = 10 * time.Second
)

// pause is how long to wait after so many failures in a row.
func pause(failures int, least, most time.Duration) time.Duration {
	return min(least<<min(max(failures-1, 0), 16), most)
}

// A bell says that there may be something to do. The latest wins.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (s bell) ring() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// A daemon is a run of watch: a keeper for each sync, and a tracker for each destination.
type daemon struct {
	app     *app
	options passOptions
	load    func() (*config.Config, error)
	store   *state.Store
	page    *statuspage.Page
	beacons *beacons
	service *service

	reloads chan chan error

	// Of the goroutine that runs it alone.
	group *errgroup.Group
	token os.FileInfo // of the token's file, when it was looked at last

	mu        sync.Mutex
	cfg       *config.Config
	api       *api
	keepers   map[string]*keeper
	following map[int64]*followed // by destination
	trackCtx  context.Context     // of the trackers
	stop      context.CancelFunc  // ends it
	tracking  sync.WaitGroup
}

// watch works on the selected syncs until ctx ends.
func (a *app) watch(ctx context.Context, cfg *config.Config, o passOptions, load func() (*config.Config, error)) (err error) {
	if _, err := selected(cfg); err != nil {
		return err
	}
	// First of all, for a signal that nobody waits for ends the process.
	reload, dump, end := watchRequests()
	defer end()
	a.out.logFixed = true // --log-format is one thing that a reload leaves as it is
	// As it is before it is read for the first time.
	token, _ := os.Stat(cfg.API.TokenFile)
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	store, err := a.open(ctx, cfg, false)
	if err != nil {
		return errors.Join(err, api.close())
	}
	defer closeStore(store, &err)
	d := &daemon{
		app: a, options: o, load: load, store: store, cfg: cfg, api: api, token: token,
		reloads: make(chan chan error), keepers: map[string]*keeper{}, service: newService(),
	}
	defer func() { err = errors.Join(err, d.api.close()) }()
	if err := d.openPage(); err != nil {
		return err
	}
	d.beacons = &beacons{app: a, cfg: cfg, page: d.page}
	d.page.Metrics.Reloaded(true)
	keepers, err := d.prepare(ctx, cfg, api)
	if err != nil {
		return err
	}
	listening, err := d.listen(ctx)
	if err != nil {
		return errors.Join(err, release(keepers))
	}
	// The group's context ends when a part of it fails that no sync can be without.
	group, ctx := errgroup.WithContext(ctx)
	d.group = group
	if listening != nil {
		group.Go(func() error { return listening(ctx) })
	}
	d.trackAnew(ctx)
	for _, k := range keepers {
		d.begin(ctx, k)
	}
	group.Go(func() error {
		d.attend(ctx, reload, dump)
		return nil
	})
	err = group.Wait()
	d.stop()
	d.tracking.Wait()
	switch {
	case a.signals.hard.Err() != nil:
		return errors.Join(err, &exitError{exitInterrupted, errors.New("cut before everything was done")})
	case err != nil && a.signals.soft.Err() == nil:
		return err
	}
	a.out.log.Info("ended in good order")
	return nil
}

// prepare makes the keepers of a config, with their locks: two that work on one sync is nothing that waiting helps with.
func (d *daemon) prepare(ctx context.Context, cfg *config.Config, api *api) (keepers []*keeper, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, release(keepers))
		}
	}()
	syncs, err := selected(cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range syncs {
		k, err := d.newKeeper(cfg, api, s)
		if err != nil {
			return keepers, err
		}
		if k.lock, err = d.store.Lock(ctx, s.Name, cfg.LockTimeout); err != nil {
			return keepers, err
		}
		keepers = append(keepers, k)
	}
	return keepers, nil
}

func release(keepers []*keeper) (err error) {
	for _, k := range keepers {
		err = errors.Join(err, k.unlock())
	}
	return err
}

// begin starts a keeper.
func (d *daemon) begin(ctx context.Context, k *keeper) {
	ctx, k.cancel = context.WithCancel(ctx)
	d.mu.Lock()
	d.keepers[k.config.Name] = k
	d.mu.Unlock()
	d.group.Go(func() error {
		defer close(k.done)
		k.run(ctx)
		return nil
	})
}

// all returns the keepers, by name.
func (d *daemon) all() []*keeper {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*keeper
	for _, k := range d.keepers {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *keeper) int { return strings.Compare(a.config.Name, b.config.Name) })
	return all
}

// attend does what is asked of the daemon as a whole.
func (d *daemon) attend(ctx context.Context, reload, dump <-chan os.Signal) {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	watchdog := d.service.watchdog()
	defer watchdog.Stop()
	ready := false
	for {
		select {
		case <-ctx.Done():
			d.service.say("STOPPING=1")
			return
		case <-reload:
			_ = d.reload(ctx) // it is logged
		case answer := <-d.reloads:
			answer <- d.reload(ctx)
		case <-dump:
			d.dump(ctx)
		case <-watchdog.C:
			if d.healthy() {
				d.service.say("WATCHDOG=1")
			}
		case <-ticker.C:
			d.lookAtToken()
			d.beacons.writeMetrics()
		case <-d.service.changed:
		}
		if !ready && d.allScanned() {
			ready = true
			d.app.out.log.Info("ready", "syncs", len(d.all()))
			d.service.say("READY=1")
		}
		d.service.status(d.summary(ctx))
	}
}

func (d *daemon) allScanned() bool {
	return !slices.ContainsFunc(d.all(), func(k *keeper) bool { return !k.looked.Load() })
}

func (d *daemon) healthy() bool {
	return !slices.ContainsFunc(d.all(), func(k *keeper) bool { return !k.healthy() })
}

// lookAtToken tries again what was refused when the token's file has changed.
func (d *daemon) lookAtToken() {
	d.mu.Lock()
	path := d.cfg.API.TokenFile
	d.mu.Unlock()
	if path == "" {
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		return // whoever needs it says so
	}
	before := d.token
	d.token = info
	if before != nil && (!os.SameFile(before, info) || !before.ModTime().Equal(info.ModTime()) || before.Size() != info.Size()) {
		d.app.out.log.Info("the token's file has changed")
		d.retry()
	}
}

// retry makes everything that waits after a failure try again now.
func (d *daemon) retry() {
	for _, k := range d.all() {
		k.retry()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.following {
		f.again.ring()
	}
}

// reload reads the config again. What is wrong leaves everything as it was.
func (d *daemon) reload(ctx context.Context) (err error) {
	d.service.reloading()
	log := d.app.out.log
	defer func() {
		d.page.Metrics.Reloaded(err == nil)
		if err != nil {
			log.Error("the config is not taken; the one before stays", "error", err)
		}
		d.service.say("READY=1")
	}()
	cfg, err := d.load()
	if err != nil {
		return err
	}
	if _, err := selected(cfg); err != nil {
		return err
	}
	old := d.cfg
	switch {
	case cfg.State != old.State:
		return fmt.Errorf("the state is another one now (%s); restart kbsync for that", cfg.State)
	case cfg.Listen != old.Listen || cfg.ListenTokenFile != old.ListenTokenFile:
		return errors.New("the listener's address or token is another one now; restart kbsync for that")
	}
	api, anew := d.api, !reflect.DeepEqual(shared(cfg), shared(old))
	if anew && !d.app.useEmulator {
		if api, err = d.app.connect(ctx, cfg); err != nil {
			return err
		}
	}
	var leave, enter []*keeper
	keep := 0
	for _, k := range d.all() {
		if s, ok := cfg.Sync(k.config.Name); ok && slices.Contains(cfg.Selected, s.Name) && !anew && reflect.DeepEqual(s, k.config) {
			keep++
			k.retry()
			continue
		}
		leave = append(leave, k)
	}
	for _, name := range cfg.Selected {
		s, _ := cfg.Sync(name)
		if have := d.keeper(name); have != nil && !slices.Contains(leave, have) {
			continue
		}
		k, err := d.newKeeper(cfg, api, s)
		if err != nil {
			if api != d.api {
				err = errors.Join(err, api.close())
			}
			return err
		}
		enter = append(enter, k)
	}
	// From here on nothing can go wrong.
	for _, k := range leave {
		k.cancel()
	}
	for _, k := range leave {
		<-k.done
		d.mu.Lock()
		delete(d.keepers, k.config.Name)
		d.mu.Unlock()
		d.beacons.forget(k.config.Name)
	}
	if anew {
		d.stop()
		d.tracking.Wait()
	}
	d.mu.Lock()
	was := d.api
	d.cfg, d.api = cfg, api
	d.mu.Unlock()
	d.beacons.use(cfg)
	if anew {
		if was != api {
			_ = was.close() // only idle connections
		}
		d.trackAnew(ctx)
	}
	for _, k := range enter {
		d.begin(ctx, k)
	}
	d.retry()
	log.Info("the config is read again", "syncs", len(cfg.Selected), "as_before", keep, "begun", len(enter), "ended", len(leave))
	return nil
}

// shared is a config without what is a sync's own.
func shared(cfg *config.Config) config.Config {
	c := *cfg
	c.Syncs, c.Selected, c.Warnings = nil, nil, nil
	return c
}

func (d *daemon) keeper(name string) *keeper {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keepers[name]
}

// A followed destination is one whose training is followed.
type followed struct {
	wake  bell // there may be new sources
	again bell // what was refused may go through now
	// refused says that no status request was answered since the last failure.
	refused atomic.Bool
}

// trackAnew makes the trackers that begin from now on end with stop.
func (d *daemon) trackAnew(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = stop
	d.following = map[int64]*followed{}
	d.trackCtx = ctx
}

// follow starts the tracker of a destination, unless it runs.
func (d *daemon) follow(dest state.Destination) *followed {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.following[dest.ID]; f != nil {
		return f
	}
	f := &followed{wake: newBell(), again: newBell()}
	d.following[dest.ID] = f
	ctx, client, cfg := d.trackCtx, d.api.client, d.cfg
	options := tracker.Options{
		Logger:       d.app.out.log,
		Min:          cfg.Poll.Min,
		Max:          cfg.Poll.Max,
		TrainTimeout: cfg.TrainTimeout,
		Patience:     -1,
		Wake:         f.wake,
		Trained:      d.page.Metrics.Trained,
		Answered: func(statusCode int) {
			d.page.Metrics.StatusRequest(statusCode)
			if statusCode == http.StatusOK && f.refused.CompareAndSwap(true, false) {
				d.trouble(dest.ID, nil)
			}
		},
		Progress: func(r tracker.Result) {
			if r.Completed+r.Failed+r.Stuck > 0 {
				d.changed(dest.ID)
			}
		},
	}
	if cfg.TrainTimeout == 0 {
		options.TrainTimeout = -1
	}
	d.tracking.Go(func() {
		for failures := 1; ; failures++ {
			began := time.Now()
			_, err := tracker.New(d.store, client, dest, options).Run(ctx)
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) > mostPause {
				failures = 1
			}
			wait := pause(failures, leastPause, mostPause)
			if code := exitCode(err); code == exitFatal || code == exitUsage {
				wait = fatalPause
			}
			f.refused.Store(true)
			d.trouble(dest.ID, err)
			if !rest(ctx, wait, f.again) {
				return
			}
		}
	})
	return f
}

// rest waits, unless it is cut short; it is false when the context has ended.
func rest(ctx context.Context, d time.Duration, short ...bell) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var cut bell
	if len(short) > 0 {
		cut = short[0]
	}
	select {
	case <-timer.C:
	case <-cut:
	case <-ctx.Done():
		return false
	}
	return true
}

// wake tells the tracker of a destination that there may be new sources.
func (d *daemon) wake(destination int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.following[destination]; f != nil {
		f.wake.ring()
	}
}

// changed tells the keepers of a destination that their documents' training went on.
func (d *daemon) changed(destination int64) {
	for _, k := range d.all() {
		if k.destination.Load() == destination {
			k.changed.ring()
		}
	}
}

func (d *daemon) trouble(destination int64, err error) {
	for _, k := range d.all() {
		if k.destination.Load() == destination {
			k.trouble(ofTraining, err)
		}
	}
}

// summary is a line about everything.
func (d *daemon) summary(ctx context.Context) string {
	all := d.all()
	waiting, training, troubled := 0, 0, 0
	for _, k := range all {
		if id := k.id.Load(); id != 0 {
			if n, err := d.store.Documents.Outstanding(ctx, id); err == nil {
				waiting += n[state.Pending] + n[state.Uploading]
				training += n[state.Training]
			}
		}
		if k.troubled() != nil {
			troubled++
		}
	}
	text := fmt.Sprintf("%s, %d documents waiting, %d in training", count(len(all), "sync"), waiting, training)
	if troubled > 0 {
		text += fmt.Sprintf("; %s with trouble", count(troubled, "sync"))
	}
	return text
}

// dump writes how things stand to the log.
func (d *daemon) dump(ctx context.Context) {
	log := d.app.out.log
	for _, k := range d.all() {
		args := []any{"sync", k.config.Name, "root", k.config.Root.String(), "scanned", k.looked.Load(), "healthy", k.healthy()}
		if id := k.id.Load(); id != 0 {
			counts, err := d.store.Documents.Outstanding(ctx, id)
			if err != nil {
				log.Error("the state cannot be read", "error", err)
			}
			for _, st := range []state.DocumentState{state.Pending, state.Uploading, state.Training, state.Failed, state.Stuck, state.Uncertain} {
				args = append(args, string(st), counts[st])
			}
		}
		args = append(args, k.describe()...)
		if err := k.troubled(); err != nil {
			args = append(args, "trouble", err)
		}
		log.Info("status", args...)
	}
}
