package watcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kbsync/kbsync/internal/retry"
)

// patience bounds the wait of a test for an event.
const patience = 20 * time.Second

// A watchFixture is a watched directory, with a state that is updated by scans of the dirty prefixes only.
type watchFixture struct {
	t      *testing.T
	base   string // the directory that contains the root
	dir    string
	root   *Directory
	watch  *Watch
	store  *memoryStore
	opts   ScanOptions
	dirty  []string // taken, and not scanned yet
	puts   []string // keys that became pending in all scans
	whole  int      // scans of the whole root
	fences int
	log    lockedBuffer
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func newWatchFixture(t *testing.T) *watchFixture {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("roots are polled on Windows")
	}
	base := t.TempDir()
	f := &watchFixture{t: t, base: base, dir: filepath.Join(base, "root"), store: newMemoryStore(), opts: ScanOptions{MaxDelete: Limit{Percent: 100, ByPercent: true}, MaxChange: Limit{Percent: 100, ByPercent: true}, AllowEmpty: true, AcceptNewRoot: true}}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return f
}

// begin starts the watch and waits for the first wakeup. setUp may change the Watch before.
func (f *watchFixture) begin(dirOpts DirectoryOptions, opts WatchOptions, setUp func(*Watch)) *watchFixture {
	f.t.Helper()
	opts.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	f.root = NewDirectory(f.dir, dirOpts)
	// All files have settled.
	f.root.now = func() time.Time { return time.Now().Add(time.Minute) }
	f.watch = newWatch(f.root, opts)
	if setUp != nil {
		setUp(f.watch)
	}
	if err := f.watch.start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { f.watch.Close() })
	f.await("the first wake", func() bool { return f.covered("any") })
	f.scan()
	f.whole = 0
	return f
}

// pollReason returns why the root is polled; empty if it is watched or missing.
func (w *Watch) pollReason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.polling
}

// await takes the dirty prefixes until ok returns true.
func (f *watchFixture) await(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond) // some conditions cause no wakeup
	defer look.Stop()
	for !ok() {
		select {
		case <-f.watch.Wake():
			f.dirty = append(f.dirty, f.watch.Take()...)
		case <-look.C:
		case <-deadline.C:
			f.t.Fatalf("timed out waiting for %s; dirty: %q, stats %+v, polling %q", what, f.dirty, f.watch.Stats(), f.watch.pollReason())
		}
	}
}

func (f *watchFixture) covered(key string) bool {
	return slices.ContainsFunc(f.dirty, func(prefix string) bool { return covers(prefix, key) })
}

// fence waits until all earlier events have arrived.
func (f *watchFixture) fence() {
	f.t.Helper()
	f.fences++
	key := fmt.Sprintf("fence-%d.md", f.fences)
	// The last event is the only one with its name.
	put(f.t, f.dir, key+".tmp")
	f.try(os.Rename(f.path(key+".tmp"), f.path(key)))
	f.await("the fence", func() bool { return f.covered(key) })
}

// scan scans the dirty prefixes.
func (f *watchFixture) scan() {
	f.t.Helper()
	dirty := f.dirty
	f.dirty = nil
	if slices.Contains(dirty, "") {
		f.whole++
	}
	f.store.puts = nil
	scanFixture := &scanFixture{dir: f.dir, store: f.store}
	r, err := NewScanner(f.root, f.opts).ScanAll(f.t.Context(), f.store, scanFixture.sync(), dirty)
	f.puts = append(f.puts, f.store.puts...)
	if err == nil && slices.Contains(dirty, "") {
		f.watch.Scanned()
	}
	switch {
	case errors.Is(err, ErrRootMissing):
	case err != nil:
		f.t.Fatal(err)
	case r.Unsettled > 0 || r.IncompleteCount > 0:
		// A file is still changing.
		f.dirty = dirty
	}
}

// synced waits for all events, scans the dirty prefixes, and compares the state with the whole root.
func (f *watchFixture) synced() {
	f.t.Helper()
	f.fence()
	f.scan()
	f.compare()
}

