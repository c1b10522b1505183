package watcher

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A mountFixture scans a directory into a state, and uploads what is pending there.
type mountFixture struct {
	*testing.T
	dir   string
	store *state.Store
	opts  ScanOptions
}

func newMountFixture(t *testing.T) *mountFixture {
	store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	f := &mountFixture{T: t, dir: t.TempDir(), store: store, opts: ScanOptions{Settle: time.Second, MaxDelete: Limit{Percent: 25, ByPercent: true, Always: 20}, MaxChange: Limit{Percent: 100, ByPercent: true}}}
	f.files("right", "known", 30)
	f.files("wrong", "other", 100)
	f.mount("right")
	return f
}

func (f *mountFixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *mountFixture) files(dir, name string, n int) {
	f.Helper()
	dir = filepath.Join(f.dir, dir)
	f.must(os.Mkdir(dir, 0o700))
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%s-%d.md", name, i))
		f.must(os.WriteFile(path, []byte(name+fmt.Sprint(i)), 0o600))
	}
}

// mount makes a directory the root.
func (f *mountFixture) mount(dir string) {
	f.Helper()
	root := filepath.Join(f.dir, "root")
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.Fatal(err)
	}
	f.must(os.Symlink(filepath.Join(f.dir, dir), root))
}

func (f *mountFixture) sync() state.Sync {
	f.Helper()
	s, err := f.store.Syncs.Ensure(f.Context(), "docs", f.dir, state.Destination{Origin: "http://127.0.0.1", KnowledgeBase: 876}, false)
	f.must(err)
	return s
}

func (f *mountFixture) scan() (Result, error) {
	f.Helper()
	root := NewDirectory(filepath.Join(f.dir, "root"), DirectoryOptions{})
	root.now = func() time.Time { return time.Now().Add(time.Minute) }
	return NewScanner(root, f.opts).Scan(f.Context(), f.store.Scans, f.sync(), "")
}

func (f *mountFixture) upload() {
	f.Helper()
	uploadPending(f.T, f.store, f.sync())
}

// uploadPending uploads all pending documents of a sync.
func uploadPending(t *testing.T, store *state.Store, s state.Sync) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	docs, err := store.Queue.Claim(t.Context(), s.ID, 10_000)
	must(err)
	batch, err := store.Journal.Begin(t.Context(), state.BatchSpec{SyncID: s.ID, Members: docs})
	must(err)
	seals, answer := make([]state.Seal, len(docs)), state.Answer{StatusCode: 200, Sources: make([][]state.SourceAnswer, len(docs))}
	for i, d := range docs {
		seals[i] = state.Seal{SHA256: sha256.Sum256([]byte(d.Key)), Size: d.Fingerprint.Size}
		answer.Sources[i] = []state.SourceAnswer{{ID: d.DocumentID, Outcome: state.TrainingCompleted}}
	}
	must(store.Journal.Seal(t.Context(), batch, seals))
	_, err = store.Journal.Accept(t.Context(), batch, answer)
	must(err)
}

func (f *mountFixture) wantGuard(want Guard) {
	f.Helper()
	_, err := f.scan()
	if halted, ok := errors.AsType[*GuardError](err); !ok || halted.Guard != want || halted.Known != 30 || halted.Removals != 30 {
		f.Fatalf("%v, want the guard %s for 30 of 30 documents", err, want)
	}
}

func (f *mountFixture) want(new, removed int) {
	f.Helper()
	result, err := f.scan()
	if err != nil || result.New != new || result.Removed != removed {
		f.Fatalf("%d new, %d removed, %v; want %d new, %d removed", result.New, result.Removed, err, new, removed)
	}
}

// A wrong directory at the root halts its scans, the second one too, and no scan after it is mended.
func TestScanOfAMendedRootRemovesWhatAWrongMountHasLeft(t *testing.T) {
	f := newMountFixture(t)
	f.want(30, 0)
	f.upload()
	f.mount("wrong")
	for range 3 {
		f.wantGuard(GuardNewRoot)
	}
	f.mount("right")
	f.want(0, 100)
}

// The same where nothing halted the scan of the wrong directory, because it has the known documents, too.
func TestScanOfAMendedRootPassesAfterAWrongMountThatNoGuardHalted(t *testing.T) {
	f := newMountFixture(t)
	f.want(30, 0)
	f.upload()
	for i := range 30 {
		name := fmt.Sprintf("known-%d.md", i)
		f.must(os.WriteFile(filepath.Join(f.dir, "wrong", name), []byte(name), 0o600))
	}
	f.mount("wrong")
	f.want(100, 0)
	f.mount("right")
	f.want(0, 100)
}

// Documents that were uploaded count, whatever they are now: changed, skipped, or removed and recorded again.
func TestUploadedDocumentsCountForTheGuards(t *testing.T) {
	f := newMountFixture(t)
	f.want(30, 0)
	f.upload()
	for i := range 30 {
		f.must(os.WriteFile(filepath.Join(f.dir, "right", fmt.Sprintf("known-%d.md", i)), []byte("changed "+fmt.Sprint(i)), 0o600))
	}
	f.want(0, 0)
	f.files("empty", "none", 0)
	f.must(os.Rename(filepath.Join(f.dir, "right"), filepath.Join(f.dir, "away")))
	f.must(os.Rename(filepath.Join(f.dir, "empty"), filepath.Join(f.dir, "right")))
	f.wantGuard(GuardEmpty)
}

// Where nothing was ever uploaded, the recorded documents show that a root is another one: its documents must not be sent.
func TestWrongMountBeforeTheFirstUploadHaltsTheSync(t *testing.T) {
	f := newMountFixture(t)
	f.want(30, 0)
	f.mount("wrong")
	if _, err := f.scan(); err == nil {
		t.Fatal("the scan of another root passed")
	}
	f.mount("right")
	f.want(0, 100)
}
