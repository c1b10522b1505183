package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A memoryStore is a Store in memory.
type memoryStore struct {
	known    map[string]state.KnownDocument
	vanished map[string]bool
	open     bool
	puts     []string // keys that became pending
	records  int
	identity string
	fail     error // of the next Record
}

var _ Store = (*memoryStore)(nil)

func newMemoryStore() *memoryStore { return &memoryStore{known: map[string]state.KnownDocument{}} }

func (m *memoryStore) Begin(_ context.Context, syncID int64, prefix string) (state.Scan, error) {
	if m.open {
		return state.Scan{}, errors.New("a scan was left open")
	}
	m.open, m.vanished = true, map[string]bool{}
	return state.Scan{SyncID: syncID, Prefix: prefix}, nil
}

// Known also returns keys that merely begin with prefix, as the state does.
func (m *memoryStore) Known(_ context.Context, _ int64, prefix string) iter.Seq2[state.KnownDocument, error] {
	return stream(slices.DeleteFunc(sorted(m.known), func(k state.KnownDocument) bool { return !strings.HasPrefix(k.Key, prefix) }), nil)
}

func (m *memoryStore) Record(_ context.Context, _ state.Scan, changes []state.Change) error {
	if m.fail != nil {
		return m.fail
	}
	if len(changes) == 0 || len(changes) > 1000 {
		return fmt.Errorf("%d changes in one transaction", len(changes))
	}
	m.records++
	for _, c := range changes {
		if c.Op == state.Vanish {
			m.vanished[c.Key] = true
			continue
		}
		if c.Op == state.Put {
			m.puts = append(m.puts, c.Key)
		}
		apply(m.known, c)
	}
	return nil
}

func (m *memoryStore) Count(ctx context.Context, scan state.Scan) (state.ScanCount, error) {
	return m.CountBelow(ctx, scan, "")
}

func (m *memoryStore) CountBelow(_ context.Context, _ state.Scan, prefix string) (state.ScanCount, error) {
	count := state.ScanCount{}
	listed := map[state.Fingerprint]bool{}
	moved := func(k state.KnownDocument) state.Fingerprint {
		k.Fingerprint.CTime = 0
		return k.Fingerprint
	}
	for key, k := range m.known {
		if !m.vanished[key] {
			listed[moved(k)] = true
		}
	}
	for key := range m.vanished {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		count.Vanished++
		if listed[moved(m.known[key])] {
			count.Renamed++
		}
	}
	return count, nil
}

func (m *memoryStore) Finish(_ context.Context, scan state.Scan, identity string) (removed int, err error) {
	for key := range m.vanished {
		delete(m.known, key)
		removed++
	}
	if m.open = false; scan.Prefix == "" {
		m.identity = identity
	}
	return removed, nil
}

func (m *memoryStore) Drop(ctx context.Context, _ state.Scan) error {
	m.open, m.vanished = false, nil
	return ctx.Err()
}

// A scanFixture scans a directory into a memoryStore.
type scanFixture struct {
	t      *testing.T
	dir    string
	root   *Directory
	store  *memoryStore
	opts   ScanOptions
	offset time.Duration // of the scan's clock
}

func newScanFixture(t *testing.T) *scanFixture {
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &scanFixture{t: t, dir: dir, store: newMemoryStore(), offset: time.Minute, opts: ScanOptions{Settle: 2 * time.Second, MaxDelete: Limit{Percent: 50, ByPercent: true, Always: 20}, MaxChange: Limit{Percent: 100, ByPercent: true}}}
	s.root = NewDirectory(dir, DirectoryOptions{})
	s.root.now = func() time.Time { return time.Now().Add(s.offset) }
	return s
}

func (s *scanFixture) sync() state.Sync {
	return state.Sync{ID: 1, Name: "docs", Root: s.dir, RootIdentity: s.store.identity}
}

func (s *scanFixture) try(prefix string) (Result, error) {
	s.t.Helper()
	s.store.puts = nil
	r, err := NewScanner(s.root, s.opts).Scan(s.t.Context(), s.store, s.sync(), prefix)
	if s.store.open {
		s.t.Error("the scan was left open")
	}
	return r, err
}