func (f *watchFixture) compare() {
	f.t.Helper()
	listed := map[string]bool{}
	for e, err := range f.root.List(f.t.Context(), "") {
		if err != nil {
			f.t.Fatal(err)
		}
		listed[e.Key] = true
		if k, ok := f.store.known[e.Key]; !ok {
			f.t.Errorf("%q was not found", e.Key)
		} else if k.Fingerprint != e.Fingerprint {
			f.t.Errorf("a change of %q was not found", e.Key)
		}
	}
	for key := range f.store.known {
		if !listed[key] {
			f.t.Errorf("the removal of %q was not found", key)
		}
	}
	if f.t.Failed() {
		f.t.Fatalf("stats %+v", f.watch.Stats())
	}
}

func (f *watchFixture) path(key string) string { return filepath.Join(f.dir, filepath.FromSlash(key)) }

func (f *watchFixture) try(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// do runs a line of a script; see testdata/watch/README.
func (f *watchFixture) do(line string) {
	t := f.t
	t.Helper()
	words := strings.Fields(line)
	verb, args := words[0], words[1:]
	switch verb {
	case "start":
		var opts DirectoryOptions
		watch := WatchOptions{Check: 20 * time.Millisecond}
		for _, a := range args {
			switch a {
			case "links":
				opts.CopyLinks = true
				watch.Poll = 20 * time.Millisecond
			case "all":
				opts.Filter = everything(t)
			default:
				t.Fatalf("start: unknown option %s", a)
			}
		}
		f.begin(opts, watch, nil)
	case "mkdir":
		for _, a := range args {
			f.try(os.MkdirAll(f.path(a), 0o700))
		}
	case "write":
		write(t, f.path(args[0]), strings.Join(args[1:], " "))
	case "append":
		file, err := os.OpenFile(f.path(args[0]), os.O_APPEND|os.O_WRONLY, 0)
		f.try(err)
		_, err = file.WriteString(strings.Join(args[1:], " "))
		f.try(errors.Join(err, file.Close()))
	case "touch":
		f.try(os.Chtimes(f.path(args[0]), time.Time{}, time.Now()))
	case "chmod":
		mode, err := strconv.ParseUint(args[0], 8, 32)
		f.try(err)
		f.try(os.Chmod(f.path(args[1]), os.FileMode(mode)))
	case "mv":
		f.try(os.Rename(f.path(args[0]), f.path(args[1])))
	case "rm":
		for _, a := range args {
			f.try(os.RemoveAll(f.path(a)))
		}
	case "link": // as ln -sfT does
		f.try(os.Symlink(args[0], f.path(args[1])+".new-link"))
		f.try(os.Rename(f.path(args[1])+".new-link", f.path(args[1])))
	case "dirty":
		for _, a := range args {
			f.await(a, func() bool { return f.covered(a) })
		}
	case "quiet":
		f.fence()
		for _, prefix := range f.dirty {
			if !strings.HasPrefix(prefix, "fence-") {
				t.Fatalf("%q is dirty", prefix)
			}
		}
		f.scan()
	case "synced":
		f.synced()
	case "parts":
		if f.whole > 0 {
			t.Fatalf("the whole root was scanned %d times, stats %+v", f.whole, f.watch.Stats())
		}
	case "known":
		known := slices.DeleteFunc(slices.Sorted(maps.Keys(f.store.known)), func(k string) bool { return strings.HasPrefix(k, "fence-") })
		if !slices.Equal(known, args) {
			t.Fatalf("known are %q, want %q", known, args)
		}
	default:
		t.Fatalf("unknown verb: %s", verb)
	}
}

func TestWatchScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/watch/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			f := newWatchFixture(t)
			for i, line := range strings.Split(string(text), "\n") {
				if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
					continue
				}
				t.Logf("%s:%d: %s", script, i+1, line)
				f.do(line)
			}
		})
	}
}

