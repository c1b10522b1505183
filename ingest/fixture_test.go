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
	// Each check makes a fixture, which takes a while. -rapid.checks on the command line overrides this number.
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
	// broken, if set, is called at each Open, which returns its error.
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

// A fault is the outcome of one request.
type fault struct {
	// at is empty for none, "before" and "middle" for a failure before the service has the whole request, "refuse" for a
	// refusal of all of it, "lost" for a lost answer to a request that created no source, "lose" for a lost answer to a
	// request that did.
	at   string
	err  error
	drop int // how many of the last fields the answer lacks

	knowledgeBase int64 // that the answer names, if not 0
	knownIDs      bool  // the answer gives ids of earlier answers
}

// A service is the API in memory. It accepts only whole requests.
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

	// fault, if set, returns the fault of a request, given its number from 1 and its contents: nil before the body is read.
	fault func(post int, contents []string) fault
	// status, if set, returns the error of a status request, given its number from 1. refuseIDs, if set, returns the error of
	// a request for those ids.
	status    func(ask int) error
	refuseIDs func(ids []int64) error
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
		return nil, errors.New("wrong knowledge base")
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
			return nil, unsent(errors.New("duplicate field"))
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
	if f.knowledgeBase != 0 {
		kb = f.knowledgeBase
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
				id := s.nextID
				if f.knownIDs {
					id = 1001 + int64(i)
				}
				result.Sources[p.Field] = []replycx.Source{{ID: id, Type: "file", Name: p.Filename, Status: "in-progress"}}
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
	n, err := io.Copy(h, io.TeeReader(r, &limitedBuffer{&text}))
	if err == nil && n != p.Size {
		err = replycx.ErrPartShort
	}
	h.Sum(sum[:0])
	return text.String(), sum, err
}

