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
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// A watchFixture is a watched directory with a state that follows it by scans of what is dirty alone.
type watchFixture struct {
	t      *testing.T
	base   string // what is beside the root
	dir    string
	root   *Directory
	watch  *Watch
	store  *memoryStore
	opts   ScanOptions
	dirty  []string // taken, and not scanned yet
	puts   []string // of all scans
	whole  int      // scans of the whole root
	fences int
	log    lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWatchFixture(t *testing.T) *watchFixture {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("roots are polled on Windows")
	}
	base := t.TempDir()
	l := &watchFixture{t: t, base: base, dir: filepath.Join(base, "root"), store: newMemoryStore(), opts: ScanOptions{MaxDelete: MaxDelete{Percent: 100, ByPercent: true}, AllowEmpty: true, AcceptNewRoot: true}}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

// begin watches, and takes the first wake. What is set up may change the Watch before it starts.
func (l *watchFixture) begin(dirOpts DirectoryOptions, opts WatchOptions, setUp func(*Watch)) *watchFixture {
	l.t.Helper()
	opts.Logger = slog.New(slog.NewTextHandler(&l.log, nil))
	l.root = NewDirectory(l.dir, dirOpts)
	// Everything has settled.
	l.root.now = func() time.Time { return time.Now().Add(time.Minute) }
	l.watch = newWatch(l.root, opts)
	if setUp != nil {
		setUp(l.watch)
	}
	if err := l.watch.start(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { l.watch.Close() })
	l.await("the first wake", func() bool { return l.covered("any") })
	l.scan()
	l.whole = 0
	return l
}

// pollReason returns why the root is polled; empty if it is watched or missing.
func (w *Watch) pollReason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.polling
}

// await takes what is dirty until ok says that it is enough.
func (l *watchFixture) await(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(2 * time.Millisecond) // some of it wakes nobody
	defer look.Stop()
	for !ok() {
		select {
		case <-l.watch.Wake():
			l.dirty = append(l.dirty, l.watch.Take()...)
		case <-look.C:
		case <-deadline.C:
			l.t.Fatalf("waited for %s in vain; dirty: %q, stats %+v, polling %q", what, l.dirty, l.watch.Stats(), l.watch.pollReason())
		}
	}
}

func (l *watchFixture) covered(key string) bool {
	return slices.ContainsFunc(l.dirty, func(prefix string) bool { return covers(prefix, key) })
}

// fence waits until all that happened until now was told.
func (l *watchFixture) fence() {
	l.t.Helper()
	l.fences++
	key := fmt.Sprintf("fence-%d.md", l.fences)
	// The last event is the only one with its name.
	put(l.t, l.dir, key+".tmp")
	l.try(os.Rename(l.path(key+".tmp"), l.path(key)))
	l.await("the fence", func() bool { return l.covered(key) })
}

// scan scans what is dirty.
func (l *watchFixture) scan() {
	l.t.Helper()
	dirty := l.dirty
	l.dirty = nil
	if slices.Contains(dirty, "") {
		l.whole++
	}
	l.store.puts = nil
	scanFixture := &scanFixture{dir: l.dir, store: l.store}
	r, err := NewScanner(l.root, l.opts).ScanAll(l.t.Context(), l.store, scanFixture.sync(), dirty)
	l.puts = append(l.puts, l.store.puts...)
	switch {
	case errors.Is(err, ErrRootMissing):
	case err != nil:
		l.t.Fatal(err)
	case r.Unsettled > 0 || r.IncompleteCount > 0:
		// Something moves.
		l.dirty = dirty
	}
}

// synced waits until all that happened was told, scans what is dirty, and compares what is known with the whole root.
func (l *watchFixture) synced() {
	l.t.Helper()
	l.fence()
	l.scan()
	l.compare()
}

func (l *watchFixture) compare() {
	l.t.Helper()
	listed := map[string]bool{}
	for e, err := range l.root.List(l.t.Context(), "") {
		if err != nil {
			l.t.Fatal(err)
		}
		listed[e.Key] = true
		if k, ok := l.store.known[e.Key]; !ok {
			l.t.Errorf("%q was not found", e.Key)
		} else if k.Fingerprint != e.Fingerprint {
			l.t.Errorf("a change of %q was not found", e.Key)
		}
	}
	for key := range l.store.known {
		if !listed[key] {
			l.t.Errorf("that %q is gone was not found", key)
		}
	}
	if l.t.Failed() {
		l.t.Fatalf("stats %+v", l.watch.Stats())
	}
}