// New directories several levels deep with a file in them, created at once; 300 rounds.
func TestNewDeepDirectoriesAreWatched(t *testing.T) {
	f := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{}, nil)
	for i := range 300 {
		key := fmt.Sprintf("r%d/a/b/c/doc.md", i)
		put(t, f.dir, key)
		f.await(key, func() bool { return f.covered(key) })
		f.scan()
		if _, ok := f.store.known[key]; !ok {
			// A part of the path was reported first; the rest follows.
			f.fence()
			f.scan()
			if _, ok := f.store.known[key]; !ok {
				t.Fatalf("round %d: not found, stats %+v", i, f.watch.Stats())
			}
		}
	}
	f.synced()
	if n := len(f.puts) - f.fences; n != 300 {
		t.Errorf("%d documents became pending, want 300", n)
	}
	if f.whole > 0 {
		t.Errorf("the whole root was scanned %d times", f.whole)
	}
}

// gated returns a source of events that drops an event if pass returns false. A goroutine of the source calls pass.
func gated(t *testing.T, pass func(fsnotify.Event) bool) func() (*fsnotify.Watcher, error) {
	return func() (*fsnotify.Watcher, error) {
		real, err := fsnotify.NewWatcher()
		if err != nil {
			return nil, err
		}
		from, to := real.Events, make(chan fsnotify.Event)
		real.Events = to
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() {
			defer close(to)
			for e := range from {
				if pass(e) {
					select {
					case to <- e:
					case <-ctx.Done():
					}
				}
			}
		})
		t.Cleanup(wait.Wait)
		t.Cleanup(cancel)
		return real, nil
	}
}

// The system drops events when its queue is full.
func TestQueueOverflowMakesTheRootDirty(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip("no queue with a known limit here")
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil || n > 100_000 {
		t.Skipf("the queue holds %d events, %v", n, err)
	}
	f := newWatchFixture(t)
	for i := range 100 {
		put(t, f.dir, fmt.Sprintf("d%d/", i))
	}
	gate := make(chan struct{})
	f.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
		w.open = gated(t, func(fsnotify.Event) bool {
			<-gate
			return true
		})
	})
	defer func() {
		select {
		case <-gate:
		default:
			close(gate)
		}
	}()
	files := max(20_000, n+n/4)
	if testing.Short() {
		files = n/2 + n/8 // of two events each
	}
	for i := range files {
		write(t, f.path(fmt.Sprintf("d%d/%d.md", i%100, i)), "x")
	}
	close(gate)
	f.await("a restart", func() bool { return f.watch.Stats().Restarts > 0 })
	f.synced()
	if s := f.watch.Stats(); s.Overflows == 0 || f.watch.pollReason() != "" {
		t.Errorf("%+v, polling %q", s, f.watch.pollReason())
	}
	// The watch continues.
	put(t, f.dir, "d7/late.md", "new/late.md")
	f.synced()
}

// An injected overflow, and another injected error.
func TestNotificationErrorsMakeTheRootDirty(t *testing.T) {
	for _, failure := range []error{fsnotify.ErrEventOverflow, syscall.EBADF} {
		f := newWatchFixture(t)
		var drop atomic.Bool
		errs := make(chan error, 1)
		f.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
			open := gated(t, func(fsnotify.Event) bool { return !drop.Load() })
			w.open = func() (*fsnotify.Watcher, error) {
				real, err := open()
				if err != nil {
					return nil, err
				}
				from, to := real.Errors, make(chan error)
				real.Errors = to
				var wait sync.WaitGroup
				wait.Go(func() {
					defer close(to)
					for {
						select {
						case err, ok := <-from:
							if !ok {
								return
							}
							to <- err
						case err := <-errs:
							to <- err
						}
					}
				})
				t.Cleanup(wait.Wait)
				return real, nil
			}
		})
		drop.Store(true)
		put(t, f.dir, "a/b/lost.md", "lost.md")
		drop.Store(false)
		errs <- failure
		f.await("the whole root", func() bool { return slices.Contains(f.dirty, "") })
		f.synced()
		put(t, f.dir, "a/b/found.md")
		f.synced()
		s := f.watch.Stats()
		if s.Restarts != 1 || s.Overflows+s.Errors != 1 || errors.Is(failure, fsnotify.ErrEventOverflow) != (s.Overflows == 1) {
			t.Errorf("%v: %+v", failure, s)
		}
	}
}

