// Package roottest is the suite of tests for every kind of root: a directory, and a bucket of each cloud.
package roottest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A Root is a root with all methods that kbsync uses.
type Root interface {
	watcher.Root
	Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error)
	Explain(ctx context.Context, key string) (watcher.Explanation, error)
}

// A Place is an empty directory or bucket of one test.
type Place interface {
	// Root returns a root of the place.
	Root(filter *watcher.Filter) (Root, error)
	// Missing returns a root of the same kind that does not exist. It is not called if Options.NeverMissing.
	Missing() (Root, error)
	// Put writes a document as another program does.
	Put(ctx context.Context, key string, content []byte) error
	Delete(ctx context.Context, key string) error
}

// Options describe the limits of a kind of root.
type Options struct {
	// Odd are unusual keys that another program can write. The root must read them back or skip them.
	Odd []string
	// Markers are the keys of objects that stand for folders.
	Markers []string
	// NeverMissing is true if a root of this kind always exists.
	NeverMissing bool
}

// Run tests a kind of root. Each test calls place for a new Place.
func Run(t *testing.T, opts Options, place func(t *testing.T) Place) {
	t.Run("lists in byte order", func(t *testing.T) { testOrder(t, newFixture(t, place)) })
	t.Run("lists a part", func(t *testing.T) { testPart(t, newFixture(t, place)) })
	t.Run("reads what it listed", func(t *testing.T) { testRead(t, newFixture(t, place)) })
	t.Run("never reads another version", func(t *testing.T) { testVersions(t, newFixture(t, place)) })
	t.Run("fingerprints", func(t *testing.T) { testFingerprints(t, newFixture(t, place)) })
	t.Run("filters", func(t *testing.T) { testFilters(t, newFixture(t, place)) })
	t.Run("ignore files", func(t *testing.T) { testIgnores(t, newFixture(t, place)) })
	t.Run("odd keys", func(t *testing.T) { testOdd(t, newFixture(t, place), opts) })
	if !opts.NeverMissing {
		t.Run("is missing", func(t *testing.T) { testMissing(t, newFixture(t, place)) })
	}
	t.Run("ends with its context", func(t *testing.T) { testContext(t, newFixture(t, place)) })
	t.Run("scans into the state", func(t *testing.T) { testScan(t, newFixture(t, place)) })
}

// A fixture is a place with its root.
type fixture struct {
	t     *testing.T
	place Place
	root  Root
}

func newFixture(t *testing.T, place func(t *testing.T) Place) *fixture {
	f := &fixture{t: t, place: place(t)}
	f.root = f.open(f.place.Root(f.filter(watcher.FilterOptions{Include: []string{"**"}})))
	return f
}

func (f *fixture) open(root Root, err error) Root {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	if c, ok := root.(io.Closer); ok {
		f.t.Cleanup(func() {
			if err := c.Close(); err != nil {
				f.t.Error(err)
			}
		})
	}
	return root
}

func (f *fixture) filter(opts watcher.FilterOptions) *watcher.Filter {
	f.t.Helper()
	filter, err := watcher.NewFilter(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	return filter
}

func (f *fixture) put(key, content string) {
	f.t.Helper()
	if err := f.place.Put(f.t.Context(), key, []byte(content)); err != nil {
		f.t.Fatalf("put %q: %v", key, err)
	}
}

func (f *fixture) delete(key string) {
	f.t.Helper()
	if err := f.place.Delete(f.t.Context(), key); err != nil {
		f.t.Fatalf("delete %q: %v", key, err)
	}
}

// list returns the entries of a listing, which must have no error.
func list(t *testing.T, root Root, prefix string) []watcher.Entry {
	t.Helper()
	var all []watcher.Entry
	for e, err := range root.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		all = append(all, e)
	}
	return all
}

func keys(entries []watcher.Entry) []string {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Key
	}
	return names
}

func (f *fixture) lists(root Root, prefix string, want ...string) []watcher.Entry {
	f.t.Helper()
	entries := list(f.t, root, prefix)
	if got := keys(entries); !slices.Equal(got, want) {
		f.t.Errorf("below %q: got\n%q, want\n%q", prefix, got, want)
	}
	return entries
}