func (s *scanFixture) scan(prefix string, want string) Result {
	s.t.Helper()
	r, err := s.try(prefix)
	if err != nil {
		s.t.Fatal(err)
	}
	if got := fmt.Sprintf("%d new %d changed %d unchanged %d removed %d renamed %d unsettled", r.New, r.Changed, r.Unchanged, r.Removed, r.Renamed, r.Unsettled); got != want {
		s.t.Errorf("got  %s\nwant %s", got, want)
	}
	return r
}

func (s *scanFixture) halts(guard Guard, want ...string) {
	s.t.Helper()
	before := len(s.store.known)
	_, err := s.try("")
	halted, ok := errors.AsType[*GuardError](err)
	if !ok || halted.Guard != guard {
		s.t.Fatalf("got %v, want the guard %s", err, guard)
	}
	for _, text := range append(want, `sync "docs"`, s.dir) {
		if !strings.Contains(err.Error(), text) {
			s.t.Errorf("the message does not contain %q: %v", text, err)
		}
	}
	if len(s.store.known) < before {
		s.t.Errorf("%d documents were removed", before-len(s.store.known))
	}
}

// An atomic save is one change. A file that is being written is recorded only when it has settled.
func TestScanWaitsUntilFilesSettle(t *testing.T) {
	s := newScanFixture(t)
	s.offset = 0
	put(t, s.dir, "doc.md", ".doc.md.swp", "doc.md~", "4913.tmp")
	r := s.scan("", "0 new 0 changed 0 unchanged 0 removed 0 renamed 1 unsettled")
	if wait := time.Until(r.SettleAt); wait <= 0 || wait > 2*time.Second || r.Listed != 1 {
		t.Errorf("wait %v, listed %d", wait, r.Listed)
	}
	s.offset = 3 * time.Second
	if r := s.scan("", "1 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled"); !r.SettleAt.IsZero() {
		t.Error(r.SettleAt)
	}
	// A known document that is written again keeps its version until it has settled; it does not vanish.
	if err := replace(filepath.Join(s.dir, "doc.md"), "saved"); err != nil {
		t.Fatal(err)
	}
	s.offset = 0
	s.scan("", "0 new 0 changed 0 unchanged 0 removed 0 renamed 1 unsettled")
	if len(s.store.known) != 1 {
		t.Error("the document vanished")
	}
	s.offset = 3 * time.Second
	s.scan("", "0 new 1 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	s.scan("", "0 new 0 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
}

// A rewrite with the same size and a restored mtime is a change; an equal fingerprint is not.
func TestScanFindsRewriteWithRestoredMTime(t *testing.T) {
	s := newScanFixture(t)
	path := filepath.Join(s.dir, "doc.md")
	put(t, s.dir, "doc.md", "other.md")
	s.scan("", "2 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	s.scan("", "0 new 0 changed 2 unchanged 0 removed 0 renamed 0 unsettled")
	waitForTick(t, path)
	if err := rewriteQuietly(path, "CONTENT OF doc.md"); err != nil { // same size, restored mtime
		t.Fatal(err)
	}
	s.scan("", "0 new 1 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
	if !slices.Equal(s.store.puts, []string{"doc.md"}) {
		t.Error(s.store.puts)
	}
}

func TestScanRenamesAndRemovals(t *testing.T) {
	s := newScanFixture(t)
	for i := range 60 {
		put(t, s.dir, fmt.Sprintf("a/%02d.md", i))
	}
	put(t, s.dir, "b/1.md")
	s.scan("", "61 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	// The renames of a directory do not count as removals.
	if err := os.Rename(filepath.Join(s.dir, "a"), filepath.Join(s.dir, "c")); err != nil {
		t.Fatal(err)
	}
	s.scan("", "60 new 0 changed 1 unchanged 60 removed 60 renamed 0 unsettled")
	if err := os.Remove(filepath.Join(s.dir, "c", "00.md")); err != nil {
		t.Fatal(err)
	}
	s.scan("b/", "0 new 0 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
	s.scan("c/", "0 new 0 changed 59 unchanged 1 removed 0 renamed 0 unsettled")
	s.scan("b/1.md", "0 new 0 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
	put(t, s.dir, "b/1.md.md")
	s.scan("b/1.md.md", "1 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	// The scan of one document does not affect another one whose key begins with its key.
	s.scan("b/1.md", "0 new 0 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
	if err := os.Remove(filepath.Join(s.dir, "b", "1.md")); err != nil {
		t.Fatal(err)
	}
	s.scan("b/1.md", "0 new 0 changed 0 unchanged 1 removed 0 renamed 0 unsettled")
	if _, ok := s.store.known["b/1.md.md"]; !ok {
		t.Error("b/1.md.md vanished")
	}
}

func TestScanSkips(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a.md")
	write(t, filepath.Join(s.dir, "empty.md"), "")
	r := s.scan("", "1 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	if r.Skipped["empty"] != 1 || r.Listed != 2 || s.store.known["empty.md"].Skip != "empty" {
		t.Error(r, s.store.known)
	}
	s.scan("", "0 new 0 changed 2 unchanged 0 removed 0 renamed 0 unsettled")
	write(t, filepath.Join(s.dir, "empty.md"), "not any more")
	s.scan("", "0 new 1 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
}

func TestScanRecordsInTransactionsOfAThousand(t *testing.T) {
	s := newScanFixture(t)
	root := listed{identity: "1"}
	for i := range 2500 {
		root.entries = append(root.entries, Entry{Key: fmt.Sprintf("%04d", i)})
	}
	r, err := NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if err != nil || r.New != 2500 || s.store.records != 3 {
		t.Errorf("%v, %v, %d transactions", r, err, s.store.records)
	}
}

// A listed root yields the given entries.
type listed struct {
	identity string
	entries  []Entry
	err      error
}

func (l listed) Identity(context.Context) (string, error) { return l.identity, nil }

func (l listed) List(context.Context, string) iter.Seq2[Entry, error] {
	return stream(l.entries, l.err)
}

// With an unreadable part nothing is removed anywhere, and the changes that were found are recorded.
func TestIncompleteListingRemovesNothing(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a/1.md", "b/1.md", "c/1.md")
	s.scan("", "3 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	if err := os.RemoveAll(filepath.Join(s.dir, "a")); err != nil {
		t.Fatal(err)
	}
	put(t, s.dir, "d/1.md")
	s.root.fault = func(key string) error {
		if key == "b/" {
			return fs.ErrPermission
		}
		return nil
	}
	r := s.scan("", "1 new 0 changed 1 unchanged 0 removed 0 renamed 0 unsettled")
	if r.IncompleteCount != 1 || len(r.Incomplete) != 1 || !strings.Contains(r.Incomplete[0].Error(), `"b/"`) || len(s.store.known) != 4 {
		t.Errorf("%v, %d known", r.Incomplete, len(s.store.known))
	}
	s.root.fault = nil
	s.scan("", "0 new 0 changed 3 unchanged 1 removed 0 renamed 0 unsettled")
}

func TestScanOutOfOrderIsSorted(t *testing.T) {
	s := newScanFixture(t)
	s.store.known = map[string]state.KnownDocument{"a": {Key: "a"}, "b": {Key: "b"}, "c": {Key: "c"}}
	root := listed{entries: []Entry{{Key: "d"}, {Key: "c"}, {Key: "b"}}}
	r, err := NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if err != nil || r.IncompleteCount != 0 || r.New != 1 || r.Unchanged != 2 || r.Removed != 1 || s.store.known["a"].Key != "" || s.store.open {
		t.Errorf("%v, %v", r, err)
	}
	// Changes cannot take anything back, so documents after the place out of order do not vanish.
	var result Result
	for c, err := range NewScanner(root, s.opts).Changes(t.Context(), s.store, s.sync(), "", &result) {
		if err != nil || c.Op == state.Vanish && c.Key > "c" {
			t.Error(c, err)
		}
	}
	if result.IncompleteCount != 1 {
		t.Error(result)
	}
}

func TestScanErrorsLeaveNothingOpen(t *testing.T) {
	s := newScanFixture(t)
	boom := errors.New("boom")
	s.store.known = map[string]state.KnownDocument{"a": {Key: "a"}}
	_, err := NewScanner(listed{entries: []Entry{{Key: "b"}}, err: boom}, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if !errors.Is(err, boom) || s.store.open || len(s.store.known) != 1 {
		t.Errorf("%v, %v", err, s.store)
	}
	s.store.fail = boom
	_, err = NewScanner(listed{entries: []Entry{{Key: "b"}}}, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if !errors.Is(err, boom) || s.store.open {
		t.Errorf("%v, %v", err, s.store)
	}
	s.store.fail = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	put(t, s.dir, "a.md")
	if _, err = NewScanner(s.root, s.opts).Scan(ctx, s.store, s.sync(), ""); !errors.Is(err, context.Canceled) || s.store.open {
		t.Errorf("%v, %v", err, s.store)
	}
}

func TestGuards(t *testing.T) {
	many := func(s *scanFixture, n int) {
		for i := range n {
			put(t, s.dir, fmt.Sprintf("%03d.md", i))
		}
		s.scan("", fmt.Sprintf("%d new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled", n))
	}
	clearFrom := func(s *scanFixture, from, to int) {
		for i := from; i < to; i++ {
			if err := os.Remove(filepath.Join(s.dir, fmt.Sprintf("%03d.md", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("missing", func(t *testing.T) {
		s := newScanFixture(t)
		many(s, 3)
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		if _, err := s.try(""); !errors.Is(err, ErrRootMissing) || len(s.store.known) != 3 {
			t.Errorf("%v, %d known", err, len(s.store.known))
		}
		if _, err := s.try("sub/"); !errors.Is(err, ErrRootMissing) {
			t.Error(err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		s := newScanFixture(t)
		many(s, 30)
		clearFrom(s, 0, 30)
		s.halts(GuardEmpty, "--allow-empty")
		s.opts.AllowEmpty = true
		s.scan("", "0 new 0 changed 0 unchanged 30 removed 0 renamed 0 unsettled")
		s.opts.AllowEmpty = false
		s.scan("", "0 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	})
	t.Run("new root", func(t *testing.T) {
		s := newScanFixture(t)
		many(s, 10)
		elsewhere := s.dir + ".old"
		if err := os.Rename(s.dir, elsewhere); err != nil {
			t.Fatal(err)
		}
		put(t, s.dir, "000.md", "001.md", "002.md", "003.md")
		s.halts(GuardNewRoot, "--accept-new-root")
		put(t, s.dir, "004.md") // half of them: a restored volume, or the next worktree of git-sync
		s.scan("", "0 new 5 changed 0 unchanged 5 removed 0 renamed 0 unsettled")
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(elsewhere, s.dir); err != nil {
			t.Fatal(err)
		}
		s.scan("", "5 new 5 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	})
	t.Run("max delete by share", func(t *testing.T) {
		s := newScanFixture(t)
		many(s, 41)
		clearFrom(s, 0, 20)
		s.scan("", "0 new 0 changed 21 unchanged 20 removed 0 renamed 0 unsettled") // twenty are allowed, whatever the share
		for i := range 20 {
			put(t, s.dir, fmt.Sprintf("%03d.md", i))
		}
		s.scan("", "20 new 0 changed 21 unchanged 0 removed 0 renamed 0 unsettled")
		clearFrom(s, 0, 21)
		s.halts(GuardMaxDelete, "21 of 41", "--max-delete 50%", "--max-delete 21")
		s.opts.MaxDelete = Limit{Count: 21}
		s.scan("", "0 new 0 changed 20 unchanged 21 removed 0 renamed 0 unsettled")
	})
	t.Run("max delete by number", func(t *testing.T) {
		s := newScanFixture(t)
		s.opts.MaxDelete = Limit{}
		many(s, 3)
		clearFrom(s, 0, 1)
		s.halts(GuardMaxDelete, "--max-delete 0", "--max-delete 1")
		s.opts.MaxDelete.Count = 1
		s.scan("", "0 new 0 changed 2 unchanged 1 removed 0 renamed 0 unsettled")
	})
	t.Run("a guard scans the whole root instead of a part", func(t *testing.T) {
		s := newScanFixture(t)
		many(s, 100)
		for i := range 30 {
			put(t, s.dir, fmt.Sprintf("sub/%03d.md", i))
		}
		s.scan("", "30 new 0 changed 100 unchanged 0 removed 0 renamed 0 unsettled")
		if err := os.RemoveAll(filepath.Join(s.dir, "sub")); err != nil {
			t.Fatal(err)
		}
		r := s.scan("sub/", "0 new 0 changed 100 unchanged 30 removed 0 renamed 0 unsettled")
		if !slices.Equal(r.Prefixes, []string{""}) {
			t.Error("only the part was scanned")
		}
	})
}

func TestScanNoticesAReplacedRoot(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a.md", "b.md", "c.md")
	s.scan("", "3 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	root := replaced{s.root, func() {
		if err := os.Rename(s.dir, s.dir+".old"); err != nil {
			t.Fatal(err)
		}
		put(t, s.dir, "a.md")
	}}
	r, err := NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), "")
	if err != nil || r.IncompleteCount != 1 || !errors.Is(r.Incomplete[0], ErrRootChanged) || len(s.store.known) != 3 {
		t.Errorf("%v, %v", r, err)
	}
}

// A replaced root runs a function before it is listed.
type replaced struct {
	*Directory
	happens func()
}

func (r replaced) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	r.happens()
	return r.Directory.List(ctx, prefix)
}

func (r replaced) Survey(ctx context.Context, left *LeftOut) iter.Seq2[Entry, error] {
	r.happens()
	return r.Directory.Survey(ctx, left)
}

func TestChangesWritesNothing(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a.md", "b.md")
	s.scan("", "2 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	put(t, s.dir, "c.md")
	if err := os.Remove(filepath.Join(s.dir, "a.md")); err != nil {
		t.Fatal(err)
	}
	s.store.fail = errors.New("a plan must not write")
	var got []string
	var r Result
	for c, err := range NewScanner(s.root, s.opts).Changes(t.Context(), s.store, s.sync(), "", &r) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string("PSV"[c.Op])+c.Key)
	}
	if !slices.Equal(got, []string{"Va.md", "Pc.md"}) || r.New != 1 || r.Removed != 1 || r.Unchanged != 1 || len(s.store.known) != 2 {
		t.Errorf("%v, %v", got, r)
	}
}

// A clock that jumps causes no changes, and loses none. A file whose stamps are in the future is looked at twice.
func TestClockJumpsLoseNothing(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a.md", "b.md")
	s.scan("", "2 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	for _, s.offset = range []time.Duration{-time.Hour, time.Hour, 0} {
		s.scan("", "0 new 0 changed 2 unchanged 0 removed 0 renamed 0 unsettled")
	}
	put(t, s.dir, "c.md")
	s.offset = -time.Hour
	s.scan("", "0 new 0 changed 2 unchanged 0 removed 0 renamed 1 unsettled")
	scanner := NewScanner(s.root, s.opts)
	scanner.now = s.root.now
	for _, want := range []int{0, 1} {
		if r, err := scanner.Scan(t.Context(), s.store, s.sync(), ""); err != nil || r.New != want {
			t.Errorf("%+v, %v", r, err)
		}
		s.offset += 3 * time.Second
	}
}

// The memory of a comparison does not grow with the number of documents.
func TestDiffTakesConstantMemory(t *testing.T) {
	const n = 500_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := heap(), uint64(0)
	entries := func(yield func(Entry, error) bool) {
		for i := range n {
			if i%100_000 == 99_999 {
				most = max(most, heap())
			}
			if !yield(Entry{Key: fmt.Sprintf("%08d", i)}, nil) {
				return
			}
		}
	}
	known := func(yield func(state.KnownDocument, error) bool) {
		for i := range n {
			if !yield(state.KnownDocument{Key: fmt.Sprintf("%08d", i)}, nil) {
				return
			}
		}
	}
	for c, err := range changesOf(entries, known) {
		t.Fatal(c, err)
	}
	if most > before+1<<20 {
		t.Errorf("%d bytes more than before", most-before)
	}
}

// A file that was just renamed has settled content and a young ctime. Its old key is not removed before the new one is there.
func TestRemovalsWaitForRenames(t *testing.T) {
	s := newScanFixture(t)
	var old time.Time
	for i := range 30 {
		path := filepath.Join(s.dir, fmt.Sprintf("%02d.md", i))
		write(t, path, "x")
		if err := os.Chtimes(path, old, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s.scan("", "30 new 0 changed 0 unchanged 0 removed 0 renamed 0 unsettled")
	for i := range 30 {
		path := filepath.Join(s.dir, fmt.Sprintf("%02d.md", i))
		if err := os.Rename(path, path[:len(path)-3]+"-renamed.md"); err != nil {
			t.Fatal(err)
		}
	}
	s.offset = 0
	r := s.scan("", "0 new 0 changed 0 unchanged 0 removed 0 renamed 30 unsettled")
	if len(s.store.known) != 30 || r.SettleAt.IsZero() {
		t.Errorf("%d known, %v", len(s.store.known), r)
	}
	s.offset = 3 * time.Second
	s.scan("", "30 new 0 changed 0 unchanged 30 removed 30 renamed 0 unsettled")
}

// The state behaves as the memoryStore does.
func TestScanIntoTheState(t *testing.T) {
	s := newScanFixture(t)
	store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	dest := state.Destination{Origin: "https://api.example", KnowledgeBase: 1}
	sync, err := store.Syncs.Ensure(t.Context(), "docs", s.dir, dest, false)
	if err != nil {
		t.Fatal(err)
	}
	scan := func(prefix string) (string, error) {
		t.Helper()
		sync, err := store.Syncs.Get(t.Context(), "docs")
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewScanner(s.root, s.opts).Scan(t.Context(), store.Scans, sync, prefix)
		return fmt.Sprintf("%d known %d new %d changed %d unchanged %d removed %d renamed", r.Known, r.New, r.Changed, r.Unchanged, r.Removed, r.Renamed), err
	}
	expect := func(prefix, want string) {
		t.Helper()
		if got, err := scan(prefix); got != want || err != nil {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
	}
	for i := range 1200 {
		put(t, s.dir, fmt.Sprintf("a/%04d.md", i))
	}
	put(t, s.dir, "a-b.md", "a.md", "\xff\xfe.md", "b/c.md")
	write(t, filepath.Join(s.dir, "empty.md"), "")
	expect("", "0 known 1204 new 0 changed 0 unchanged 0 removed 0 renamed")
	expect("", "1205 known 0 new 0 changed 1205 unchanged 0 removed 0 renamed")
	if err := os.Rename(filepath.Join(s.dir, "a"), filepath.Join(s.dir, "z")); err != nil {
		t.Fatal(err)
	}
	expect("", "1205 known 1200 new 0 changed 5 unchanged 1200 removed 1200 renamed")
	expect("z/", "1200 known 0 new 0 changed 1200 unchanged 0 removed 0 renamed")
	uploadPending(t, store, sync)
	if err := os.Remove(filepath.Join(s.dir, "a.md")); err != nil {
		t.Fatal(err)
	}
	expect("a.md", "1 known 0 new 0 changed 0 unchanged 1 removed 0 renamed")
	if err := os.RemoveAll(filepath.Join(s.dir, "z")); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "z/"} {
		if _, err := scan(prefix); !isGuard(err, GuardMaxDelete) {
			t.Errorf("got %v", err)
		}
	}
	s.opts.MaxDelete = Limit{Percent: 100, ByPercent: true}
	expect("z/", "1200 known 0 new 0 changed 0 unchanged 1200 removed 0 renamed")
	expect("", "4 known 0 new 0 changed 4 unchanged 0 removed 0 renamed")
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := scan(""); !errors.Is(err, ErrRootMissing) {
		t.Errorf("got %v", err)
	}
	put(t, s.dir, "other.md")
	if _, err := scan(""); !isGuard(err, GuardNewRoot) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(s.dir, "other.md")); err != nil {
		t.Fatal(err)
	}
	if _, err := scan(""); !isGuard(err, GuardEmpty) {
		t.Errorf("got %v", err)
	}
}

func isGuard(err error, guard Guard) bool {
	halted, ok := errors.AsType[*GuardError](err)
	return ok && halted.Guard == guard
}

func TestAhead(t *testing.T) {
	boom := errors.New("boom")
	for _, n := range []int{0, 1, 255, 256, 257, 5000} {
		values := make([]int, n)
		for i := range values {
			values[i] = i
		}
		for _, end := range []error{nil, boom} {
			for _, most := range []int{n + 2, n / 2, 1} {
				var got []int
				var err error
				for v, e := range readAhead(stream(values, end)) {
					if err = e; e == nil {
						got = append(got, v)
					}
					if len(got) >= most {
						break
					}
				}
				if want := min(n, max(most, 1)); !slices.Equal(got, values[:want]) || most > n && !errors.Is(err, end) {
					t.Errorf("%d values, at most %d: got %d, %v", n, most, len(got), err)
				}
			}
		}
	}
}

// Several prefixes are one scan: a document that moved from one to another is renamed, and the guards see the sum.
func TestScanAll(t *testing.T) {
	s := newScanFixture(t)
	all := func(want string, prefixes ...string) Result {
		t.Helper()
		r, err := NewScanner(s.root, s.opts).ScanAll(t.Context(), s.store, s.sync(), prefixes)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%q: %d known %d listed %d new %d changed %d removed %d renamed", r.Prefixes, r.Known, r.Listed, r.New, r.Changed, r.Removed, r.Renamed)
		if got != want || s.store.open {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		return r
	}
	for i := range 30 {
		put(t, s.dir, fmt.Sprintf("a/%02d.md", i), fmt.Sprintf("b/%02d.md", i))
	}
	put(t, s.dir, "c.md", "d/e.md")
	all(`[]: 0 known 0 listed 0 new 0 changed 0 removed 0 renamed`)
	all(`["a/" "c.md"]: 0 known 31 listed 31 new 0 changed 0 removed 0 renamed`, "c.md", "a/02.md", "a/", "a/", "a/sub/")
	all(`[""]: 31 known 62 listed 31 new 0 changed 0 removed 0 renamed`, "c.md", "")
	if err := os.Rename(filepath.Join(s.dir, "a"), filepath.Join(s.dir, "z")); err != nil {
		t.Fatal(err)
	}
	all(`["a" "a/" "z/"]: 30 known 30 listed 30 new 0 changed 30 removed 30 renamed`, "z/", "a", "a/")
	// A file became a directory, and a directory a file.
	for _, key := range []string{"c.md", "d"} {
		if err := os.RemoveAll(filepath.Join(s.dir, key)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s.dir, "c.md/inside.md", "d")
	all(`["c.md" "c.md/" "d" "d/"]: 2 known 1 listed 1 new 0 changed 2 removed 0 renamed`, "d/", "d", "c.md/", "c.md")
	// Twenty removals in each are allowed. Forty at once are not, and the scan lists the whole root before it reports that.
	for _, dir := range []string{"z", "b"} {
		for i := range 20 {
			if err := os.Remove(filepath.Join(s.dir, dir, fmt.Sprintf("%02d.md", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := NewScanner(s.root, s.opts).ScanAll(t.Context(), s.store, s.sync(), []string{"b/", "z/"})
	if halted, ok := errors.AsType[*GuardError](err); !ok || halted.Removals != 40 || halted.Known != 61 || len(s.store.known) != 61 {
		t.Errorf("got %v, %d known", err, len(s.store.known))
	}
	// An incomplete part keeps the vanished documents of the other parts.
	s.opts.MaxDelete.Percent = 100
	s.root.fault = func(key string) error {
		if key == "z/" {
			return fs.ErrPermission
		}
		return nil
	}
	if r := all(`["b/" "z/"]: 60 known 10 listed 0 new 0 changed 0 removed 0 renamed`, "b/", "z/"); r.IncompleteCount != 1 {
		t.Error(r)
	}
	s.root.fault = nil
	all(`["b/" "z/"]: 60 known 20 listed 0 new 0 changed 40 removed 0 renamed`, "b/", "z/")
}

// Again names exactly the prefixes to scan later; a rename that has not settled delays removals.
func TestScanAgain(t *testing.T) {
	s := newScanFixture(t)
	put(t, s.dir, "a.md", "b/c.md", "old.md")
	if err := os.Chtimes(filepath.Join(s.dir, "old.md"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.offset = 0
	again := func(prefix string, want ...string) Result {
		t.Helper()
		r, err := s.try(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.Again, want) || r.SettleAt.IsZero() != (want == nil) {
			t.Errorf("got %q at %v, want %q", r.Again, r.SettleAt, want)
		}
		return r
	}
	again("", "a.md", "b/c.md", "old.md")
	s.offset = 3 * time.Second
	again("")
	if err := os.Rename(filepath.Join(s.dir, "old.md"), filepath.Join(s.dir, "renamed.md")); err != nil {
		t.Fatal(err)
	}
	s.offset = 0
	again("", "")
	s.offset = 3 * time.Second
	again("")
	s.offset = 0
	for i := range 101 {
		put(t, s.dir, fmt.Sprintf("d/%d.md", i))
	}
	again("d/", "d/")
}

// A document that never settles is reported after the maximum wait, and recorded when it settles.
func TestRestlessDocumentsAreReported(t *testing.T) {
	s := newScanFixture(t)
	s.opts.Settle, s.opts.MaxWait = 2*time.Second, 20*time.Second
	scanner := NewScanner(s.root, s.opts)
	s.offset = 0
	put(t, s.dir, "hot.md", "b/still.md")
	scan := func(prefix string, unsettled, restless, pending int) Result {
		t.Helper()
		r, err := scanner.Scan(t.Context(), s.store, s.sync(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		if r.Unsettled != unsettled || r.Restless != restless || len(r.RestlessKeys) != restless || len(s.store.puts) != pending {
			t.Errorf("after %v: %d unsettled, %d restless, %q pending", s.offset, r.Unsettled, r.Restless, s.store.puts)
		}
		return r
	}
	// The clock advances, and the file is written before every scan.
	touch := func(key string) {
		t.Helper()
		write(t, filepath.Join(s.dir, key), strings.Repeat("x", 10+int(max(s.offset, 0)/time.Second)))
		stamp := time.Now().Add(s.offset)
		if err := os.Chtimes(filepath.Join(s.dir, key), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	scan("", 2, 0, 0)
	s.offset = 3 * time.Second
	touch("hot.md")
	scan("", 1, 0, 1)
	for s.offset < 19*time.Second {
		s.offset += time.Second
		touch("hot.md")
		scan("hot.md", 1, 0, 1)
		scan("b/", 0, 0, 1) // does not affect hot.md
	}
	s.offset += 2 * time.Second
	touch("hot.md")
	if r := scan("", 1, 1, 1); !slices.Equal(r.RestlessKeys, []string{"hot.md"}) || !slices.Equal(r.Again, []string{"hot.md"}) {
		t.Error(r)
	}
	s.offset += 3 * time.Second
	scan("hot.md", 0, 0, 2)
	if len(scanner.unsettled) > 0 {
		t.Errorf("remembered: %v", scanner.unsettled)
	}
	// From then on its time starts again; a deleted document is forgotten.
	touch("hot.md")
	touch("b/still.md")
	scan("", 2, 0, 2)
	if err := os.Remove(filepath.Join(s.dir, "hot.md")); err != nil {
		t.Fatal(err)
	}
	scan("hot.md", 0, 0, 2)
	if len(scanner.unsettled) != 1 {
		t.Errorf("remembered: %v", scanner.unsettled)
	}
	// After the clock was set back no document is restless.
	s.offset -= time.Hour
	touch("b/still.md")
	scan("", 1, 0, 2)
}

func TestMaxWaitDefault(t *testing.T) {
	for settle, want := range map[time.Duration]time.Duration{0: time.Minute, 2 * time.Second: time.Minute, time.Minute: 10 * time.Minute} {
		if got := NewScanner(nil, ScanOptions{Settle: settle}).opts.MaxWait; got != want {
			t.Errorf("%v: %v", settle, got)
		}
	}
}