// The source drops all events. Scans of the whole root find the changes, and the root is polled in the end.
func TestMissedChangesFallBackToPolling(t *testing.T) {
	f := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) {
		w.open = gated(t, func(fsnotify.Event) bool { return false })
	})
	round := 0
	rescan := func(n int) {
		t.Helper()
		round++
		for i := range n {
			put(t, f.dir, fmt.Sprintf("%d/%d.md", round, i))
		}
		f.dirty = []string{""}
		before := len(f.puts)
		f.scan()
		if found := len(f.puts) - before; found != n {
			t.Fatalf("found %d of %d", found, n)
		}
		f.watch.Missed(n)
	}
	for _, n := range []int{11, 10, 11, 0, 50, 3, 11} {
		rescan(n)
		if reason := f.watch.pollReason(); reason != "" || len(f.watch.pollReasons) > 0 {
			t.Fatalf("polled after %d: %s", n, reason)
		}
	}
	rescan(11)
	f.await("polling", func() bool { return strings.Contains(f.watch.pollReason(), "more than 10 changes") })
	put(t, f.dir, "polled/a.md")
	f.synced()
	if s := f.watch.Stats(); s.Missed != 107 || s.Directories != 0 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(f.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, f.log.String())
	}
}

// A document that is written all the time causes one wakeup for each delay, and is found when the writes stop.
func TestWatchWakesOncePerDelay(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "hot.md")
	f.begin(DirectoryOptions{}, WatchOptions{Delay: 50 * time.Millisecond}, nil)
	began, wakes := time.Now(), 0
	for time.Since(began) < 500*time.Millisecond || wakes == 0 && time.Since(began) < 10*time.Second {
		f.do("append hot.md more")
		select {
		case <-f.watch.Wake():
			got := f.watch.Take()
			if got == nil {
				continue // a wakeup for a prefix that was taken already
			}
			wakes++
			f.dirty = append(f.dirty, got...)
			if !slices.Equal(got, []string{"hot.md"}) {
				t.Errorf("dirty: %q", got)
			}
		default:
		}
	}
	if most := int(time.Since(began)/(50*time.Millisecond)) + 1; wakes == 0 || wakes > most {
		t.Errorf("%d wakes, want 1 to %d", wakes, most)
	}
	f.synced()
}

// Kubernetes updates a mounted ConfigMap by a new target of its ..data link.
func TestWatchFollowsConfigMapUpdates(t *testing.T) {
	f := newWatchFixture(t)
	update := func(i int) {
		t.Helper()
		put(t, f.dir, fmt.Sprintf("..v%d/doc.md", i), fmt.Sprintf("..v%d/sub/deep.md", i))
		f.do(fmt.Sprintf("link ..v%d ..data", i))
		if i > 0 {
			f.do(fmt.Sprintf("rm ..v%d", i-1))
		}
	}
	update(0)
	link(t, "..data/doc.md", f.path("doc.md"))
	link(t, "..data/sub", f.path("sub"))
	f.begin(DirectoryOptions{}, WatchOptions{}, nil)
	f.puts = nil
	for i := 1; i <= 20; i++ {
		update(i)
		f.await("the swap", func() bool { return f.covered("doc.md") && f.covered("sub/deep.md") })
		f.scan()
		f.compare()
	}
	if len(f.puts) != 40 || len(f.store.known) != 2 {
		t.Errorf("%d documents became pending, want 40; known %v", len(f.puts), f.store.known)
	}
	if s := f.watch.Stats(); s.Directories != 1 || s.Restarts > 0 {
		t.Errorf("%+v", s)
	}
}

// The periodic check of the root notices a ..data link whose event was lost.
func TestConfigMapUpdateIsNoticedWithoutEvents(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "..v0/doc.md", "..v1/doc.md")
	link(t, "..v0", f.path("..data"))
	link(t, "..data/doc.md", f.path("doc.md"))
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, func(w *Watch) {
		w.open = gated(t, func(fsnotify.Event) bool { return false })
	})
	f.do("link ..v1 ..data")
	f.await("the swap", func() bool { return f.covered("doc.md") })
	f.scan()
	f.compare()
}

