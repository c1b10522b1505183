package engine

import (
	"context"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A slowRoot is a made-up root whose listings take long, or fail.
type slowRoot struct {
	Root
	took     time.Duration
	failures int // of the listings below fail
	fail     string
	listed   []string // the prefixes
}

func (r *slowRoot) Identity(context.Context) (string, error) { return "root", nil }

func (r *slowRoot) List(_ context.Context, prefix string) iter.Seq2[watcher.Entry, error] {
	return func(yield func(watcher.Entry, error) bool) {
		r.listed = append(r.listed, prefix)
		time.Sleep(r.took)
		if prefix == r.fail && r.failures > 0 {
			r.failures--
			yield(watcher.Entry{}, &watcher.ListError{Path: prefix, Err: context.DeadlineExceeded})
			return
		}
		yield(watcher.Entry{Key: "a/doc.md", Fingerprint: state.Fingerprint{Size: 1, MTime: 1}}, nil)
	}
}

func (r *slowRoot) Survey(ctx context.Context, _ *watcher.LeftOut) iter.Seq2[watcher.Entry, error] {
	return r.List(ctx, "")
}

// A testSource is a source of changes that a test marks.
type testSource struct {
	wake  wakeup
	mu    sync.Mutex
	dirty []string
	left  []string
}

func (s *testSource) Wake() <-chan struct{} { return s.wake }

func (s *testSource) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	dirty := s.dirty
	s.dirty = nil
	return dirty
}

func (s *testSource) Recorded(left []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = left
}

// remaining returns the parts that the last scan left.
func (s *testSource) remaining() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

func (s *testSource) Close() error { return nil }

func (s *testSource) mark(prefix string) {
	s.mu.Lock()
	s.dirty = append(s.dirty, prefix)
	s.mu.Unlock()
	s.wake.signal()
}

// scanning runs a scan loop on the root for as long as during runs, in a bubble.
func scanning(t *testing.T, root *slowRoot, during func(l *loops, source *testSource, log *logged)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg, err := config.Parse(config.Input{Path: "kbsync.yaml", Dir: dir, File: []byte("syncs: [{name: docs, root: docs, knowledge_base: 876}]")})
		if err != nil {
			t.Fatal(err)
		}
		store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(dir, "kbsync.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		var log logged
		opts := Options{Config: cfg, Store: store, Now: time.Now, Cut: t.Context(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
		page, err := statuspage.New(statuspage.Options{State: store})
		if err != nil {
			t.Fatal(err)
		}
		l := &loops{
			worker: newWorker(opts, cfg.Syncs[0]), host: &host{page: page, changed: newWakeup()},
			scanNow: newWakeup(), scanSoon: newWakeup(), due: newWakeup(), changed: newWakeup(),
		}
		l.root = &CountingRoot{Root: root}
		if l.sync, err = store.Syncs.Ensure(t.Context(), "docs", "docs", state.Destination{Origin: "http://127.0.0.1", KnowledgeBase: 876}, false); err != nil {
			t.Fatal(err)
		}
		source := &testSource{wake: newWakeup()}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.withScanLiveness(func() { l.scanOn(ctx, source) })
		}()
		during(l, source, &log)
		cancel()
		<-done
	})
}

// A root is polled every 30 s, and its listing takes 40 s.
func TestSlowListingLeavesHalfOfTheTimeToUploads(t *testing.T) {
	t.Parallel()
	root := &slowRoot{took: 40 * time.Second}
	open := 0
	scanning(t, root, func(l *loops, source *testSource, _ *logged) {
		for second := range 800 {
			if second%30 == 0 {
				source.mark("")
			}
			time.Sleep(time.Second)
			if !l.gate.IsShut() {
				open++
			}
		}
	})
	if scans := len(root.listed); open < 380 || scans < 9 || scans > 11 {
		t.Errorf("the gate was open for %d s of 800, in %d scans", open, scans)
	}
}

// One failure of a listing after an event; nothing else happens to that part until the next rescan, in ten minutes.
func TestPartThatWasNotListedAfterAnEventIsScannedAgain(t *testing.T) {
	t.Parallel()
	root := &slowRoot{fail: "a/", failures: 3}
	scanning(t, root, func(l *loops, source *testSource, log *logged) {
		time.Sleep(time.Second)
		source.mark("a/")
		time.Sleep(100 * time.Millisecond)
		if err := l.lastErrors(); err == nil || !strings.Contains(err.Error(), "cannot list 1 part of the root") || !slices.Equal(source.remaining(), []string{"a/"}) {
			t.Errorf("the status has %v, left %q", err, source.remaining())
		}
		source.mark("b.md") // another part is in order
		time.Sleep(100 * time.Millisecond)
		if err := l.lastErrors(); err == nil {
			t.Error("the error is gone before the part was listed")
		}
		time.Sleep(8 * time.Second) // 1, 2 and 4 s
		if err := l.lastErrors(); err != nil || len(source.remaining()) > 0 {
			t.Errorf("the status has %v, left %q", err, source.remaining())
		}
		if n := log.count("cannot list"); n != 2 || !log.has("works again") {
			t.Errorf("the log reports %d failures, and a success: %v", n, log.has("works again"))
		}
		time.Sleep(time.Minute)
	})
	if want := []string{"a/", "b.md", "a/", "a/", "a/"}; !slices.Equal(root.listed, want) {
		t.Errorf("listed %q, want %q", root.listed, want)
	}
}
