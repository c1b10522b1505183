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

	"github.com/kbsync/kbsync/internal/retry"
)

// WatchOptions configure a Watch. The zero value works.
type WatchOptions struct {
	// Delay is the time from the first change to the wakeup; further changes in that time do not wake again. With the settle
	// time as the delay, a file that was written once has settled when it is scanned, and a file that is written all the time
	// causes one scan a delay.
	Delay time.Duration
	// Poll is the time from the end of a scan of a polled root to its next scan, and the period at which the targets of followed
	// symbolic links are scanned; 30 s if zero.
	Poll time.Duration
	// Check is the period at which the path of the root is looked at, because mounting over it and unmounting it lazily cause
	// no event. 2 s if zero, 10 s at most.
	Check    time.Duration
	NoEvents bool // poll without trying events first
	// Missed is the number of changes without an event above which a periodic scan counts against events; two such scans in
	// a row make the root polled. 10 if zero, never if negative.
	Missed int
	Logger *slog.Logger // none if nil
}

// WatchStats are counts since the Watch began.
type WatchStats struct {
	Directories int    // directories that have a watch now
	Events      uint64 // events received
	Overflows   uint64 // times that the system's queue was full and events were lost
	Errors      uint64 // other errors of the system's notification, lost watches included
	Restarts    uint64 // times that all watches were set again: after the above, and when the root was replaced
	Missed      uint64 // the sum of the numbers passed to Missed
	RootMissing bool   // the root did not exist at the last look
}

// A Watch reports which parts of a Directory may have changed. It is only a hint: the caller scans each part it names, and
// scans the whole root now and then, because no system reports every change.
//
// Directories and files that the filter leaves out are not watched and cause no wakeup. Targets of followed symbolic links are
// scanned every Poll. The root is polled instead of watched where events do not arrive or are unreliable:
//
//   - on network file systems, FUSE, 9p and overlays, also if only a part of the root is on one;
//   - when the system has no watches left (fs.inotify.max_user_watches and max_user_instances, open files);
//   - on macOS and the BSDs above 2,000 files and directories, because a watch there needs an open file for each;
//   - on Windows, where the directories above a watched one cannot be renamed;
//   - when periodic scans find changes without events (see Missed).
//
// The reason is logged once. Events are tried again when the root is replaced, and after a shortage or an error of the system as well:
// after a minute at first, later after up to an hour.
//
// A Watch follows a root that is missing, replaced, unmounted or mounted over: the whole root is dirty when it disappears and
// when it is back. On Linux it is dirty, too, when a file system is mounted or unmounted below it. A Watch does not prevent unmounting a file system.
// Several goroutines may use a Watch.
type Watch struct {
	dir  *Directory
	path string // absolute, if it is known
	opts WatchOptions
	// open opens a source of events. A test sets fault to fail the watching of a directory, by its key.
	open  func() (*fsnotify.Watcher, error)
	fault func(key string) error

	restart     chan struct{} // of size one: events were lost
	scanned     chan struct{} // of size one: the whole root was scanned
	pollReasons chan string   // of size one: a reason to poll the root from now on
	cancel      context.CancelFunc
	done        chan struct{}
	mounts      *mountWatch
	attempts    attempts
	failing     bool // the last attempt to watch the root failed; used by the goroutine of run only
	swapped     bool // the last attempt met errDirectorySwapped

	dirtyQueue
	stats       WatchStats
	polling     string          // the reason why the root is polled; empty if it is watched or missing
	logged      map[string]bool // reasons to poll that were logged
	missedInRow int             // periodic scans in a row that found too many changes
}

// Watch watches the directory until ctx ends or Close is called. It waits for a root that is missing. The first wakeup comes
// when all watches are set, with the whole root dirty: later changes are all reported. The only error is that of ctx.
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
		restart: make(chan struct{}, 1), scanned: make(chan struct{}, 1), pollReasons: make(chan string, 1), done: make(chan struct{}),
		dirtyQueue: newDirtyQueue(opts.Delay), logged: map[string]bool{}, attempts: attempts{policy: againPolicy},
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

// Close ends the watch. It returns when all goroutines of the Watch have ended. The error is always nil.
func (w *Watch) Close() error {
	w.cancel()
	<-w.done
	return nil
}

// Missed records how many changes a periodic scan of the whole root found although nothing was dirty. Just before that scan,
// the caller scans the dirty prefixes and the documents that have not settled. It passes the sum of New, Changed and Removed,
// zero included. When two scans in a row exceed WatchOptions.Missed, the root is polled.
func (w *Watch) Missed(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Missed += uint64(max(n, 0))
	if w.opts.Missed < 0 || n <= w.opts.Missed || w.polling != "" {
		w.missedInRow = 0
		return
	}
	if w.missedInRow++; w.missedInRow < 2 {
		return
	}
	w.missedInRow = 0
	reason := fmt.Sprintf("events are missing: two scans in a row found more than %d changes without an event", w.opts.Missed)
	select {
	case w.pollReasons <- reason:
	default:
	}
}

// Scanned reports that a scan of the whole root has ended. A polled root is dirty again WatchOptions.Poll after that: where a scan takes
// longer than Poll, the next one must not follow at once.
func (w *Watch) Scanned() {
	select {
	case w.scanned <- struct{}{}:
	default:
	}
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
	w.mounts = w.dir.watchMounts()
	defer w.mounts.close()
	missing := false
	for ctx.Err() == nil {
		identity, err := identityAt(w.path)
		if err != nil {
			if !missing {
				missing = true
				w.setMissing(true)
				w.Mark("")
			}
			_ = retry.Sleep(ctx, w.opts.Check)
			continue
		}
		if missing {
			missing = false
			w.setMissing(false)
		}
		reason := &mustPollError{reason: "events are turned off"}
		if !w.opts.NoEvents {
			reason = w.watchEvents(ctx, identity)
		}
		if reason != nil {
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

// poll marks the whole root dirty Poll after the end of each scan, until the root is replaced, or events are to be tried again.
func (w *Watch) poll(ctx context.Context, identity string, why *mustPollError) {
	reason := why.reason
	w.mu.Lock()
	w.polling = reason
	logged := w.logged[reason]
	w.logged[reason] = true
	w.mu.Unlock()
	if !logged && !w.opts.NoEvents {
		w.opts.Logger.Warn("the root is polled instead of watched", "root", w.dir.path, "every", w.opts.Poll, "reason", reason)
	}
	defer func() {
		w.mu.Lock()
		w.polling = ""
		w.mu.Unlock()
	}()
	select {
	case <-w.scanned: // of before
	default:
	}
	w.Mark("")
	check, tick := time.NewTicker(w.opts.Check), time.NewTimer(w.opts.Poll)
	defer check.Stop()
	defer tick.Stop()
	tick.Stop() // until the scan has ended
	again := w.tryAgain(why)
	for due := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-w.scanned:
			if due {
				due = false
				tick.Reset(w.opts.Poll)
			}
		case <-tick.C:
			due = true
			w.Mark("")
		case <-again:
			return
		case <-check.C:
			if now, err := identityAt(w.path); err != nil || now != identity || w.mounts.changed() {
				return
			}
		}
	}
}

// identityAt returns the identity of the directory at path. It leaves nothing open.
func identityAt(path string) (string, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer root.Close()
	return identityOf(root)
}