// A limitedBuffer keeps the first bytes.
type limitedBuffer struct{ b *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
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
	if s.refuseIDs != nil {
		if err := s.refuseIDs(ids); err != nil {
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

// A fixture is a sync with a root in memory, a state and a service.
type fixture struct {
	t       tester
	path    string
	store   *state.Store
	sync    state.Sync
	tree    *tree
	service *service
	opts    Options
	// around, if set, wraps the journal of each run.
	around func(journal) journal
}

// A tester is the part of testing.T and of rapid.T that a fixture needs.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	fx := newFixtureAt(t, filepath.Join(t.TempDir(), "kbsync.db"))
	if testing.Verbose() {
		fx.opts.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(func() {
		if err := fx.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return fx
}

func newFixtureAt(t tester, path string) *fixture {
	t.Helper()
	fx := &fixture{t: t, path: path, tree: newTree(), service: newService()}
	fx.open()
	return fx
}

func (fx *fixture) open() {
	fx.t.Helper()
	var err error
	if fx.store, err = state.Open(context.Background(), state.Options{Path: fx.path}); err != nil {
		fx.t.Fatal(err)
	}
	dest := state.Destination{Origin: "http://127.0.0.1", Account: "51", KnowledgeBase: knowledgeBase}
	if fx.sync, err = fx.store.Syncs.Ensure(context.Background(), "docs", "/docs", dest, false); err != nil {
		fx.t.Fatal(err)
	}
}

// scan records the contents of the tree.
func (fx *fixture) scan() {
	fx.t.Helper()
	ctx := context.Background()
	scan, err := fx.store.Scans.Begin(ctx, fx.sync.ID, "")
	if err != nil {
		fx.t.Fatal(err)
	}
	fx.tree.mu.Lock()
	listed := make(map[string]state.Fingerprint)
	for key, f := range fx.tree.files {
		listed[key] = f.fp
	}
	fx.tree.mu.Unlock()
	var changes []state.Change
	for known, err := range fx.store.Scans.Known(ctx, fx.sync.ID, "") {
		if err != nil {
			fx.t.Fatal(err)
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
	if err := fx.store.Scans.Record(ctx, scan, changes); err != nil {
		fx.t.Fatal(err)
	}
	if _, err := fx.store.Scans.Finish(ctx, scan, "tree"); err != nil {
		fx.t.Fatal(err)
	}
}

func (fx *fixture) ingest() *Ingest {
	in := New(fx.store, fx.service, fx.tree, fx.sync, fx.opts)
	if fx.around != nil {
		in.journal = fx.around(in.journal)
	}
	return in
}

// run recovers, as the holder of the sync's lock does, and runs.
func (fx *fixture) run(ctx context.Context) (Result, error) {
	fx.t.Helper()
	if _, err := fx.store.Journal.Recover(context.WithoutCancel(ctx), fx.sync.ID); err != nil {
		fx.t.Fatal(err)
	}
	return fx.ingest().Run(ctx)
}

// mustRun runs, and fails the test on an error.
func (fx *fixture) mustRun() Result {
	fx.t.Helper()
	res, err := fx.run(context.Background())
	if err != nil {
		fx.t.Fatalf("run: %v (%+v)", err, res)
	}
	return res
}

func (fx *fixture) counts() map[state.DocumentState]int {
	fx.t.Helper()
	counts, err := fx.store.Documents.Counts(context.Background(), fx.sync.ID)
	if err != nil {
		fx.t.Fatal(err)
	}
	for s, n := range counts {
		if n == 0 {
			delete(counts, s)
		}
	}
	return counts
}

func (fx *fixture) wantCounts(want map[state.DocumentState]int) {
	fx.t.Helper()
	got := fx.counts()
	if len(got) != len(want) {
		fx.t.Fatalf("documents: got %v, want %v", got, want)
	}
	for s, n := range want {
		if got[s] != n {
			fx.t.Fatalf("documents: got %v, want %v", got, want)
		}
	}
}

// wantOnce fails the test unless the service accepted each content of the tree once.
func (fx *fixture) wantOnce() {
	fx.t.Helper()
	for key, f := range fx.tree.files {
		if n := fx.service.count(string(f.content)); f.content != nil && n != 1 {
			fx.t.Errorf("%s: accepted %d times", key, n)
		}
	}
}

// check fails the test on each finding of the state's own check.
func (fx *fixture) check() {
	fx.t.Helper()
	findings, err := fx.store.Check(context.Background())
	if err != nil {
		fx.t.Fatal(err)
	}
	for _, f := range findings {
		fx.t.Errorf("state check: %s", f)
	}
}

func (fx *fixture) document(key string) state.Document {
	fx.t.Helper()
	d, err := fx.store.Documents.Get(context.Background(), fx.sync.ID, key)
	if err != nil {
		fx.t.Fatal(err)
	}
	return d
}

func (fx *fixture) duplicates() []state.PossibleDuplicate {
	fx.t.Helper()
	var out []state.PossibleDuplicate
	for d, err := range fx.store.Inventory.PossibleDuplicates(context.Background(), fx.sync.ID) {
		if err != nil {
			fx.t.Fatal(err)
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

// hooks replaces steps of a journal.
type hooks struct {
	journal
	begin  func(context.Context, state.BatchSpec) (*state.Upload, error)
	seal   func(context.Context, *state.Upload, []state.Seal) error
	accept func(context.Context, *state.Upload, state.Answer) (state.Receipt, error)
	refuse func(context.Context, *state.Upload, state.Refusal) error
}

func (h hooks) Begin(ctx context.Context, spec state.BatchSpec) (*state.Upload, error) {
	if h.begin != nil {
		return h.begin(ctx, spec)
	}
	return h.journal.Begin(ctx, spec)
}

func (h hooks) Seal(ctx context.Context, u *state.Upload, seals []state.Seal) error {
	if h.seal != nil {
		return h.seal(ctx, u, seals)
	}
	return h.journal.Seal(ctx, u, seals)
}

func (h hooks) Accept(ctx context.Context, u *state.Upload, answer state.Answer) (state.Receipt, error) {
	if h.accept != nil {
		return h.accept(ctx, u, answer)
	}
	return h.journal.Accept(ctx, u, answer)
}

func (h hooks) Refuse(ctx context.Context, u *state.Upload, refusal state.Refusal) error {
	if h.refuse != nil {
		return h.refuse(ctx, u, refusal)
	}
	return h.journal.Refuse(ctx, u, refusal)
}
