package engine

import (
	"context"
	"errors"
	"maps"
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
	// Load reads the config again and changes nothing. The config that it returns selects at least one sync. Loaded, if not nil, is
	// called with the config once it is in effect.
	Load   func() (*config.Config, error)
	Loaded func(*config.Config)
	// Connect connects to the API of another config. If it is nil, the connection stays the same.
	Connect func(context.Context, *config.Config) (*API, error)
	// TokenChanged reports whether the token of the config has changed since the last call. It must be quick.
	TokenChanged func(*config.Config) bool
	// MatchKeys returns a function that matches keys with globs.
	MatchKeys func(globs []string) (func(key string) bool, error)
	// ListenToken is the token of the page; empty for none. Then the page refuses every trigger.
	ListenToken string
	// Reload and Dump receive a value when a person wants the config read again, or the status in the log. Optional.
	Reload, Dump <-chan os.Signal
}

// A daemon supervises the loops of all its syncs.
type daemon struct {
	opts      DaemonOptions // Config and API are those of the last reload; mu guards writes of the event loop
	host      host
	service   *service
	reloads   chan chan error // requests of the page
	reloading reloading       // of the event loop
	group     *errgroup.Group

	mu    sync.Mutex
	loops map[string]*loops // by the name of the sync
	// ending has the loops that a reload has stopped and that have not ended, by the name of the sync, only the last ones of each.
	ending map[string]*loops
	// left has the numbers of the syncs whose loops have ended, by name, until they are recovered.
	left map[string]int64
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
	d := &daemon{
		opts: opts, service: newService(), reloads: make(chan chan error), reloading: reloading{planned: make(chan *reload, 1)},
		loops: map[string]*loops{}, ending: map[string]*loops{}, left: map[string]int64{},
	}
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
	work, cut := Graceful(running, opts.Cut, d.grace)
	defer cut()
	d.host.process, d.host.work = running, work
	if serve != nil {
		group.Go(func() error { return serve(running) })
	}
	d.host.trackers = newPool(running, d.endless())
	for _, l := range prepared {
		d.begin(running, l)
	}
	group.Go(func() error {
		d.eventLoop(running)
		return nil
	})
	endReports := d.report(running)
	group.Go(func() error {
		opts.Store.Listen(running, d.wakeUploads)
		return nil
	})
	group.Go(func() error {
		backUpDaily(running, opts.Options)
		return nil
	})
	err = errors.Join(group.Wait(), d.reloading.discard())
	d.host.trackers.stop()
	endReports()
	switch {
	case opts.Cut.Err() != nil:
		return errors.Join(err, WithClass(ClassInterrupted, errors.New("cut before everything was done")))
	case err != nil && ctx.Err() == nil:
		return err
	}
	opts.Logger.Info("shut down cleanly")
	return nil
}

// report reports to the service manager until the returned function is called.
func (d *daemon) report(ctx context.Context) (end func()) {
	ended := make(chan struct{})
	var reports sync.WaitGroup
	reports.Go(func() { d.service.run(ctx, ended, d.healthy, d.grace) })
	return func() {
		close(ended)
		reports.Wait()
	}
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

// begin starts the loops of a sync, once their predecessors have ended.
func (d *daemon) begin(ctx context.Context, l *loops) {
	ctx, l.cancel = context.WithCancel(ctx)
	name := l.config.Name
	d.mu.Lock()
	d.loops[name] = l
	previous := d.ending[name]
	d.mu.Unlock()
	if previous != nil {
		l.syncID.Store(previous.syncID.Load()) // documents can be marked meanwhile
	}
	d.group.Go(func() error {
		defer close(l.done)
		if previous != nil {
			<-previous.done
		}
		l.run(ctx)
		d.ended(l)
		return nil
	})
}

// stop ends the loops of a sync: they begin nothing new, and end when the answers to their requests are recorded.
func (d *daemon) stop(l *loops) {
	name := l.config.Name
	d.mu.Lock()
	delete(d.loops, name)
	d.ending[name] = l
	d.mu.Unlock()
	l.cancel()
	d.group.Go(func() error {
		select {
		case <-l.done:
			return nil
		case <-time.After(time.Second):
		}
		l.logger.Info("waiting for the answers to requests that were sent before the reload")
		<-l.done
		l.logger.Info("the requests from before the reload have ended")
		return nil
	})
}

// ended notes that the loops of a sync have ended.
func (d *daemon) ended(l *loops) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id := l.syncID.Load(); id != 0 {
		d.left[l.config.Name] = id
	}
	if d.ending[l.config.Name] != l {
		return // the process ends
	}
	delete(d.ending, l.config.Name)
	if d.host.process.Err() == nil {
		d.host.files.SetProblem(l.config.Name, nil)
	}
}

// recoverLeft recovers the syncs whose loops have ended, in a shared state: what they could not end there, because the database was out of
// reach, belongs to this process, and no other one may recover it while this one lives. Only the event loop may call it, because it
// begins loops.
func (d *daemon) recoverLeft(ctx context.Context) {
	if !d.opts.Store.Shared() {
		return
	}
	for name, id := range d.idle() {
		uncertain, err := d.opts.Store.Journal.Recover(ctx, id)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			d.opts.Logger.Debug("cannot recover the uploads of a sync that has ended", "sync", name, "error", err)
			continue
		}
		logRecovered(d.opts.Logger, state.Recovered{Sync: name, Uncertain: uncertain})
		d.mu.Lock()
		delete(d.left, name)
		d.mu.Unlock()
	}
}

// idle returns the syncs in left of which no loops work or end.
func (d *daemon) idle() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	idle := maps.Clone(d.left)
	maps.DeleteFunc(idle, func(name string, _ int64) bool { return d.loops[name] != nil || d.ending[name] != nil })
	return idle
}

// grace returns how long the process waits at its end for the answers to sealed requests.
func (d *daemon) grace() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opts.Config.ShutdownGrace
}

// endless returns the function that runs a tracker, with the present options. It reports to the loops.
func (d *daemon) endless() runTracker {
	return endless(d.opts.Options, d.host.page.Metrics, trainingReport{
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
		trained: func(id int64, took time.Duration) {
			for _, l := range d.at(id) {
				l.sampler.Trained(took)
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
	ready := false
	for {
		select {
		case <-ctx.Done():
			d.reloading.refuse()
			select {
			case <-d.opts.Dump: // it came before the end
				d.dump(context.WithoutCancel(ctx))
			default:
			}
			return
		case <-d.opts.Reload:
			d.demandReload(ctx, nil)
		case answer := <-d.reloads:
			d.demandReload(ctx, answer)
		case r := <-d.reloading.planned:
			d.endReload(ctx, r)
		case <-d.opts.Dump:
			d.dump(ctx)
		case <-ticker.C:
			if d.opts.TokenChanged(d.opts.Config) {
				d.opts.Logger.Info("the token file changed, retrying")
				d.retry()
			}
			d.host.files.WriteMetrics()
		case <-recovery.C:
			d.recoverLeft(ctx)
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
