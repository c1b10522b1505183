package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func TestMain(m *testing.M) {
	// A world of its own a check takes a while; -rapid.checks on the command line wins.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const knowledgeBase = 876

// A tree is a root in memory.
type tree struct {
	mu    sync.Mutex
	files map[string]*file
	clock int64
	opens int
	// broken, if set, is asked at each opening.
	broken func(key string) error
}

type file struct {
	content []byte
	fp      state.Fingerprint
}

func newTree() *tree { return &tree{files: map[string]*file{}} }

func (r *tree) put(key, content string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	r.files[key] = &file{content: []byte(content), fp: state.Fingerprint{Size: int64(len(content)), MTime: r.clock, CTime: r.clock, Inode: uint64(r.clock)}}
}

func (r *tree) remove(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, key)
}

func (r *tree) Open(_ context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opens++
	if r.broken != nil {
		if err := r.broken(key); err != nil {
			return nil, err
		}
	}
	f, ok := r.files[key]
	switch {
	case !ok:
		return nil, fmt.Errorf("open %q: %w", key, fs.ErrNotExist)
	case f.fp != fp:
		return nil, fmt.Errorf("open %q: %w", key, state.ErrChanged)
	case f.content == nil:
		return io.NopCloser(io.LimitReader(zeros{}, f.fp.Size)), nil
	}
	return io.NopCloser(bytes.NewReader(f.content)), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A fault is what becomes of one request.
type fault struct {
	// at is empty for none, "before" and "middle" for an end before the whole request is
	// there, "refuse" for an answer that refuses all of it, "lost" for an answer that is
	// lost, "lose" for one that is lost after the request was taken.
	at   string
	err  error
	drop int // fields missing from the answer, the last ones
}

// A service is the API in memory. It takes requests whole.
type service struct {
	mu       sync.Mutex
	posts    int
	asks     int
	atMost   int // statuses in an answer; 0 for as many as were asked for
	nextID   int64
	accepted map[state.SHA256]int
	names    map[state.SHA256][]string
	sources  map[int64]state.SHA256
	largest  int // parts of a request

	// fault, if set, decides on a request, given its number from 1 and its contents as
	// far as they are known: all of them once the body is read.
	fault func(post int, contents []string) fault
	// status, if set, answers a status request in place of the service.
	status func(ask int) error
	// latency is the time between the seal and the answer.
	latency time.Duration
	// sealed, if set, is called after each seal.
	sealed func()
}

func newService() *service {
	return &service{nextID: 1000, accepted: map[state.SHA256]int{}, names: map[state.SHA256][]string{}, sources: map[int64]state.SHA256{}}
}

func (s *service) decide(post int, contents []string) fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		return fault{}
	}
	return s.fault(post, contents)
}

func unsent(err error) error { return &replycx.UnsentError{Err: fmt.Errorf("upload sources: %w", err)} }

