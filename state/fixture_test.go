package state

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/internal/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// A check of TestNothingIsLostOrDoubled writes to the disk a hundred times. More are asked for by -rapid.checks.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("30"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

var testDestination = Destination{Origin: "https://api.reply.cx", Account: "51", KnowledgeBase: 876}

// A fixture is a store with one sync, and short names for the steps of the stages.
type fixture struct {
	t    testing.TB
	s    *Store
	sync Sync
	next int64 // the next source id
	opts Options
	make stateMaker
}

// A stateMaker makes a new state, and returns the options that open it.
type stateMaker func(t testing.TB) Options

func inFile(t testing.TB) Options {
	return Options{Path: filepath.Join(t.TempDir(), "dir", "kbsync.db")}
}

func inPostgres(t testing.TB) Options {
	t.Helper()
	migrated := func(url string) error {
		s, err := Open(t.Context(), Options{Path: url})
		if err != nil {
			return err
		}
		return s.Close()
	}
	return Options{Path: pgtest.Start(t).Copy(t, "migrated", migrated)}
}

// onEach runs a test on each kind of database.
func onEach(t *testing.T, test func(t *testing.T, newState stateMaker)) {
	t.Helper()
	t.Parallel() // the tests wait for the disk and the server
	t.Run("sqlite", func(t *testing.T) { test(t, inFile) })
	t.Run("postgres", func(t *testing.T) { test(t, inPostgres) })
}

// A fixtureMaker is newFixture for a kind of database.
type fixtureMaker func(t testing.TB) *fixture

// onBoth is onEach for a test that begins with fixtures.
func onBoth(t *testing.T, test func(t *testing.T, newFixture fixtureMaker)) {
	t.Helper()
	onEach(t, func(t *testing.T, newState stateMaker) {
		test(t, func(t testing.TB) *fixture { return fixtureIn(t, newState) })
	})
}

// newFixture returns a fixture in a file.
func newFixture(t testing.TB) *fixture { return fixtureIn(t, inFile) }

func fixtureIn(t testing.TB, newState stateMaker) *fixture {
	t.Helper()
	r := &fixture{t: t, next: 330000, make: newState, opts: newState(t)}
	r.s = r.open(r.opts)
	var err error
	r.sync, err = r.s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false)
	r.must(err)
	return r
}

// open opens a state until the test ends.
func (r *fixture) open(opts Options) *Store {
	r.t.Helper()
	s, err := Open(r.t.Context(), opts)
	r.must(err)
	r.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return s
}

func (r *fixture) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// expireLease lets the lease of the fixture's process in a shared state run out, as if it was killed.
func (r *fixture) expireLease() {
	r.t.Helper()
	own, err := r.s.owner(r.ctx())
	r.must(err)
	r.must(r.s.update(r.ctx(), func(t *tx) error {
		_, err := t.exec(`UPDATE owners SET expires_at = 1 WHERE id = $1`, own)
		return err
	}))
}

// sqlite is the backend of a fixture in a file.
func (r *fixture) sqlite() *sqliteDB { return r.s.backend.(*sqliteDB) }

func (r *fixture) ctx() context.Context { return context.Background() }

// hash is the SHA-256 of a content named by a word.
func hash(content string) SHA256 { return sha256.Sum256([]byte(content)) }

// put records new fingerprints of these keys.
func (r *fixture) put(keys ...string) {
	r.t.Helper()
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	var cs []Change
	for i, k := range keys {
		cs = append(cs, Change{Op: Put, Key: k, Fingerprint: Fingerprint{Size: 10, MTime: scan.ID, CTime: scan.ID, Inode: uint64(1000*int(scan.ID) + i)}})
	}
	r.must(r.s.Scans.Record(r.ctx(), scan, cs))
	_, err = r.s.Scans.Finish(r.ctx(), scan, "1:2")
	r.must(err)
}

func (r *fixture) vanish(keys ...string) {
	r.t.Helper()
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	var cs []Change
	for _, k := range keys {
		cs = append(cs, Change{Op: Vanish, Key: k})
	}
	r.must(r.s.Scans.Record(r.ctx(), scan, cs))
	n, err := r.s.Scans.Finish(r.ctx(), scan, "1:2")
	r.must(err)
	if n != len(keys) {
		r.t.Fatalf("%d removed, want %d", n, len(keys))
	}
}

// resolve claims the due documents and resolves them; contents maps keys to contents.
func (r *fixture) resolve(contents map[string]string, sharing Sharing) (upload []HashedDocument, verdicts map[string]Action) {
	r.t.Helper()
	docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 100)
	r.must(err)
	return r.resolveClaimed(docs, contents, sharing)
}

