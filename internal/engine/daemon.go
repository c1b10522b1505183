package engine

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// DaemonOptions are the options of RunDaemon.
type DaemonOptions struct {
	Options
	// Load reads the config again. The config that it returns selects at least one sync.
	Load func() (*config.Config, error)
	// Connect connects to the API of another config. If it is nil, the connection stays the same.
	Connect func(context.Context, *config.Config) (*API, error)
	// TokenChanged reports whether the token of the config has changed since the last call. It must be quick.
	TokenChanged func(*config.Config) bool
	// MatchKeys returns a function that matches keys with globs.
	MatchKeys func(globs []string) (func(key string) bool, error)
	// ListenToken protects the page; empty for none.
	ListenToken string
	// Reload and Dump receive a value when a person wants the config read again, or the status in the log. Optional.
	Reload, Dump <-chan os.Signal
}

// A daemon supervises the loops of all its syncs.
type daemon struct {
	opts    DaemonOptions // Config and API are those of the last reload
	host    host
	service *service
	reloads chan chan error // requests of the page
	group   *errgroup.Group

	mu    sync.Mutex
	loops map[string]*loops // by the name of the sync
}

// statusEvery is how often the daemon looks at the token and writes the metrics file.
const statusEvery = 5 * time.Second

// recoverEvery is how often the daemon recovers syncs that no process works on, and recoverSharedEvery how often it recovers the
// work of processes that share the state and have lost their lease.
const (
	recoverEvery       = time.Minute
	recoverSharedEvery = 10 * time.Second
)

// RunDaemon works on the selected syncs until ctx ends. It closes the API.
func RunDaemon(ctx context.Context, opts DaemonOptions) (err error) {
	d := &daemon{opts: opts, service: newService(), reloads: make(chan chan error), loops: map[string]*loops{}}
	defer func() { err = errors.Join(err, d.opts.API.Close()) }()
	if err := d.openPage(); err != nil {
		return err
	}
	d.host.changed = newWakeup()
	d.host.files = newStatusFiles(&d.opts.Options, d.host.page)
	d.host.page.Metrics.Reloaded(true)
	prepared, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	serve, err := d.listen(ctx)
	if err != nil {
		return errors.Join(err, discard(prepared))
	}
	// The context of the group ends when a part fails that all syncs need.
	group, running := errgroup.WithContext(ctx)
	d.group = group
	if serve != nil {
		group.Go(func() error { return serve(running) })
	}
	d.host.trackers = d.newTrackers(running, d.opts.Options)
	for _, l := range prepared {
		d.begin(running, l)
	}
	group.Go(func() error {
		d.eventLoop(running)
		return nil
	})
	group.Go(func() error {
		opts.Store.Listen(running, d.wakeUploads)
		return nil
	})
	group.Go(func() error {
		backUpDaily(running, opts.Options)
		return nil
	})
	err = group.Wait()
	d.host.trackers.stop()
	switch {
	case opts.Cut.Err() != nil:
		return errors.Join(err, WithClass(ClassInterrupted, errors.New("cut before everything was done")))
	case err != nil && ctx.Err() == nil:
		return err
	}
	opts.Logger.Info("shut down cleanly")
	return nil
}

// prepare returns the loops of the selected syncs, with their locks. If another process works on one of them, it fails: waiting
// would not help.
func (d *daemon) prepare(ctx context.Context) (prepared []*loops, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(prepared))
		}
	}()
	for _, s := range d.opts.syncs() {
		l, err := newLoops(ctx, d.opts.Options, &d.host, s)
		if err != nil {
			return prepared, err
		}
		prepared = append(prepared, l)
		if d.opts.Store.Shared() {
			continue // processes that share a state stand by for each other
		}
		if err := l.takeLock(ctx, d.opts.Config.LockTimeout); err != nil {
			return prepared, err
		}
	}
	return prepared, nil
}

func discard(prepared []*loops) (err error) {
	for _, l := range prepared {
		err = errors.Join(err, l.discard())
	}
	return err
}

