package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// A fixture is a config with one sync, "docs", a root with two documents, a state, and an emulator.
type fixture struct {
	*testing.T
	emulator *emulator.Emulator
	opts     Options
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t}
	dir := t.TempDir()
	root := filepath.Join(dir, "docs")
	f.must(os.Mkdir(root, 0o700))
	for _, name := range []string{"one", "other"} {
		f.must(os.WriteFile(filepath.Join(root, name+".md"), []byte(name), 0o600))
	}
	cfg, err := config.Parse(config.Input{
		Path: "kbsync.yaml", Dir: dir,
		File: []byte("syncs: [{name: docs, root: docs, knowledge_base: 876, settle: 0s, on_uncertain: hold}]"),
	})
	f.must(err)
	f.emulator, err = emulator.New(emulator.Options{Train: -1})
	f.must(err)
	url, err := f.emulator.Start("127.0.0.1:0")
	f.must(err)
	t.Cleanup(func() { _ = f.emulator.Close() })
	client, err := replycx.New(f.emulator.Token(51), replycx.Options{BaseURL: url})
	f.must(err)
	store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(dir, "kbsync.db")})
	f.must(err)
	t.Cleanup(func() { f.must(store.Close()) })
	f.opts = Options{
		Config: cfg, Store: store, Now: time.Now, Cut: t.Context(),
		API:      &API{Client: client, Origin: url, Local: true, Close: func() error { return nil }},
		Logger:   slog.New(slog.NewTextHandler(t.Output(), nil)),
		ExitCode: func(Class) int { return 1 },
	}
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// record records a document of a sync, as a scan does, and claims it.
func (f *fixture) record(s state.Sync, content string) []state.ClaimedDocument {
	f.Helper()
	scan, err := f.opts.Store.Scans.Begin(f.Context(), s.ID, "")
	f.must(err)
	f.must(f.opts.Store.Scans.Record(f.Context(), scan, []state.Change{{
		Op: state.Put, Key: content + ".md", Fingerprint: state.Fingerprint{Size: int64(len(content)), MTime: 1},
	}}))
	docs, err := f.opts.Store.Queue.Claim(f.Context(), s.ID, 10)
	f.must(err)
	return docs
}

// seal begins a request for the content of a document of the sync, and seals it.
func (f *fixture) seal(s state.Sync, probe bool, content string) *state.Upload {
	f.Helper()
	docs := f.record(s, content)
	batch, err := f.opts.Store.Journal.Begin(f.Context(), state.BatchSpec{SyncID: s.ID, Probe: probe, Members: docs})
	f.must(err)
	f.must(f.opts.Store.Journal.Seal(f.Context(), batch, []state.Seal{{SHA256: sha256.Sum256([]byte(content)), Size: int64(len(content))}}))
	return batch
}

// sync returns the sync of that name, at the destination of the fixture.
func (f *fixture) sync(name string) state.Sync {
	f.Helper()
	s, err := f.opts.Store.Syncs.Ensure(f.Context(), name, "/"+name, f.opts.API.Destination(876), false)
	f.must(err)
	return s
}

func (f *fixture) wantCounts(s state.Sync, want map[state.DocumentState]int) {
	f.Helper()
	counts, err := f.opts.Store.Documents.Counts(f.Context(), s.ID)
	f.must(err)
	for state, n := range counts {
		if n == 0 {
			delete(counts, state)
		}
	}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		f.Errorf("documents of %s: %v, want %v", s.Name, counts, want)
	}
}

// A sync whose process was killed after a seal, and that left the config, reserves a content and has the probe of the breaker.
func TestSyncWithoutProcessBlocksNoOtherSync(t *testing.T) {
	t.Parallel()
	for _, probe := range []bool{false, true} {
		t.Run(fmt.Sprintf("probe=%v", probe), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			gone := f.sync("gone")
			if probe {
				_, err := f.opts.Store.Journal.MarkUncertain(t.Context(), f.seal(gone, false, "lost"), 0, "lost")
				f.must(err)
			}
			f.seal(gone, probe, "one")
			result := RunOnce(t.Context(), RunOptions{Options: f.opts, Wait: true})
			f.must(result.Passes[0].Err)
			f.wantCounts(result.Passes[0].Sync, map[state.DocumentState]int{state.Uncertain: 1, state.Completed: 1})
			if accepted := f.emulator.Accepted(); len(accepted) != 1 {
				t.Errorf("%d uploads, want the one of the other document", len(accepted))
			}
		})
	}
}

func TestSyncWithAProcessIsNotRecoveredByAnotherSync(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	busy := f.sync("busy")
	lock, err := f.opts.Store.Lock(t.Context(), busy.Name, 0)
	f.must(err)
	defer func() { f.must(lock.Unlock()) }()
	f.seal(busy, false, "one")
	result := RunOnce(t.Context(), RunOptions{Options: f.opts, Wait: true})
	f.must(result.Passes[0].Err)
	f.wantCounts(busy, map[state.DocumentState]int{state.Uploading: 1})
	f.wantCounts(result.Passes[0].Sync, map[state.DocumentState]int{state.Uploading: 1, state.Completed: 1})
}