// The root is a link, and git-sync sets it to a new directory.
func TestWatchFollowsGitSync(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.base, "rev0/a.md", "rev0/sub/b.md")
	f.dir = filepath.Join(f.base, "current")
	link(t, "rev0", f.dir)
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	for i := 1; i <= 5; i++ {
		now, next := fmt.Sprintf("rev%d", i-1), fmt.Sprintf("rev%d", i)
		put(t, f.base, next+"/a.md", next+"/sub/b.md", fmt.Sprintf("%s/new%d.md", next, i))
		f.try(os.Symlink(next, filepath.Join(f.base, "link")))
		f.try(os.Rename(filepath.Join(f.base, "link"), f.dir))
		f.await("the flip", func() bool { return slices.Contains(f.dirty, "") })
		f.try(os.RemoveAll(filepath.Join(f.base, now)))
		f.scan()
		f.compare()
		put(t, f.dir, "sub/late.md")
		f.synced()
		if len(f.store.known) != 5 { // a, b, new, late and the fence
			t.Errorf("known: %v", slices.Sorted(maps.Keys(f.store.known)))
		}
	}
}

// The root disappears and comes back.
func TestWatchSurvivesAMissingRoot(t *testing.T) {
	for name, c := range map[string]struct{ away, back func(f *watchFixture) }{
		"renamed": {
			func(f *watchFixture) { f.try(os.Rename(f.dir, f.dir+".away")) },
			func(f *watchFixture) { f.try(os.Rename(f.dir+".away", f.dir)) },
		},
		"removed and recreated": {
			func(f *watchFixture) {
				f.try(os.Rename(f.dir, f.dir+".away"))
				put(f.t, f.base, "trash/x")
				f.try(os.RemoveAll(filepath.Join(f.base, "trash")))
			},
			func(f *watchFixture) {
				// The same files in another directory.
				f.try(os.Mkdir(f.dir+".new", 0o700))
				for _, name := range []string{"a.md", "sub"} {
					f.try(os.Rename(filepath.Join(f.dir+".away", name), filepath.Join(f.dir+".new", name)))
				}
				f.try(os.Rename(f.dir+".new", f.dir))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newWatchFixture(t)
			f.opts.AllowEmpty = false
			put(t, f.dir, "a.md", "sub/b.md")
			f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
			f.puts = nil
			c.away(f)
			f.await("the root to be missed", func() bool { return slices.Contains(f.dirty, "") && f.watch.Stats().RootMissing })
			f.scan()
			if len(f.store.known) != 2 {
				t.Errorf("documents were removed: %v", f.store.known)
			}
			c.back(f)
			f.await("the root to be back", func() bool { return slices.Contains(f.dirty, "") && !f.watch.Stats().RootMissing })
			f.scan()
			if len(f.store.known) != 2 || slices.Contains(f.puts, "sub/b.md") {
				t.Errorf("known %v, pending again %v", f.store.known, f.puts)
			}
			put(t, f.dir, "sub/new.md")
			f.synced()
		})
	}
}

// A root that is deleted and created again at once may have the same inode as before.
func TestWatchFollowsARecreatedRoot(t *testing.T) {
	f := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	for range 5 {
		f.try(os.RemoveAll(f.dir))
		f.try(os.Mkdir(f.dir, 0o700))
		f.await("the new root", func() bool { return slices.Contains(f.dirty, "") })
		f.synced()
		put(t, f.dir, "x/y.md")
		f.synced()
	}
}

func TestWatchWaitsForAMissingRoot(t *testing.T) {
	f := newWatchFixture(t)
	f.try(os.Remove(f.dir))
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	if !f.watch.Stats().RootMissing || f.watch.pollReason() != "" {
		t.Errorf("%+v", f.watch.Stats())
	}
	put(t, f.dir, "a/b.md")
	f.await("the root", func() bool { return slices.Contains(f.dirty, "") && !f.watch.Stats().RootMissing })
	f.synced()
}