func (s *service) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	s.mu.Lock()
	s.posts++
	post := s.posts
	s.largest = max(s.largest, len(parts))
	s.mu.Unlock()
	if kb != knowledgeBase {
		return nil, errors.New("a knowledge base of someone else")
	}
	if f := s.decide(post, nil); f.at == "before" {
		return nil, unsent(f.err)
	}
	type content struct {
		text string
		sum  state.SHA256
	}
	contents := make([]content, len(parts))
	texts := make([]string, len(parts))
	fields := map[string]bool{}
	for i, p := range parts {
		if fields[p.Field] {
			return nil, unsent(errors.New("a field twice"))
		}
		fields[p.Field] = true
		text, sum, err := read(ctx, p)
		if cause := context.Cause(ctx); cause != nil {
			return nil, unsent(cause)
		}
		if err != nil {
			return nil, unsent(&replycx.PartError{Index: i, Field: p.Field, Err: err})
		}
		contents[i], texts[i] = content{text: text, sum: sum}, text
	}
	f := s.decide(post, texts)
	if f.at == "middle" {
		return nil, unsent(f.err)
	}
	if err := opts.Seal(ctx); err != nil {
		return nil, unsent(err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, unsent(cause)
	}
	if s.sealed != nil {
		s.sealed()
	}
	result := &replycx.UploadResult{KnowledgeBaseID: kb, Sources: map[string][]replycx.Source{}}
	if f.at == "" || f.at == "lose" {
		s.mu.Lock()
		for i, p := range parts {
			s.nextID++
			s.accepted[contents[i].sum]++
			s.names[contents[i].sum] = append(s.names[contents[i].sum], p.Filename)
			s.sources[s.nextID] = contents[i].sum
			if i < len(parts)-f.drop {
				result.Sources[p.Field] = []replycx.Source{{ID: s.nextID, Type: "file", Name: p.Filename, Status: "in-progress"}}
			}
		}
		s.mu.Unlock()
	}
	if s.latency > 0 {
		select {
		case <-time.After(s.latency):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if f.at != "" {
		return nil, f.err
	}
	return result, nil
}

func read(ctx context.Context, p replycx.Part) (string, state.SHA256, error) {
	var sum state.SHA256
	r, err := p.Open(ctx)
	if err != nil {
		return "", sum, err
	}
	defer r.Close()
	h := sha256.New()
	var text bytes.Buffer
	n, err := io.Copy(h, io.TeeReader(r, &limited{&text}))
	if err == nil && n != p.Size {
		err = replycx.ErrPartShort
	}
	h.Sum(sum[:0])
	return text.String(), sum, err
}

// limited keeps the first bytes.
type limited struct{ b *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1000 - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (s *service) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks++
	if s.status != nil {
		if err := s.status(s.asks); err != nil {
			return nil, err
		}
	}
	var out []replycx.SourceStatus
	for _, id := range ids {
		if _, ok := s.sources[id]; ok && (s.atMost == 0 || len(out) < s.atMost) {
			out = append(out, replycx.SourceStatus{ID: id, Status: "completed", KnowledgeBaseID: knowledgeBase})
		}
	}
	return out, ctx.Err()
}

func (s *service) set(f func(post int, contents []string) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// count returns how often the content was accepted.
func (s *service) count(content string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted[sha256.Sum256([]byte(content))]
}

func (s *service) posted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts
}

// A world is a sync with all around it.
type world struct {
	t       tester
	path    string
	store   *state.Store
	sync    state.Sync
	tree    *tree
	service *service
	opts    Options
	// around, if set, wraps the journal of the runs.
	around func(journal) journal
}

// A tester is what a world needs of a test, or of a property that is checked.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := newWorldAt(t, filepath.Join(t.TempDir(), "kbsync.db"))
	if testing.Verbose() {
		w.opts.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func newWorldAt(t tester, path string) *world {
	t.Helper()
	w := &world{t: t, path: path, tree: newTree(), service: newService()}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = state.Open(context.Background(), state.Options{Path: w.path}); err != nil {
		w.t.Fatal(err)
	}
	dest := state.Destination{Origin: "http://127.0.0.1", Account: "51", KnowledgeBase: knowledgeBase}
	if w.sync, err = w.store.Syncs.Ensure(context.Background(), "docs", "/docs", dest, false); err != nil {
		w.t.Fatal(err)
	}
}

// scan records what is in the tree.
func (w *world) scan() {
	w.t.Helper()
	ctx := context.Background()
	scan, err := w.store.Scans.Begin(ctx, w.sync.ID, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.tree.mu.Lock()
	listed := make(map[string]state.Fingerprint)
	for key, f := range w.tree.files {
		listed[key] = f.fp
	}
	w.tree.mu.Unlock()
	var changes []state.Change
	for known, err := range w.store.Scans.Known(ctx, w.sync.ID, "") {
		if err != nil {
			w.t.Fatal(err)
		}
		fp, ok := listed[known.Key]
		switch {
		case !ok:
			changes = append(changes, state.Change{Op: state.Vanish, Key: known.Key})
		case fp != known.Fingerprint:
			changes = append(changes, state.Change{Op: state.Put, Key: known.Key, Fingerprint: fp})
		}
		delete(listed, known.Key)
	}
	for key, fp := range listed {
		changes = append(changes, state.Change{Op: state.Put, Key: key, Fingerprint: fp})
	}
	slices.SortFunc(changes, func(a, b state.Change) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	if err := w.store.Scans.Record(ctx, scan, changes); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Scans.Finish(ctx, scan, "tree"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ingest() *Ingest {
	in := New(w.store, w.service, w.tree, w.sync, w.opts)
	if w.around != nil {
		in.journal = w.around(in.journal)
	}
	return in
}

// run recovers, as a holder of the lock does, and runs.
func (w *world) run(ctx context.Context) (Result, error) {
	w.t.Helper()
	if _, err := w.store.Journal.Recover(context.WithoutCancel(ctx), w.sync.ID); err != nil {
		w.t.Fatal(err)
	}
	return w.ingest().Run(ctx)
}

// mustRun runs without an error.
func (w *world) mustRun() Result {
	w.t.Helper()
	res, err := w.run(context.Background())
	if err != nil {
		w.t.Fatalf("run: %v (%+v)", err, res)
	}
	return res
}

func (w *world) counts() map[state.DocumentState]int {
	w.t.Helper()
	counts, err := w.store.Documents.Counts(context.Background(), w.sync.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for s, n := range counts {
		if n == 0 {
			delete(counts, s)
		}
	}
	return counts
}

func (w *world) wantCounts(want map[state.DocumentState]int) {
	w.t.Helper()
	got := w.counts()
	if len(got) != len(want) {
		w.t.Fatalf("documents: got %v, want %v", got, want)
	}
	for s, n := range want {
		if got[s] != n {
			w.t.Fatalf("documents: got %v, want %v", got, want)
		}
	}
}

// wantOnce says that each of the tree's contents was accepted once.
func (w *world) wantOnce() {
	w.t.Helper()
	for key, f := range w.tree.files {
		if n := w.service.count(string(f.content)); f.content != nil && n != 1 {
			w.t.Errorf("%s: accepted %d times", key, n)
		}
	}
}

// check fails on what the state finds wrong with itself.
func (w *world) check() {
	w.t.Helper()
	findings, err := w.store.Check(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range findings {
		w.t.Errorf("state check: %s", f)
	}
}

func (w *world) document(key string) state.Document {
	w.t.Helper()
	d, err := w.store.Documents.Get(context.Background(), w.sync.ID, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) duplicates() []state.PossibleDuplicate {
	w.t.Helper()
	var out []state.PossibleDuplicate
	for d, err := range w.store.Inventory.PossibleDuplicates(context.Background(), w.sync.ID) {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

func apiError(status int, code, message string) error {
	return &replycx.Error{Op: "upload sources", StatusCode: status, Code: code, Message: message, FromAPI: code != ""}
}

var errNotExist = fs.ErrNotExist

type counter struct{ n atomic.Int64 }

func (c *counter) add(n int64) { c.n.Add(n) }

// hooks replace steps of a journal.
type hooks struct {
	journal
	begin  func(context.Context, state.BatchSpec) (int64, error)
	seal   func(context.Context, int64, []state.Seal) error
	accept func(context.Context, int64, state.Answer) (state.Receipt, error)
	refuse func(context.Context, int64, state.Refusal) error
}

func (h hooks) Begin(ctx context.Context, spec state.BatchSpec) (int64, error) {
	if h.begin != nil {
		return h.begin(ctx, spec)
	}
	return h.journal.Begin(ctx, spec)
}

func (h hooks) Seal(ctx context.Context, id int64, seals []state.Seal) error {
	if h.seal != nil {
		return h.seal(ctx, id, seals)
	}
	return h.journal.Seal(ctx, id, seals)
}

func (h hooks) Accept(ctx context.Context, id int64, answer state.Answer) (state.Receipt, error) {
	if h.accept != nil {
		return h.accept(ctx, id, answer)
	}
	return h.journal.Accept(ctx, id, answer)
}

func (h hooks) Refuse(ctx context.Context, id int64, refusal state.Refusal) error {
	if h.refuse != nil {
		return h.refuse(ctx, id, refusal)
	}
	return h.journal.Refuse(ctx, id, refusal)
}