func (l *watchFixture) path(key string) string { return filepath.Join(l.dir, filepath.FromSlash(key)) }

func (l *watchFixture) try(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// do carries out a line of a script; see testdata/watch/README.
func (l *watchFixture) do(line string) {
	t := l.t
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
				t.Fatalf("start what? %s", a)
			}
		}
		l.begin(opts, watch, nil)
	case "mkdir":
		for _, a := range args {
			l.try(os.MkdirAll(l.path(a), 0o700))
		}
	case "write":
		write(t, l.path(args[0]), strings.Join(args[1:], " "))
	case "append":
		f, err := os.OpenFile(l.path(args[0]), os.O_APPEND|os.O_WRONLY, 0)
		l.try(err)
		_, err = f.WriteString(strings.Join(args[1:], " "))
		l.try(errors.Join(err, f.Close()))
	case "touch":
		l.try(os.Chtimes(l.path(args[0]), time.Time{}, time.Now()))
	case "chmod":
		mode, err := strconv.ParseUint(args[0], 8, 32)
		l.try(err)
		l.try(os.Chmod(l.path(args[1]), os.FileMode(mode)))
	case "mv":
		l.try(os.Rename(l.path(args[0]), l.path(args[1])))
	case "rm":
		for _, a := range args {
			l.try(os.RemoveAll(l.path(a)))
		}
	case "link": // as ln -sfT does
		l.try(os.Symlink(args[0], l.path(args[1])+".new-link"))
		l.try(os.Rename(l.path(args[1])+".new-link", l.path(args[1])))
	case "dirty":
		for _, a := range args {
			l.await(a, func() bool { return l.covered(a) })
		}
	case "quiet":
		l.fence()
		for _, prefix := range l.dirty {
			if !strings.HasPrefix(prefix, "fence-") {
				t.Fatalf("%q is dirty", prefix)
			}
		}
		l.scan()
	case "synced":
		l.synced()
	case "parts":
		if l.whole > 0 {
			t.Fatalf("the whole root was scanned %d times, stats %+v", l.whole, l.watch.Stats())
		}
	case "known":
		known := slices.DeleteFunc(slices.Sorted(maps.Keys(l.store.known)), func(k string) bool { return strings.HasPrefix(k, "fence-") })
		if !slices.Equal(known, args) {
			t.Fatalf("known are %q, want %q", known, args)
		}
	default:
		t.Fatalf("no such verb: %s", verb)
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
			l := newWatchFixture(t)
			for i, line := range strings.Split(string(text), "\n") {
				if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
					continue
				}
				t.Logf("%s:%d: %s", script, i+1, line)
				l.do(line)
			}
		})
	}
}

// W1: directories that are made at once with a file in them; 300 rounds.
func TestNewDeepDirectoriesAreWatched(t *testing.T) {
	l := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{}, nil)
	for i := range 300 {
		key := fmt.Sprintf("r%d/a/b/c/doc.md", i)
		put(t, l.dir, key)
		l.await(key, func() bool { return l.covered(key) })
		l.scan()
		if _, ok := l.store.known[key]; !ok {
			// It came as a part of something; the rest follows.
			l.fence()
			l.scan()
			if _, ok := l.store.known[key]; !ok {
				t.Fatalf("round %d: not found, stats %+v", i, l.watch.Stats())
			}
		}
	}
	l.synced()
	if n := len(l.puts) - l.fences; n != 300 {
		t.Errorf("%d documents became pending, want 300", n)
	}
	if l.whole > 0 {
		t.Errorf("the whole root was scanned %d times", l.whole)
	}
}

// gated returns a source of events that passes them on as pass says, which is asked in a goroutine of the source's.
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