// The system has no watches left: polling finds all changes, and one warning names the remedy.
func TestExhaustedWatchesFallBackToPolling(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		fail func(w *Watch, err error)
		want []string
	}{
		"watches, at once": {syscall.ENOSPC, func(w *Watch, err error) { w.fault = func(string) error { return err } }, []string{"sysctl -w fs.inotify.max_user_watches="}},
		"watches, while it runs": {syscall.ENOSPC, func(w *Watch, err error) {
			w.fault = func(key string) error {
				if strings.HasPrefix(key, "late/") {
					return err
				}
				return nil
			}
		}, []string{"sysctl -w fs.inotify.max_user_watches="}},
		"instances": {syscall.EMFILE, func(w *Watch, err error) {
			w.open = func() (*fsnotify.Watcher, error) { return nil, fmt.Errorf("initialize inotify: %w", err) }
		}, []string{"ulimit -n", "sysctl -w fs.inotify.max_user_instances="}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newWatchFixture(t)
			put(t, f.dir, "early/a.md")
			f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond, Check: 10 * time.Millisecond}, func(w *Watch) { c.fail(w, c.err) })
			put(t, f.dir, "late/b.md")
			f.await("polling", func() bool { return f.watch.pollReason() != "" })
			put(t, f.dir, "late/c/d.md", "early/e.md")
			f.synced()
			for _, text := range append(c.want, f.dir, "polled") {
				if !strings.Contains(f.log.String(), text) {
					t.Errorf("the log does not contain %q: %s", text, f.log.String())
				}
			}
			if n := strings.Count(f.log.String(), "level="); n != 1 || f.watch.Stats().Directories != 0 {
				t.Errorf("%d lines: %s, %+v", n, f.log.String(), f.watch.Stats())
			}
			// The warning is logged once, even if the root is replaced.
			f.try(os.Rename(f.dir, f.dir+".old"))
			f.await("the root to be missed", func() bool { return f.watch.Stats().RootMissing })
			put(t, f.dir, "late/f.md")
			f.await("polling", func() bool {
				return f.watch.pollReason() != "" || strings.HasPrefix(name, "watches, while") && f.watch.Stats().Directories > 0
			})
			if n := strings.Count(f.log.String(), "level="); n != 1 {
				t.Errorf("%d lines: %s", n, f.log.String())
			}
		})
	}
}

// A directory is replaced by a link to another one just before its watch is set. The other one keeps its watch.
func TestDirectorySwappedForALinkWhileWatchesAreSet(t *testing.T) {
	for name, target := range map[string]string{"inside": "zz", "outside": "../outside"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newWatchFixture(t)
			put(t, f.base, "outside/secret.md")
			put(t, f.dir, "zz/a.md", "z/z.md", "z/deep/er.md")
			swap := func() {
				f.try(os.Rename(f.path("z"), f.base+"/away"))
				f.try(os.Symlink(target, f.path("z")))
			}
			var once sync.Once
			f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Second}, func(w *Watch) {
				w.fault = func(key string) error {
					if key == "z/" {
						once.Do(swap)
					}
					return nil
				}
			})
			f.synced()
			f.await("all watches", func() bool { return f.watch.Stats().Directories == 2 })
			put(t, f.dir, "zz/late.md")
			put(t, f.base, "outside/late.md")
			f.synced()
			// The directory is back.
			f.try(os.Remove(f.path("z")))
			f.try(os.Rename(f.base+"/away", f.path("z")))
			put(t, f.dir, "zz/later.md", "z/deep/later.md")
			f.synced()
			if s := f.watch.Stats(); s.Directories != 4 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestConstantSwapsArePolled(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "a/a.md")
	f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) {
		w.fault = func(key string) error {
			if key != "a/" {
				return nil
			}
			if err := os.Rename(f.path("a"), f.path(fmt.Sprint("b", time.Now().UnixNano()))); err != nil {
				return err
			}
			return os.Mkdir(f.path("a"), 0o700)
		}
	})
	if !strings.Contains(f.watch.pollReason(), "replaced all the time") {
		t.Errorf("polled because %q", f.watch.pollReason())
	}
}