// begin starts the loops of a sync.
func (d *daemon) begin(ctx context.Context, l *loops) {
	ctx, l.cancel = context.WithCancel(ctx)
	d.mu.Lock()
	d.loops[l.config.Name] = l
	d.mu.Unlock()
	d.group.Go(func() error {
		defer close(l.done)
		l.run(ctx)
		return nil
	})
}

// newTrackers returns a pool of trackers that report to the loops.
func (d *daemon) newTrackers(ctx context.Context, opts Options) *Trackers {
	return newEndlessTrackers(ctx, opts, d.host.page.Metrics, trainingReport{
		progressed: func(id int64) {
			for _, l := range d.at(id) {
				l.changed.signal()
			}
		},
		failed: func(id int64, err error) {
			for _, l := range d.at(id) {
				l.setError(stageTraining, err)
			}
		},
	})
}

// all returns the loops of all syncs, by name.
func (d *daemon) all() []*loops {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*loops
	for _, l := range d.loops {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *loops) int { return strings.Compare(a.config.Name, b.config.Name) })
	return all
}

// at returns the loops of the syncs with a destination.
func (d *daemon) at(destinationID int64) []*loops {
	return slices.DeleteFunc(d.all(), func(l *loops) bool { return l.destinationID.Load() != destinationID })
}

// named returns the loops of the sync with this name, or of all syncs if it is empty.
func (d *daemon) named(name string) ([]*loops, error) {
	all := d.all()
	if name == "" {
		return all, nil
	}
	i := slices.IndexFunc(all, func(l *loops) bool { return l.config.Name == name })
	if i < 0 {
		return nil, notFound(name)
	}
	return all[i : i+1], nil
}

// eventLoop handles reloads, signals and timers of the whole daemon until ctx ends.
func (d *daemon) eventLoop(ctx context.Context) {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	every := recoverEvery
	if d.opts.Store.Shared() {
		every = recoverSharedEvery
	}
	recovery := time.NewTicker(every)
	defer recovery.Stop()
	watchdog := d.service.ticker()
	defer watchdog.Stop()
	ready := false
	for {
		select {
		case <-ctx.Done():
			d.service.notify("STOPPING=1")
			return
		case <-d.opts.Reload:
			_ = d.reload(ctx) // it logs its error
		case answer := <-d.reloads:
			answer <- d.reload(ctx)
		case <-d.opts.Dump:
			d.dump(ctx)
		case <-watchdog.C:
			if d.healthy() {
				d.service.notify("WATCHDOG=1")
			}
		case <-ticker.C:
			if d.opts.TokenChanged(d.opts.Config) {
				d.opts.Logger.Info("the token file changed, retrying")
				d.retry()
			}
			d.host.files.WriteMetrics()
		case <-recovery.C:
			recoverUnowned(ctx, &d.opts.Options)
		case <-d.host.changed:
		}
		if !ready && d.allScanned() {
			ready = true
			d.opts.Logger.Info("ready", "syncs", len(d.all()))
			d.service.notify("READY=1")
		}
		d.service.status(d.summary(ctx))
	}
}

// wakeUploads signals to all loops that documents may be due.
func (d *daemon) wakeUploads() {
	for _, l := range d.all() {
		l.due.signal()
	}
}

// retry makes everything that waits after a failure try again now.
func (d *daemon) retry() {
	for _, l := range d.all() {
		l.retry()
	}
	d.host.trackers.retryAll()
}

// mark marks documents of the given syncs to be uploaded once more, and returns how many.
func (d *daemon) mark(ctx context.Context, of []*loops, selection state.Selection) (int, error) {
	marked := 0
	for _, l := range of {
		id := l.syncID.Load()
		if id == 0 {
			continue
		}
		n, err := d.opts.Store.Queue.Mark(ctx, id, selection)
		if err != nil {
			return marked, err
		}
		marked += n
		l.retryNow.signal()
		l.due.signal()
	}
	return marked, nil
}