// W2: more events than the system keeps, because nobody reads them.
func TestQueueOverflowMakesTheRootDirty(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip("no queue with a known limit here")
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil || n > 100_000 {
		t.Skipf("the queue holds %d events, %v", n, err)
	}
	l := newWatchFixture(t)
	for i := range 100 {
		put(t, l.dir, fmt.Sprintf("d%d/", i))
	}
	gate := make(chan struct{})
	l.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
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
		write(t, l.path(fmt.Sprintf("d%d/%d.md", i%100, i)), "x")
	}
	close(gate)
	l.await("a restart", func() bool { return l.watch.Stats().Restarts > 0 })
	l.synced()
	if s := l.watch.Stats(); s.Overflows == 0 || l.watch.pollReason() != "" {
		t.Errorf("%+v, polling %q", s, l.watch.pollReason())
	}
	// It watches on.
	put(t, l.dir, "d7/late.md", "new/late.md")
	l.synced()
}

// W2: an overflow and another error that are made up.
func TestNotificationErrorsMakeTheRootDirty(t *testing.T) {
	for _, failure := range []error{fsnotify.ErrEventOverflow, syscall.EBADF} {
		l := newWatchFixture(t)
		var drop atomic.Bool
		errs := make(chan error, 1)
		l.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
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
		put(t, l.dir, "a/b/lost.md", "lost.md")
		drop.Store(false)
		errs <- failure
		l.await("the whole root", func() bool { return slices.Contains(l.dirty, "") })
		l.synced()
		put(t, l.dir, "a/b/found.md")
		l.synced()
		s := l.watch.Stats()
		if s.Restarts != 1 || s.Overflows+s.Errors != 1 || errors.Is(failure, fsnotify.ErrEventOverflow) != (s.Overflows == 1) {
			t.Errorf("%v: %+v", failure, s)
		}
	}
}

// W2: a source that drops everything. The scans of the whole find what there is, and the root is polled in the end.
func TestMissedChangesFallBackToPolling(t *testing.T) {
	l := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) {
		w.open = gated(t, func(fsnotify.Event) bool { return false })
	})
	round := 0
	rescan := func(n int) {
		t.Helper()
		round++
		for i := range n {
			put(t, l.dir, fmt.Sprintf("%d/%d.md", round, i))
		}
		l.dirty = []string{""}
		before := len(l.puts)
		l.scan()
		if found := len(l.puts) - before; found != n {
			t.Fatalf("found %d of %d", found, n)
		}
		l.watch.Missed(n)
	}
	for _, n := range []int{11, 10, 11, 0, 50, 3, 11} {
		rescan(n)
		if reason := l.watch.pollReason(); reason != "" || len(l.watch.pollReasons) > 0 {
			t.Fatalf("polled after %d: %s", n, reason)
		}
	}
	rescan(11)
	l.await("polling", func() bool { return strings.Contains(l.watch.pollReason(), "more than 10 changes") })
	put(t, l.dir, "polled/a.md")
	l.synced()
	if s := l.watch.Stats(); s.Missed != 107 || s.Directories != 0 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(l.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, l.log.String())
	}
}

// W3: a document that is written to for ever makes one wake a delay, and is found when it rests.
func TestWatchWakesOncePerDelay(t *testing.T) {
	l := newWatchFixture(t)
	put(t, l.dir, "hot.md")
	l.begin(DirectoryOptions{}, WatchOptions{Delay: 50 * time.Millisecond}, nil)
	began, wakes := time.Now(), 0
	for time.Since(began) < 500*time.Millisecond || wakes == 0 && time.Since(began) < 10*time.Second {
		l.do("append hot.md more")
		select {
		case <-l.watch.Wake():
			got := l.watch.Take()
			if got == nil {
				continue // a wake that was left of the beginning
			}
			wakes++
			if !slices.Equal(got, []string{"hot.md"}) {
				t.Errorf("dirty: %q", got)
			}
		default:
		}
	}
	if most := int(time.Since(began)/(50*time.Millisecond)) + 1; wakes == 0 || wakes > most {
		t.Errorf("%d wakes, want 1 to %d", wakes, most)
	}
	l.synced()
}