// A shortage ends, and begins again. A reason that does not pass is not tried again.
func TestEventsAreTriedAgainAfterAShortage(t *testing.T) {
	var short atomic.Bool
	short.Store(true)
	f := newWatchFixture(t)
	put(t, f.dir, "early/a.md")
	f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond, Check: 10 * time.Millisecond}, func(w *Watch) {
		w.attempts.policy = retry.Policy{Min: 50 * time.Millisecond, Max: 100 * time.Millisecond}
		w.fault = func(string) error {
			if short.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
	})
	for n := 1; n <= 2; n++ {
		f.await("polling", func() bool { return strings.Contains(f.watch.pollReason(), "max_user_watches") })
		put(t, f.dir, fmt.Sprint(n, "/polled.md"))
		f.synced()
		short.Store(false)
		f.await("events", func() bool { return f.watch.pollReason() == "" && f.watch.Stats().Directories == 1+2*n })
		before := f.watch.Stats().Events
		put(t, f.dir, fmt.Sprint("early/", n, ".md"))
		f.synced()
		// The scan after the change to events may see the document before its event comes.
		f.await("an event", func() bool { return f.watch.Stats().Events > before })
		if lines := strings.Count(f.log.String(), "level="); lines != 2*n {
			t.Errorf("%d lines: %s", lines, f.log.String())
		}
		short.Store(true)
		put(t, f.dir, fmt.Sprint(n, "late/c.md"))
	}
	if newWatch(f.root, WatchOptions{}).tryAgain(&mustPollError{reason: "it is on NFS"}) != nil {
		t.Error("a network file system is tried again")
	}
}

// A directory without read permission is watched as soon as it is readable.
func TestDirectoryThatBecomesReadableIsWatched(t *testing.T) {
	for i, key := range []string{"locked/", "locked/sub/"} {
		f := newWatchFixture(t)
		put(t, f.dir, "locked/sub/a.md")
		var locked atomic.Bool
		locked.Store(true)
		f.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
			w.fault = func(at string) error {
				if locked.Load() && at == key {
					return fs.ErrPermission
				}
				return nil
			}
		})
		if s := f.watch.Stats(); s.Directories != 1+i || f.watch.pollReason() != "" {
			t.Errorf("%+v, polling %q", s, f.watch.pollReason())
		}
		locked.Store(false)
		f.do("chmod 0755 locked")
		f.await("the directory", func() bool { return f.covered("locked/sub/a.md") })
		put(t, f.dir, "locked/sub/b.md")
		f.synced()
		f.do("parts")
	}
}

// A Watch waits for an unreadable root, and wakes once, so that a scan reports the error.
func TestWatchUnreadableRoot(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "a/b.md")
	var locked atomic.Bool
	locked.Store(true)
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, func(w *Watch) {
		w.fault = func(at string) error {
			if locked.Load() {
				return fs.ErrPermission
			}
			return nil
		}
	})
	if s := f.watch.Stats(); s.Directories != 0 || f.watch.pollReason() != "" {
		t.Errorf("%+v, polling %q", s, f.watch.pollReason())
	}
	locked.Store(false)
	f.await("the whole root", func() bool { return slices.Contains(f.dirty, "") })
	put(t, f.dir, "a/c.md")
	f.synced()
}

func TestWatchWithoutEvents(t *testing.T) {
	f := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{NoEvents: true, Poll: 20 * time.Millisecond}, nil)
	put(t, f.dir, "a/b.md")
	f.synced()
	if s := f.watch.Stats(); s.Events > 0 || f.watch.pollReason() == "" || f.log.String() != "" {
		t.Errorf("%+v, polling %q, log %s", s, f.watch.pollReason(), f.log.String())
	}
}