func (f *fixture) entry(key string) watcher.Entry {
	f.t.Helper()
	for _, e := range list(f.t, f.root, "") {
		if e.Key == key {
			return e
		}
	}
	f.t.Fatalf("%q is not listed", key)
	return watcher.Entry{}
}

func read(ctx context.Context, root Root, e watcher.Entry) (string, error) {
	r, err := root.Open(ctx, e.Key, e.Fingerprint)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

// order are keys whose byte order differs from the order of their parts, and from the order in other encodings and alphabets.
var order = []string{
	"A.txt", "_x.txt", "a!.txt", "a-b.txt", "a-b/c.txt", "a.txt", "a/b-c/d.txt", "a/b.txt", "a/b/c.txt", "a0.txt", "b.txt", "Ä.txt", "ä.txt",
	"\uff5e.txt", "😀.txt",
}

func testOrder(t *testing.T, f *fixture) {
	for _, key := range slices.Backward(order) {
		f.put(key, "content of "+key)
	}
	want := slices.Sorted(slices.Values(order))
	for _, e := range f.lists(f.root, "", want...) {
		if e.Skip != "" || e.Fingerprint.Size != int64(len("content of "+e.Key)) || e.Fingerprint.MTime == 0 {
			t.Errorf("%+v", e)
		}
	}
	f.lists(f.root, "", want...) // a second listing is equal
}

func testPart(t *testing.T, f *fixture) {
	for _, key := range []string{"a.txt", "a-b.txt", "a/b.txt", "a/b.txt.bak", "a/b/c.txt", "ab/c.txt"} {
		f.put(key, key)
	}
	f.lists(f.root, "a/", "a/b.txt", "a/b.txt.bak", "a/b/c.txt")
	f.lists(f.root, "a/b/", "a/b/c.txt")
	f.lists(f.root, "a/b.txt", "a/b.txt")
	f.lists(f.root, "a.txt", "a.txt")
	f.lists(f.root, "a")
	f.lists(f.root, "none/")
	f.lists(f.root, "none.txt")
}

func testRead(t *testing.T, f *fixture) {
	large := strings.Repeat("0123456789abcdef", 1<<16) + "end"
	f.put("small.txt", "small")
	f.put("large.txt", large)
	f.put("empty.txt", "")
	for _, e := range f.lists(f.root, "", "empty.txt", "large.txt", "small.txt") {
		want := map[string]string{"small.txt": "small", "large.txt": large}[e.Key]
		if e.Key == "empty.txt" {
			if e.Skip != "empty" {
				t.Errorf("the empty document is skipped with the reason %q", e.Skip)
			}
			continue
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				if got, err := read(t.Context(), f.root, e); err != nil || got != want {
					t.Errorf("%s: %d bytes, %v", e.Key, len(got), err)
				}
			})
		}
		group.Wait()
	}
	// A reader may be closed before the end.
	e := f.entry("large.txt")
	r, err := f.root.Open(t.Context(), e.Key, e.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for key, want := range map[string]bool{"small.txt": true, "empty.txt": false, "none.txt": false} {
		if x, err := f.root.Explain(t.Context(), key); err != nil || x.Taken != want {
			t.Errorf("%+v, %v", x, err)
		}
	}
}

func testVersions(t *testing.T, f *fixture) {
	f.put("replaced.txt", "one")
	f.put("longer.txt", "one")
	f.put("deleted.txt", "one")
	entries := list(t, f.root, "")
	f.put("replaced.txt", "two")
	f.put("longer.txt", "three")
	f.delete("deleted.txt")
	for _, e := range entries {
		want := state.ErrChanged
		if e.Key == "deleted.txt" {
			want = fs.ErrNotExist
		}
		if got, err := read(t.Context(), f.root, e); !errors.Is(err, want) || errors.Is(err, watcher.ErrRootMissing) {
			t.Errorf("%s: read %q, error %v, want %v", e.Key, got, err, want)
		}
	}
	if got, err := read(t.Context(), f.root, f.entry("replaced.txt")); err != nil || got != "two" {
		t.Error(got, err)
	}
}