// W7: a mounted ConfigMap is updated by setting its ..data link elsewhere.
func TestWatchFollowsConfigMapUpdates(t *testing.T) {
	l := newWatchFixture(t)
	update := func(i int) {
		t.Helper()
		put(t, l.dir, fmt.Sprintf("..v%d/doc.md", i), fmt.Sprintf("..v%d/sub/deep.md", i))
		l.do(fmt.Sprintf("link ..v%d ..data", i))
		if i > 0 {
			l.do(fmt.Sprintf("rm ..v%d", i-1))
		}
	}
	update(0)
	link(t, "..data/doc.md", l.path("doc.md"))
	link(t, "..data/sub", l.path("sub"))
	l.begin(DirectoryOptions{}, WatchOptions{}, nil)
	l.puts = nil
	for i := 1; i <= 20; i++ {
		update(i)
		l.await("the swap", func() bool { return l.covered("doc.md") && l.covered("sub/deep.md") })
		l.scan()
		l.compare()
	}
	if len(l.puts) != 40 || len(l.store.known) != 2 {
		t.Errorf("%d documents became pending, want 40; known %v", len(l.puts), l.store.known)
	}
	if s := l.watch.Stats(); s.Directories != 1 || s.Restarts > 0 {
		t.Errorf("%+v", s)
	}
}

// W7: a ..data link whose event did not come is noticed when the root is looked at.
func TestConfigMapUpdateIsNoticedWithoutEvents(t *testing.T) {
	l := newWatchFixture(t)
	put(t, l.dir, "..v0/doc.md", "..v1/doc.md")
	link(t, "..v0", l.path("..data"))
	link(t, "..data/doc.md", l.path("doc.md"))
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, func(w *Watch) {
		w.open = gated(t, func(fsnotify.Event) bool { return false })
	})
	l.do("link ..v1 ..data")
	l.await("the swap", func() bool { return l.covered("doc.md") })
	l.scan()
	l.compare()
}

// W7: git-sync sets the link that is the root to a new directory.
func TestWatchFollowsGitSync(t *testing.T) {
	l := newWatchFixture(t)
	put(t, l.base, "rev0/a.md", "rev0/sub/b.md")
	l.dir = filepath.Join(l.base, "current")
	link(t, "rev0", l.dir)
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	for i := 1; i <= 5; i++ {
		now, next := fmt.Sprintf("rev%d", i-1), fmt.Sprintf("rev%d", i)
		put(t, l.base, next+"/a.md", next+"/sub/b.md", fmt.Sprintf("%s/new%d.md", next, i))
		l.try(os.Symlink(next, filepath.Join(l.base, "link")))
		l.try(os.Rename(filepath.Join(l.base, "link"), l.dir))
		l.await("the flip", func() bool { return slices.Contains(l.dirty, "") })
		l.try(os.RemoveAll(filepath.Join(l.base, now)))
		l.scan()
		l.compare()
		put(t, l.dir, "sub/late.md")
		l.synced()
		if len(l.store.known) != 5 { // a, b, new, late and the fence
			t.Errorf("known: %v", slices.Sorted(maps.Keys(l.store.known)))
		}
	}
}

// W8: the root goes and comes back.
func TestWatchSurvivesAMissingRoot(t *testing.T) {
	for name, c := range map[string]struct{ away, back func(l *watchFixture) }{
		"renamed": {
			func(l *watchFixture) { l.try(os.Rename(l.dir, l.dir+".away")) },
			func(l *watchFixture) { l.try(os.Rename(l.dir+".away", l.dir)) },
		},
		"removed and recreated": {
			func(l *watchFixture) {
				l.try(os.Rename(l.dir, l.dir+".away"))
				put(l.t, l.base, "trash/x")
				l.try(os.RemoveAll(filepath.Join(l.base, "trash")))
			},
			func(l *watchFixture) {
				// The same files in another directory.
				l.try(os.Mkdir(l.dir+".new", 0o700))
				for _, name := range []string{"a.md", "sub"} {
					l.try(os.Rename(filepath.Join(l.dir+".away", name), filepath.Join(l.dir+".new", name)))
				}
				l.try(os.Rename(l.dir+".new", l.dir))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newWatchFixture(t)
			l.opts.AllowEmpty = false
			put(t, l.dir, "a.md", "sub/b.md")
			l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
			l.puts = nil
			c.away(l)
			l.await("the root to be missed", func() bool { return slices.Contains(l.dirty, "") && l.watch.Stats().RootMissing })
			l.scan()
			if len(l.store.known) != 2 {
				t.Errorf("something was removed: %v", l.store.known)
			}
			c.back(l)
			l.await("the root to be back", func() bool { return slices.Contains(l.dirty, "") && !l.watch.Stats().RootMissing })
			l.scan()
			if len(l.store.known) != 2 || slices.Contains(l.puts, "sub/b.md") {
				t.Errorf("known %v, pending again %v", l.store.known, l.puts)
			}
			put(t, l.dir, "sub/new.md")
			l.synced()
		})
	}
}