// An I/O error of a directory makes the root polled, and the warning names the directory.
func TestWatchPollsWhatItCantWatch(t *testing.T) {
	for _, key := range []string{"", "a/"} {
		f := newWatchFixture(t)
		put(t, f.dir, "a/b.md")
		f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) {
			w.fault = func(at string) error {
				if at == key {
					return syscall.EIO
				}
				return nil
			}
		})
		put(t, f.dir, "a/c.md")
		f.synced()
		if reason := f.watch.pollReason(); !strings.Contains(reason, "input/output error") || strings.Contains(reason, `"a/"`) != (key != "") {
			t.Errorf("polling %q", reason)
		}
	}
}

// Directories that the filter leaves out have no watch.
func TestWatchHonoursTheFilter(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "docs/a.md", ".git/objects/x", "node_modules/m/doc.md", "drafts/deep/b.md")
	write(t, f.path(".kbsyncignore"), "drafts/\n")
	f.begin(DirectoryOptions{Filter: filter(t, FilterOptions{Exclude: []string{"node_modules/**"}})}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	if s := f.watch.Stats(); s.Directories != 2 {
		t.Errorf("%+v", s)
	}
	for _, key := range []string{".git/objects/y", "node_modules/m/c.md", "drafts/deep/c.md", "docs/a.md.swp", "docs/a.bin"} {
		put(t, f.dir, key)
	}
	f.do("quiet")
	// A removed or new ignore file changes the set of watched directories.
	f.do("rm .kbsyncignore")
	f.await("the whole root", func() bool { return slices.Contains(f.dirty, "") })
	f.scan()
	put(t, f.dir, "drafts/deep/d.md")
	f.synced()
	f.whole = 0
	f.do("write docs/.kbsyncignore secret/")
	f.do("write docs/open/x.md x")
	f.do("write docs/secret/x.md x")
	f.synced()
	f.do("write docs/secret/y.md y")
	f.do("quiet")
	f.do("rm docs/.kbsyncignore")
	f.synced()
	f.do("write docs/secret/z.md z")
	f.synced()
	f.do("parts")
}

// Random moves, deletions and writes: the dirty prefixes cover all changes.
func TestWatchStorm(t *testing.T) {
	seeds, steps := 6, 400
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(11, uint64(seed)))
			f := newWatchFixture(t)
			f.begin(DirectoryOptions{}, WatchOptions{}, nil)
			f.try(os.Mkdir(filepath.Join(f.base, "beside"), 0o700))
			names := []string{"a", "b", "c", "a.md", "b.md"}
			pick := func() string {
				key := names[rng.IntN(len(names))]
				for range rng.IntN(4) {
					key = names[rng.IntN(3)] + "/" + key
				}
				if rng.IntN(12) == 0 {
					key = "../beside/" + key
				}
				return key
			}
			for step := range steps {
				from, to := f.path(pick()), f.path(pick())
				// Operations that fail change nothing.
				switch rng.IntN(10) {
				case 0, 1, 2:
					if os.MkdirAll(filepath.Dir(to), 0o700) == nil {
						_ = os.WriteFile(to, []byte(to), 0o600)
					}
				case 3, 4:
					_ = os.MkdirAll(to, 0o700)
				case 5, 6, 7:
					_ = os.Rename(from, to)
				case 8:
					_ = os.RemoveAll(to)
				case 9:
					_ = os.Chmod(to, 0o700)
				}
				if step%50 == 49 {
					f.synced()
				}
			}
			f.synced()
			t.Logf("%d scans of the whole, %+v", f.whole, f.watch.Stats())
		})
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a/b/c.md")
	ctx, cancel := context.WithCancel(t.Context())
	d := NewDirectory(dir, DirectoryOptions{})
	w, err := d.Watch(ctx, WatchOptions{Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-w.done
	w.Mark("x") // causes no wakeup
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Watch(ctx, WatchOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWatchMark(t *testing.T) {
	f := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{}, nil)
	f.watch.Mark()
	if got := f.watch.Take(); got != nil {
		t.Errorf("dirty: %q", got)
	}
	f.watch.Mark("b/c", "b/", "a")
	<-f.watch.Wake()
	if got := f.watch.Take(); !slices.Equal(got, []string{"a", "b/"}) {
		t.Errorf("dirty: %q", got)
	}
}