func testFingerprints(t *testing.T, f *fixture) {
	f.put("same.txt", "one")
	f.put("edited.txt", "one")
	before := list(t, f.root, "")
	if after := list(t, f.root, ""); after[0].Fingerprint != before[0].Fingerprint || after[1].Fingerprint != before[1].Fingerprint {
		t.Errorf("without a change %+v became %+v", before, after)
	}
	f.put("edited.txt", "two")
	after := list(t, f.root, "")
	if after[0].Fingerprint == before[0].Fingerprint {
		t.Errorf("an edit of the same size did not change %+v", after[0])
	}
	if after[1].Fingerprint != before[1].Fingerprint {
		t.Errorf("without a change %+v became %+v", before[1], after[1])
	}
	one, err := f.root.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again := f.open(f.place.Root(nil))
	if two, err := again.Identity(t.Context()); err != nil || two != one {
		t.Errorf("identity %q, then %q, %v", one, two, err)
	}
}

func testFilters(t *testing.T, f *fixture) {
	for _, key := range []string{"a.md", "a.exe", "drafts/b.md", ".git/c.md", "notes/.git/d.md", "secret/e.md", "notes/f.md", "id_rsa.md"} {
		f.put(key, key)
	}
	f.lists(f.open(f.place.Root(nil)), "", "a.md", "drafts/b.md", "notes/f.md", "secret/e.md")
	f.put(".kbsyncignore", "secret/\n")
	root := f.open(f.place.Root(f.filter(watcher.FilterOptions{Exclude: []string{"drafts/**"}, MaxSize: 4})))
	entries := f.lists(root, "", "a.md", "notes/f.md")
	if len(entries) == 2 && (entries[0].Skip != "" || !strings.Contains(entries[1].Skip, "--max-size")) {
		t.Errorf("%+v", entries)
	}
	f.lists(root, "secret/")
	for key, rule := range map[string]string{"secret/e.md": "secret/", "drafts/b.md": "drafts/**", ".git/c.md": ".git"} {
		if x, err := root.Explain(t.Context(), key); err != nil || x.Taken || x.Rule != rule {
			t.Errorf("%+v, %v", x, err)
		}
	}
	f.put(".kbsyncignore", "[")
	for e, err := range root.List(t.Context(), "") {
		if err == nil {
			t.Errorf("%s is listed although the ignore file is invalid", e.Key)
		}
	}
}