// W8: a root that is deleted and made anew within a moment may have the same number as before.
func TestWatchFollowsARecreatedRoot(t *testing.T) {
	l := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	for range 5 {
		l.try(os.RemoveAll(l.dir))
		l.try(os.Mkdir(l.dir, 0o700))
		l.await("the new root", func() bool { return slices.Contains(l.dirty, "") })
		l.synced()
		put(t, l.dir, "x/y.md")
		l.synced()
	}
}

func TestWatchWaitsForAMissingRoot(t *testing.T) {
	l := newWatchFixture(t)
	l.try(os.Remove(l.dir))
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	if !l.watch.Stats().RootMissing || l.watch.pollReason() != "" {
		t.Errorf("%+v", l.watch.Stats())
	}
	put(t, l.dir, "a/b.md")
	l.await("the root", func() bool { return slices.Contains(l.dirty, "") && !l.watch.Stats().RootMissing })
	l.synced()
}

// W9: no watches are to be had. Everything is found by polling, with one warning that says what to set.
func TestExhaustedWatchesFallBackToPolling(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		fail func(w *Watch, err error)
		says []string
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
			l := newWatchFixture(t)
			put(t, l.dir, "early/a.md")
			l.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond, Check: 10 * time.Millisecond}, func(w *Watch) { c.fail(w, c.err) })
			put(t, l.dir, "late/b.md")
			l.await("polling", func() bool { return l.watch.pollReason() != "" })
			put(t, l.dir, "late/c/d.md", "early/e.md")
			l.synced()
			for _, text := range append(c.says, l.dir, "polled") {
				if !strings.Contains(l.log.String(), text) {
					t.Errorf("the log does not say %q: %s", text, l.log.String())
				}
			}
			if n := strings.Count(l.log.String(), "level="); n != 1 || l.watch.Stats().Directories != 0 {
				t.Errorf("%d lines: %s, %+v", n, l.log.String(), l.watch.Stats())
			}
			// It is said once, even if the root is replaced.
			l.try(os.Rename(l.dir, l.dir+".old"))
			l.await("the root to be missed", func() bool { return l.watch.Stats().RootMissing })
			put(t, l.dir, "late/f.md")
			l.await("polling", func() bool {
				return l.watch.pollReason() != "" || strings.HasPrefix(name, "watches, while") && l.watch.Stats().Directories > 0
			})
			if n := strings.Count(l.log.String(), "level="); n != 1 {
				t.Errorf("%d lines: %s", n, l.log.String())
			}
		})
	}
}

// W9: a directory that can't be read is watched when it can be.
func TestDirectoryThatBecomesReadableIsWatched(t *testing.T) {
	for i, key := range []string{"locked/", "locked/sub/"} {
		l := newWatchFixture(t)
		put(t, l.dir, "locked/sub/a.md")
		var locked atomic.Bool
		locked.Store(true)
		l.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) {
			w.fault = func(at string) error {
				if locked.Load() && at == key {
					return fs.ErrPermission
				}
				return nil
			}
		})
		if s := l.watch.Stats(); s.Directories != 1+i || l.watch.pollReason() != "" {
			t.Errorf("%+v, polling %q", s, l.watch.pollReason())
		}
		locked.Store(false)
		l.do("chmod 0755 locked")
		l.await("the directory", func() bool { return l.covered("locked/sub/a.md") })
		put(t, l.dir, "locked/sub/b.md")
		l.synced()
		l.do("parts")
	}
}