func (r *fixture) resolveClaimed(docs []ClaimedDocument, contents map[string]string, sharing Sharing) (upload []HashedDocument, verdicts map[string]Action) {
	r.t.Helper()
	var hs []HashedDocument
	for _, d := range docs {
		hs = append(hs, HashedDocument{ClaimedDocument: d, SHA256: hash(contents[d.Key]), Size: 10})
	}
	vs, err := r.s.Queue.Resolve(r.ctx(), r.sync.ID, hs, sharing)
	r.must(err)
	verdicts = map[string]Action{}
	for i, v := range vs {
		verdicts[hs[i].Key] = v.Action
		if v.Action == ActionUpload {
			upload = append(upload, hs[i])
		}
	}
	return upload, verdicts
}

func spec(r *fixture, docs []HashedDocument) (BatchSpec, []Seal) {
	b := BatchSpec{SyncID: r.sync.ID}
	var seals []Seal
	for _, d := range docs {
		b.Members = append(b.Members, d.ClaimedDocument)
		b.Bytes += d.Size
		b.ResendOf = d.ResendOf
		seals = append(seals, Seal{SHA256: d.SHA256, Size: d.Size})
	}
	return b, seals
}

// seal begins and seals a batch of docs.
func (r *fixture) seal(docs []HashedDocument) *Upload {
	r.t.Helper()
	b, seals := spec(r, docs)
	u, err := r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	r.must(r.s.Journal.Seal(r.ctx(), u, seals))
	return u
}

// sealProbe begins and seals a batch that the open breaker lets through.
func (r *fixture) sealProbe(docs []HashedDocument) *Upload {
	r.t.Helper()
	b, seals := spec(r, docs)
	b.Probe = true
	u, err := r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	r.must(r.s.Journal.Seal(r.ctx(), u, seals))
	return u
}

func (r *fixture) accept(u *Upload, documents int) []int64 {
	r.t.Helper()
	var a Answer
	var ids []int64
	for i := range documents {
		name := usualName(u.spec.Members[i].Key)
		a.Sources = append(a.Sources, []SourceAnswer{{ID: r.next, Type: "file", Name: name, Status: "in-progress"}})
		ids = append(ids, r.next)
		r.next++
	}
	a.StatusCode, a.NextPoll = 200, time.Now()
	_, err := r.s.Journal.Accept(r.ctx(), u, a)
	r.must(err)
	return ids
}

// polls is how often the source was polled.
func (r *fixture) polls(id int64) (n int) {
	r.t.Helper()
	r.must(r.s.queryOne(r.ctx(), `SELECT coalesce(
			(SELECT polls FROM contents WHERE destination_id = $1 AND state > {content.uncertain} AND source_id > 0 AND source_id = $2),
			(SELECT polls FROM sources WHERE destination_id = $1 AND source_id = $2))`,
		[]any{r.sync.Destination.ID, id}, &n))
	return n
}

func (r *fixture) trained(outcome Outcome, ids ...int64) {
	r.t.Helper()
	var ps []Poll
	for _, id := range ids {
		ps = append(ps, Poll{SourceID: id, Polls: r.polls(id), Status: usualStatus(outcome), Outcome: outcome, NextPoll: time.Now()})
	}
	r.must(r.s.Inventory.RecordPolls(r.ctx(), r.sync.Destination.ID, ps))
}

// upload brings the keys, with their contents, to completed.
func (r *fixture) upload(contents map[string]string) []int64 {
	r.t.Helper()
	docs, _ := r.resolve(contents, Sharing{})
	ids := r.accept(r.seal(docs), len(docs))
	r.trained(TrainingCompleted, ids...)
	return ids
}

func (r *fixture) states() map[string]DocumentState {
	r.t.Helper()
	got := map[string]DocumentState{}
	for d, err := range r.s.Documents.All(r.ctx(), r.sync.ID) {
		r.must(err)
		got[d.Key] = d.State
	}
	return got
}

func (r *fixture) want(want string) {
	r.t.Helper()
	var got []string
	for k, st := range r.states() {
		got = append(got, k+"="+string(st))
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "["+want+"]" {
		r.t.Fatalf("documents are %v, want [%s]", got, want)
	}
	counts, err := r.s.Documents.Counts(r.ctx(), r.sync.ID)
	r.must(err)
	byState := map[DocumentState]int{}
	for _, st := range r.states() {
		byState[st]++
	}
	if fmt.Sprint(counts) != fmt.Sprint(byState) {
		r.t.Fatalf("counts are %v, want %v", counts, byState)
	}
	findings, err := r.s.Check(r.ctx())
	r.must(err)
	if len(findings) > 0 {
		r.t.Fatalf("the state is unsound: %v", findings)
	}
}

func (r *fixture) standings() map[int64]Standing {
	r.t.Helper()
	got := map[int64]Standing{}
	for src, err := range r.s.Inventory.Sources(r.ctx(), SourceFilter{}) {
		r.must(err)
		got[src.ID] = src.Standing
	}
	return got
}

func (r *fixture) wantStanding(id int64, want Standing) {
	r.t.Helper()
	if got := r.standings()[id]; got != want {
		r.t.Fatalf("source %d is %q, want %q", id, got, want)
	}
}

// openUntilEnd opens a state file, and closes it when the test ends. In a bubble it closes within the bubble.
func openUntilEnd(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