// testIgnores checks that ignore files hold at any depth, also for keys that a listing yields before the ignore file of their folder.
func testIgnores(t *testing.T, f *fixture) {
	for _, key := range []string{
		"#top.md", "a.md", "notes/#b.md", "notes/(c)/d.md", "notes/-e/f.md", "notes/deep/!g.md", "notes/deep/h.md", "notes/deep/keep.md",
		"notes/deep/more/i.md", "notes/z.md", "other/#b.md", "other/h.md",
	} {
		f.put(key, key)
	}
	f.put(".kbsyncignore", "h.md\n")
	f.put("notes/.kbsyncignore", "#nothing\n\\#b.md\n(c)/\n/-e/f.md\n")
	f.put("notes/deep/.kbsyncignore", "*\n!keep.md\n")
	root := f.open(f.place.Root(nil))
	want := []string{"#top.md", "a.md", "notes/deep/keep.md", "notes/z.md", "other/#b.md"}
	f.lists(root, "", want...)
	f.lists(root, "notes/", "notes/deep/keep.md", "notes/z.md")
	f.lists(root, "notes/deep/", "notes/deep/keep.md")
	f.lists(root, "notes/deep/keep.md", "notes/deep/keep.md")
	f.lists(root, "notes/deep/!g.md")
	f.lists(root, "notes/-e/")
	f.lists(root, "notes/-e/f.md")
	f.lists(root, "other/h.md")
	for key, place := range map[string]string{
		"notes/-e/f.md": "notes/.kbsyncignore:4", "notes/deep/more/i.md": "notes/deep/.kbsyncignore:1", "other/h.md": ".kbsyncignore:1", "other/#b.md": "",
	} {
		if x, err := root.Explain(t.Context(), key); err != nil || x.Place != place {
			t.Errorf("%+v, %v, want the place %q", x, err, place)
		}
	}
	if s, ok := root.(watcher.Surveyor); ok {
		var left watcher.LeftOut
		var got []string
		for e, err := range s.Survey(t.Context(), &left) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want) || left.Files() != 5 || left.Directories() != 2 || left.UnmatchedCount != 0 {
			t.Errorf("a survey has %q and %+v", got, left)
		}
	}
	// A rule file that is not understood ends the listing.
	f.put("notes/deep/.kbsyncignore", "Entw\xfcrfe/\n")
	for e, err := range root.List(t.Context(), "notes/deep/") {
		if err == nil || !strings.Contains(err.Error(), "notes/deep/.kbsyncignore") {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
}

// testOdd checks that each odd key is listed once, and is either skipped with a reason or read back completely.
func testOdd(t *testing.T, f *fixture, opts Options) {
	for _, key := range opts.Markers {
		f.put(key, "")
	}
	written := map[string]bool{}
	for _, key := range opts.Odd {
		if err := f.place.Put(t.Context(), key, []byte("content of "+key)); err != nil {
			t.Logf("the place rejects the key %q: %v", key, err)
			continue
		}
		written[key] = true
	}
	if len(written) < len(opts.Odd)/2 {
		t.Errorf("only %d of %d odd keys could be written", len(written), len(opts.Odd))
	}
	listed := map[string]bool{}
	for _, e := range list(t, f.root, "") {
		if listed[e.Key] || !written[e.Key] {
			t.Errorf("%q is listed twice, or was not written", e.Key)
		}
		listed[e.Key] = true
		if e.Skip != "" {
			t.Logf("%q is skipped: %s", e.Key, e.Skip)
			continue
		}
		if got, err := read(t.Context(), f.root, e); err != nil || got != "content of "+e.Key {
			t.Errorf("%q reads %q, %v", e.Key, got, err)
		}
		if part := list(t, f.root, e.Key); len(part) != 1 || part[0].Fingerprint != e.Fingerprint {
			t.Errorf("the listing of %q alone has %+v", e.Key, part)
		}
	}
	for key := range written {
		if !listed[key] {
			t.Errorf("%q is not listed", key)
		}
	}
}

func testMissing(t *testing.T, f *fixture) {
	root, err := f.place.Missing()
	if err != nil {
		t.Fatal(err)
	}
	root = f.open(root, nil)
	failed := false
	for e, err := range root.List(t.Context(), "") {
		if failed = errors.Is(err, watcher.ErrRootMissing); !failed {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
	if !failed {
		t.Error("no error")
	}
}

func testContext(t *testing.T, f *fixture) {
	f.put("a.txt", "content")
	e := f.entry("a.txt")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range f.root.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
	if _, err := f.root.Open(ctx, e.Key, e.Fingerprint); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	if _, err := f.root.Identity(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("identity: %v", err)
	}
}

// testScan scans the root after edits.
func testScan(t *testing.T, f *fixture) {
	store, err := state.Open(t.Context(), state.Options{Path: t.TempDir() + "/kbsync.db"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	sync, err := store.Syncs.Ensure(t.Context(), "docs", "root", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	scan := func(want string) {
		t.Helper()
		opts := watcher.ScanOptions{Settle: -1, MaxDelete: watcher.Limit{Percent: 100, ByPercent: true}, MaxChange: watcher.Limit{Percent: 100, ByPercent: true}}
		for sum := (watcher.Result{}); ; {
			r, err := watcher.NewScanner(f.root, opts).Scan(t.Context(), store.Scans, sync, "")
			if err != nil {
				t.Fatal(err)
			}
			unchanged := r.Unchanged - sum.New - sum.Changed
			sum.New, sum.Changed, sum.Removed = sum.New+r.New, sum.Changed+r.Changed, sum.Removed+r.Removed
			if r.Unsettled > 0 {
				continue // for the few milliseconds in which time stamps prove nothing
			}
			if got := fmt.Sprintf("new %d, changed %d, unchanged %d, removed %d", sum.New, sum.Changed, unchanged, sum.Removed); got != want || r.IncompleteCount > 0 {
				t.Errorf("%s, %v, want %s", got, r.Incomplete, want)
			}
			return
		}
	}
	for i := range 30 {
		f.put(fmt.Sprintf("%d/document-%02d.md", i/10, i), "content")
	}
	scan("new 30, changed 0, unchanged 0, removed 0")
	scan("new 0, changed 0, unchanged 30, removed 0")
	f.put("0/document-03.md", "CONTENT")
	f.put("0/added.md", "added")
	f.delete("1/document-11.md")
	scan("new 1, changed 1, unchanged 28, removed 1")
}