// The lock of a sync that another worker recovers is held for a moment only, and the owner waits for it.
func TestOwnerWaitsForTheRecoveryByAnotherWorker(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	lock, err := f.opts.Store.Lock(t.Context(), "docs", 0)
	f.must(err)
	time.AfterFunc(50*time.Millisecond, func() { _ = lock.Unlock() })
	result := RunOnce(t.Context(), RunOptions{Options: f.opts, Wait: true})
	f.must(result.Passes[0].Err)
}

// A run of uploads may leave claims behind, because its state could not be written. The next run uploads those documents.
func TestEachRunOfUploadsRecoversTheClaimsOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := newWorker(f.opts, f.opts.Config.Syncs[0])
	f.must(w.openRoot(t.Context()))
	f.must(w.open(t.Context()))
	defer func() { f.must(w.unlock()) }()
	p := &pass{worker: w, run: &RunOptions{Options: f.opts}, soft: t.Context()}
	f.must(p.scan(t.Context()))
	docs, err := f.opts.Store.Queue.Claim(t.Context(), w.sync.ID, 10)
	f.must(err)
	if len(docs) != 2 {
		t.Fatalf("%d claims", len(docs))
	}
	result, err := w.upload(t.Context(), ingest.Options{Patience: time.Millisecond})
	f.must(err)
	if result.Uploaded != 2 {
		t.Errorf("%+v", result)
	}
}

// failedLoop returns loops whose last run of uploads has failed.
func (f *fixture) failedLoop() *loops {
	f.Helper()
	l := &loops{worker: newWorker(f.opts, f.opts.Config.Syncs[0])}
	f.must(l.openRoot(f.Context()))
	f.must(l.open(f.Context()))
	f.Cleanup(func() { f.must(l.unlock()) })
	cut, cancel := context.WithCancel(f.Context())
	cancel()
	if _, err := l.upload(cut, ingest.Options{}); err == nil {
		f.Fatal("a run without a context did not fail")
	}
	return l
}

// A claimed document is never due: without a recovery no other run would begin.
func TestLoopRecoversTheClaimsOfAFailedRunThoughNothingIsDue(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.failedLoop()
	f.record(l.sync, "one")
	f.record(l.sync, "other") // both are claimed, and no run of uploads works on them
	wait, err := l.untilDue(t.Context())
	f.must(err)
	if wait > 0 {
		t.Errorf("nothing is due for %v", wait)
	}
	f.wantCounts(l.sync, map[state.DocumentState]int{state.Pending: 2})
}

// After a lost answer the next run may begin an hour later. What the failed run has left does not wait for it: a probe of the breaker, for
// example, would hold back the uploads of every other process.
func TestWhatAFailedRunHasLeftIsRecoveredBeforeTheNextRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.failedLoop()
	f.seal(l.sync, true, "probe")
	var queue queueReader
	wait, err := queue.wait(t.Context(), l, time.Now().Add(time.Hour))
	f.must(err)
	if wait < 59*time.Minute {
		t.Errorf("the next run begins after %v, want an hour", wait)
	}
	f.wantCounts(l.sync, map[state.DocumentState]int{state.Uncertain: 1})
	f.seal(l.sync, true, "second")
}

// shared gives the fixture a state that other processes may share.
func (f *fixture) shared() {
	f.Helper()
	store, err := state.Open(f.Context(), state.Options{Path: pgtest.Start(f).Database(f)})
	f.must(err)
	f.Cleanup(func() { f.must(store.Close()) })
	f.opts.Store = store
}

// The loops of a sync cannot give back a claim, because the database is out of reach, and a reload has ended them. The claim belongs to a
// process that lives on.
func TestClaimOfASyncThatLeftTheConfigIsGivenBack(t *testing.T) {
	t.Parallel()
	r := startDaemon(t, "{poll: {min: 20ms}, syncs: ["+oneSync+"]}", (*fixture).shared)
	receive(t, r.client.sealed)
	docs, err := r.opts.Store.Syncs.Get(t.Context(), "docs")
	r.must(err)
	r.record(docs, "left") // no loop knows of the claim
	r.reloadTo("{poll: {min: 20ms}, syncs: [{name: rest, root: rest, knowledge_base: 876}]}")
	r.answerAll()
	until(t, func() bool {
		counts, err := r.opts.Store.Documents.Counts(t.Context(), docs.ID)
		r.must(err)
		return counts[state.Uploading] == 0
	})
	r.wantCounts(docs, map[state.DocumentState]int{state.Completed: 2, state.Pending: 1})
}

// A sync that is in the config again has loops, which recover it by themselves: at the same time as a run of uploads nothing else may.
func TestOnlySyncsWithoutLoopsAreRecovered(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.shared()
	lock, err := f.opts.Store.Lock(t.Context(), "other", 0) // the process leads another sync
	f.must(err)
	defer func() { f.must(lock.Unlock()) }()
	s := f.sync("docs")
	d := &daemon{opts: DaemonOptions{Options: f.opts}, left: map[string]int64{s.Name: s.ID, "forgotten": 99}}
	f.record(s, "one")
	of := map[string]*loops{s.Name: {}}
	for _, working := range []*map[string]*loops{&d.loops, &d.ending} {
		*working = of
		d.recoverLeft(t.Context())
		f.wantCounts(s, map[state.DocumentState]int{state.Uploading: 1})
		*working = nil
	}
	d.recoverLeft(t.Context())
	f.wantCounts(s, map[state.DocumentState]int{state.Pending: 1})
	if len(d.left) > 0 {
		t.Errorf("left: %v", d.left)
	}
}