// A root that can't be read is waited for, and wakes once, so that a scan says what is wrong.
func TestWatchUnreadableRoot(t *testing.T) {
	l := newWatchFixture(t)
	put(t, l.dir, "a/b.md")
	var locked atomic.Bool
	locked.Store(true)
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, func(w *Watch) {
		w.fault = func(at string) error {
			if locked.Load() {
				return fs.ErrPermission
			}
			return nil
		}
	})
	if s := l.watch.Stats(); s.Directories != 0 || l.watch.pollReason() != "" {
		t.Errorf("%+v, polling %q", s, l.watch.pollReason())
	}
	locked.Store(false)
	l.await("the whole root", func() bool { return slices.Contains(l.dirty, "") })
	put(t, l.dir, "a/c.md")
	l.synced()
}

func TestWatchWithoutEvents(t *testing.T) {
	l := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{NoEvents: true, Poll: 20 * time.Millisecond}, nil)
	put(t, l.dir, "a/b.md")
	l.synced()
	if s := l.watch.Stats(); s.Events > 0 || l.watch.pollReason() == "" || l.log.String() != "" {
		t.Errorf("%+v, polling %q, log %s", s, l.watch.pollReason(), l.log.String())
	}
}

// A directory that fails in a way that no event will mend makes the root a polled one, and the warning names it.
func TestWatchPollsWhatItCantWatch(t *testing.T) {
	for _, key := range []string{"", "a/"} {
		l := newWatchFixture(t)
		put(t, l.dir, "a/b.md")
		l.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) {
			w.fault = func(at string) error {
				if at == key {
					return syscall.EIO
				}
				return nil
			}
		})
		put(t, l.dir, "a/c.md")
		l.synced()
		if reason := l.watch.pollReason(); !strings.Contains(reason, "input/output error") || strings.Contains(reason, `"a/"`) != (key != "") {
			t.Errorf("polling %q", reason)
		}
	}
}

// Directories that are left out take no watch.
func TestWatchHonoursTheFilter(t *testing.T) {
	l := newWatchFixture(t)
	put(t, l.dir, "docs/a.md", ".git/objects/x", "node_modules/m/doc.md", "drafts/deep/b.md")
	write(t, l.path(".kbsyncignore"), "drafts/\n")
	l.begin(DirectoryOptions{Filter: filter(t, FilterOptions{Exclude: []string{"node_modules/**"}})}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	if s := l.watch.Stats(); s.Directories != 2 {
		t.Errorf("%+v", s)
	}
	for _, key := range []string{".git/objects/y", "node_modules/m/c.md", "drafts/deep/c.md", "docs/a.md.swp", "docs/a.bin"} {
		put(t, l.dir, key)
	}
	l.do("quiet")
	// An ignore file that is gone, or that comes, changes what is watched.
	l.do("rm .kbsyncignore")
	l.await("the whole root", func() bool { return slices.Contains(l.dirty, "") })
	l.scan()
	put(t, l.dir, "drafts/deep/d.md")
	l.synced()
	l.whole = 0
	l.do("write docs/.kbsyncignore secret/")
	l.do("write docs/open/x.md x")
	l.do("write docs/secret/x.md x")
	l.synced()
	l.do("write docs/secret/y.md y")
	l.do("quiet")
	l.do("rm docs/.kbsyncignore")
	l.synced()
	l.do("write docs/secret/z.md z")
	l.synced()
	l.do("parts")
}

// Random moves, deletions and writes, while the watch follows: what is dirty covers all that changed.
func TestWatchStorm(t *testing.T) {
	seeds, steps := 6, 400
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(11, uint64(seed)))
			l := newWatchFixture(t)
			l.begin(DirectoryOptions{}, WatchOptions{}, nil)
			l.try(os.Mkdir(filepath.Join(l.base, "beside"), 0o700))
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
				from, to := l.path(pick()), l.path(pick())
				// What can't be done is not done.
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
					l.synced()
				}
			}
			l.synced()
			t.Logf("%d scans of the whole, %+v", l.whole, l.watch.Stats())
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
	w.Mark("x") // nobody wakes
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Watch(ctx, WatchOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWatchMark(t *testing.T) {
	l := newWatchFixture(t).begin(DirectoryOptions{}, WatchOptions{}, nil)
	l.watch.Mark()
	if got := l.watch.Take(); got != nil {
		t.Errorf("dirty: %q", got)
	}
	l.watch.Mark("b/c", "b/", "a")
	<-l.watch.Wake()
	if got := l.watch.Take(); !slices.Equal(got, []string{"a", "b/"}) {
		t.Errorf("dirty: %q", got)
	}
}
