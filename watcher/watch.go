package watcher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatchOptions of a Watch. The zero value works.
type WatchOptions struct {
	// Delay is the time from the first change to the wake. Changes that come meanwhile are part of it. With the settle time
	// as the delay, a file that was written once has settled when it is scanned, and one that is written to for ever causes
	// one scan a delay.
	Delay time.Duration
	// Poll is how often the whole of a root is scanned whose events can't be relied upon, and how often what symbolic links lead to is;
	// 30 s if zero.
	Poll time.Duration
	// Check is how often the path of the root is looked at: nothing tells of a file system that is mounted over it or lazily
	// unmounted. 2 s if zero, 10 s at most.
	Check    time.Duration
	NoEvents bool // poll without trying events first
	// Missed is how many changes two periodic scans in a row each have to find, which events had missed, for the root to
	// be polled from then on; 10 if zero, never if negative.
	Missed int
	Logger *slog.Logger // for what a person should know once; none if nil
}

// WatchStats are counts since the Watch began.
type WatchStats struct {
	Directories int    // directories whose events are listened to now
	Events      uint64 // events that came
	Overflows   uint64 // times that the system's queue was full and events were lost
	Errors      uint64 // other errors of the system's notification, lost watches among them
	Restarts    uint64 // times that all watches were set anew: after any of these, and when the root was replaced
	Missed      uint64 // changes that events had missed, as Missed was told
	RootMissing bool   // there was no root when it was last looked at
}

// A Watch tells which parts of a Directory may have changed. It is a hint and no more: every part it names is to be scanned, and
// now and then the whole root is, for no system tells of everything.
//
// Directories that the filter leaves out are not watched, and changes of files that it leaves out are no changes. What symbolic
// links lead to is looked at every Poll, where links are followed at all. The root is polled instead of being watched where
// events do not come or can't be relied upon:
//
//   - network file systems, FUSE, 9p and overlays, be it for a part of the root;
//   - when the system allows no more watches (fs.inotify.max_user_watches and max_user_instances, open files);
//   - on macOS and the BSDs above 2,000 files and directories, for there a watch takes an open file for each;
//   - on Windows, where a watched directory keeps its user from renaming those above it;
//   - when periodic scans find what events missed (see Missed).
//
// The reason is logged once and told by Polling. It is tried with events again when the root is replaced.
//
// A root that is missing, replaced, unmounted or mounted over is followed by itself: it is dirty as a whole when it goes and when it
// is back. A Watch does not keep a file system from being unmounted.
// A Watch may be used by several goroutines.
type Watch struct {
	dir  *Directory
	path string // absolute, where that could be found out
	opts WatchOptions
	// open makes a source of events. fault, if not nil, is asked before a directory is watched, and its error taken for the system's.
	open  func() (*fsnotify.Watcher, error)
	fault func(key string) error

	restart chan struct{} // of size one: events were lost
	give    chan string   // of size one: why the root is to be polled from now on
	cancel  context.CancelFunc
	done    chan struct{}
	failing bool // the root could not be watched when it was last tried; of the goroutine that runs

	marks
	stats   WatchStats
	polling string
	said    map[string]bool // reasons to poll that were logged
	row     int             // periodic scans in a row that found too much
}

// Watch begins to watch the directory until ctx ends or Close is called. A root that is missing is waited for. The first wake
// comes when all watches are set, with the whole root dirty: whatever changes after that is told. The error is that of ctx.
func (d *Directory) Watch(ctx context.Context, opts WatchOptions) (*Watch, error) {
	w := newWatch(d, opts)
	if err := w.start(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

func newWatch(d *Directory, opts WatchOptions) *Watch {
	opts.Poll = cmp.Or(max(opts.Poll, 0), 30*time.Second)
	opts.Check = min(cmp.Or(max(opts.Check, 0), 2*time.Second), 10*time.Second)
	opts.Missed = cmp.Or(opts.Missed, 10)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	w := &Watch{
		dir: d, path: d.path, opts: opts, open: fsnotify.NewWatcher,
		restart: make(chan struct{}, 1), give: make(chan string, 1), done: make(chan struct{}), marks: newMarks(opts.Delay), said: map[string]bool{},
	}
	if abs, err := filepath.Abs(d.path); err == nil {
		w.path = abs
	}
	return w
}

func (w *Watch) start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("watch %s: %w", w.dir.path, err)
	}
	ctx, w.cancel = context.WithCancel(ctx)
	go w.run(ctx)
	return nil
}

// Close ends the watch and returns when nothing of it runs any more. It returns nil.
func (w *Watch) Close() error {
	w.cancel()
	<-w.done
	return nil
}

// Missed tells how many changes a periodic scan of the whole root found although nothing was dirty: take and scan what is
// dirty, and what has to settle, just before, and pass what the scan of the whole then found, New, Changed and Removed, be it
// nothing. When events miss too much twice in a row, the root is polled.
func (w *Watch) Missed(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Missed += uint64(max(n, 0))
	if w.opts.Missed < 0 || n <= w.opts.Missed || w.polling != "" {
		w.row = 0
		return
	}
	if w.row++; w.row < 2 {
		return
	}
	w.row = 0
	reason := fmt.Sprintf("events of it are missing: two scans in a row found more than %d changes that none told of", w.opts.Missed)
	select {
	case w.give <- reason:
	default:
	}
}

// Polling returns why the root is polled rather than watched; empty if it is watched, or waited for.
func (w *Watch) Polling() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.polling
}

// Stats returns the counts at this moment.
func (w *Watch) Stats() WatchStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// run keeps the root watched or polled.
func (w *Watch) run(ctx context.Context) {
	defer close(w.done)
	defer w.end()
	missing := false
	for ctx.Err() == nil {
		identity, err := identityAt(w.path)
		if err != nil {
			if !missing {
				missing = true
				w.setMissing(true)
				w.Mark("")
			}
			pause(ctx, w.opts.Check)
			continue
		}
		if missing {
			missing = false
			w.setMissing(false)
		}
		reason := ""
		if w.opts.NoEvents {
			reason = "it is set so"
		} else {
			reason = w.patrol(ctx, identity)
		}
		if reason != "" {
			w.poll(ctx, identity, reason)
		}
	}
}

func (w *Watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
	w.stats.Directories = 0
}

func (w *Watch) setMissing(missing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.RootMissing = missing
}

// poll makes the whole root dirty every Poll until it is another one.
func (w *Watch) poll(ctx context.Context, identity, reason string) {
	w.mu.Lock()
	w.polling = reason
	said := w.said[reason]
	w.said[reason] = true
	w.mu.Unlock()
	if !said && !w.opts.NoEvents {
		w.opts.Logger.Warn("the root is polled instead of being watched", "root", w.dir.path, "every", w.opts.Poll, "reason", reason)
	}
	defer func() {
		w.mu.Lock()
		w.polling = ""
		w.mu.Unlock()
	}()
	w.Mark("")
	check, tick := time.NewTicker(w.opts.Check), time.NewTicker(w.opts.Poll)
	defer check.Stop()
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.Mark("")
		case <-check.C:
			if now, err := identityAt(w.path); err != nil || now != identity {
				return
			}
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// identityAt returns the identity of the directory that path leads to, and keeps nothing open.
func identityAt(path string) (string, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer root.Close()
	return identityOf(root)
}
