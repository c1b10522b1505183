package statuspage

import (
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a state, with methods that change it as the stages do.
type fixture struct {
	t     testing.TB
	store *state.Store
	scan  int64
	next  int64 // the next source id

	close func() // closes the state; a test may call it early, to test a page without a state
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	s, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, store: s, next: 330000}
	f.close = sync.OnceFunc(func() { f.must(s.Close()) })
	t.Cleanup(f.close)
	return f
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// page returns a page with the token canary, which the requests of local carry.
func (f *fixture) page(opts Options) *Page {
	f.t.Helper()
	opts.State, opts.Token = f.store, canary
	p, err := New(opts)
	f.must(err)
	return p
}

func (f *fixture) sync(name string) state.Sync {
	f.t.Helper()
	s, err := f.store.Syncs.Ensure(f.t.Context(), name, "/srv/"+name, state.Destination{Origin: "https://api.reply.cx", Account: "51", KnowledgeBase: 876}, false)
	f.must(err)
	return s
}

// put records a complete scan in which keys are new or changed, and the vanished keys are gone.
func (f *fixture) put(s state.Sync, keys []string, vanished ...string) {
	f.t.Helper()
	scan, err := f.store.Scans.Begin(f.t.Context(), s.ID, "")
	f.must(err)
	f.scan++
	var changes []state.Change
	for i, k := range keys {
		changes = append(changes, state.Change{Op: state.Put, Key: k, Fingerprint: state.Fingerprint{Size: 2000, MTime: f.scan, CTime: f.scan, Inode: uint64(f.scan)<<32 + uint64(i)}})
	}
	for _, k := range vanished {
		changes = append(changes, state.Change{Op: state.Vanish, Key: k})
	}
	f.must(f.store.Scans.Record(f.t.Context(), scan, changes))
	_, err = f.store.Scans.Finish(f.t.Context(), scan, "1:2")
	f.must(err)
}

// seal seals a batch of up to limit pending documents with different contents, and returns its id.
func (f *fixture) seal(s state.Sync, limit int) (batch *state.Upload, documents int) {
	f.t.Helper()
	docs, err := f.store.Queue.Claim(f.t.Context(), s.ID, limit)
	f.must(err)
	var hashed []state.HashedDocument
	var seals []state.Seal
	for _, d := range docs {
		sha := sha256.Sum256([]byte(s.Name + d.Key + time.Unix(d.Fingerprint.MTime, 0).String()))
		hashed = append(hashed, state.HashedDocument{ClaimedDocument: d, SHA256: sha, Size: 2000})
		seals = append(seals, state.Seal{SHA256: sha, Size: 2000})
	}
	_, err = f.store.Queue.Resolve(f.t.Context(), s.ID, hashed, state.Sharing{})
	f.must(err)
	batch, err = f.store.Journal.Begin(f.t.Context(), state.BatchSpec{SyncID: s.ID, Members: docs, Bytes: int64(2000 * len(docs))})
	f.must(err)
	f.must(f.store.Journal.Seal(f.t.Context(), batch, seals))
	return batch, len(docs)
}

// accept uploads up to limit pending documents, and returns the ids of their sources in training.
func (f *fixture) accept(s state.Sync, limit int) []int64 {
	f.t.Helper()
	batch, n := f.seal(s, limit)
	var ids []int64
	a := state.Answer{StatusCode: 200, NextPoll: time.Now()}
	for range n {
		a.Sources = append(a.Sources, []state.SourceAnswer{{ID: f.next, Type: "file", Name: "x", Status: "in-progress"}})
		ids = append(ids, f.next)
		f.next++
	}
	_, err := f.store.Journal.Accept(f.t.Context(), batch, a)
	f.must(err)
	return ids
}

func (f *fixture) trained(s state.Sync, outcome state.Outcome, errors string, ids ...int64) {
	f.t.Helper()
	due, err := f.store.Inventory.DueSources(f.t.Context(), s.Destination.ID, 24*time.Hour, 1000)
	f.must(err)
	earlier := map[int64]int{}
	for _, d := range due {
		earlier[d.ID] = d.Polls
	}
	var polls []state.Poll
	for _, id := range ids {
		polls = append(polls, state.Poll{SourceID: id, Polls: earlier[id], Status: "word", Outcome: outcome, Errors: errors, NextPoll: time.Now()})
	}
	f.must(f.store.Inventory.RecordPolls(f.t.Context(), s.Destination.ID, polls))
}

// local returns a request from this machine with the token.
func local(method, target, body string) *http.Request {
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	q := httptest.NewRequest(method, target, b)
	q.Host, q.RemoteAddr = "127.0.0.1:9090", "127.0.0.1:50000"
	q.Header.Set("Authorization", "Bearer "+canary)
	if body != "" {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return q
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// get returns the body of a local GET, whose status must be 200.
func get(t *testing.T, h http.Handler, target string) string {
	t.Helper()
	w := do(h, local("GET", target, ""))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", target, w.Code, w.Body)
	}
	return w.Body.String()
}
