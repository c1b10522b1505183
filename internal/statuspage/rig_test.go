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

// A rig is a state and short words for what the stages do to it.
type rig struct {
	t    testing.TB
	s    *state.Store
	scan int64
	next int64 // the next source id

	close func() // may be called before the test ends, to see what becomes of a page without a state
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, s: s, next: 330000}
	r.close = sync.OnceFunc(func() { r.must(s.Close()) })
	t.Cleanup(r.close)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) page(opts Options) *Page {
	r.t.Helper()
	opts.State = r.s
	p, err := New(opts)
	r.must(err)
	return p
}

func (r *rig) sync(name string) state.Sync {
	r.t.Helper()
	s, err := r.s.Syncs.Ensure(r.t.Context(), name, "/srv/"+name, state.Destination{Origin: "https://api.reply.cx", Account: "51", KnowledgeBase: 876}, false)
	r.must(err)
	return s
}

// put finishes a complete scan in which these keys were new or changed, and the vanished ones gone.
func (r *rig) put(s state.Sync, keys []string, vanished ...string) {
	r.t.Helper()
	scan, err := r.s.Scans.Begin(r.t.Context(), s.ID, "")
	r.must(err)
	r.scan++
	var changes []state.Change
	for i, k := range keys {
		changes = append(changes, state.Change{Op: state.Put, Key: k, Fingerprint: state.Fingerprint{Size: 2000, MTime: r.scan, CTime: r.scan, Inode: uint64(r.scan)<<32 + uint64(i)}})
	}
	for _, k := range vanished {
		changes = append(changes, state.Change{Op: state.Vanish, Key: k})
	}
	r.must(r.s.Scans.Record(r.t.Context(), scan, changes))
	_, err = r.s.Scans.Finish(r.t.Context(), scan, "1:2")
	r.must(err)
}

// seal sends up to limit pending documents, each with a content of its own, and returns the batch.
func (r *rig) seal(s state.Sync, limit int) (batch int64, documents int) {
	r.t.Helper()
	docs, err := r.s.Queue.Claim(r.t.Context(), s.ID, limit)
	r.must(err)
	var hashed []state.HashedDocument
	var seals []state.Seal
	for _, d := range docs {
		sha := sha256.Sum256([]byte(s.Name + d.Key + time.Unix(d.Fingerprint.MTime, 0).String()))
		hashed = append(hashed, state.HashedDocument{ClaimedDocument: d, SHA256: sha, Size: 2000})
		seals = append(seals, state.Seal{SHA256: sha, Size: 2000})
	}
	_, err = r.s.Queue.Resolve(r.t.Context(), s.ID, hashed, state.Sharing{})
	r.must(err)
	batch, err = r.s.Journal.Begin(r.t.Context(), state.BatchSpec{SyncID: s.ID, Members: docs, Bytes: int64(2000 * len(docs))})
	r.must(err)
	r.must(r.s.Journal.Seal(r.t.Context(), batch, seals))
	return batch, len(docs)
}

// accept uploads up to limit pending documents and returns the ids of their sources, which are in training.
func (r *rig) accept(s state.Sync, limit int) []int64 {
	r.t.Helper()
	batch, n := r.seal(s, limit)
	var ids []int64
	a := state.Answer{StatusCode: 200, NextPoll: time.Now()}
	for range n {
		a.Sources = append(a.Sources, []state.SourceAnswer{{ID: r.next, Type: "file", Name: "x", Status: "in-progress"}})
		ids = append(ids, r.next)
		r.next++
	}
	_, err := r.s.Journal.Accept(r.t.Context(), batch, a)
	r.must(err)
	return ids
}

func (r *rig) trained(s state.Sync, outcome state.Outcome, errors string, ids ...int64) {
	r.t.Helper()
	var polls []state.Poll
	for _, id := range ids {
		polls = append(polls, state.Poll{SourceID: id, Status: "word", Outcome: outcome, Seen: true, Errors: errors, NextPoll: time.Now()})
	}
	r.must(r.s.Inventory.RecordPolls(r.t.Context(), s.Destination.ID, polls))
}

// local makes a request as one from this machine.
func local(method, target, body string) *http.Request {
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	q := httptest.NewRequest(method, target, b)
	q.Host, q.RemoteAddr = "127.0.0.1:9090", "127.0.0.1:50000"
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

// get returns the body of a local GET that must be answered with 200.
func get(t *testing.T, h http.Handler, target string) string {
	t.Helper()
	w := do(h, local("GET", target, ""))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", target, w.Code, w.Body)
	}
	return w.Body.String()
}
