package tracker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a destination with sources in training, and its API.
type fixture struct {
	t     *testing.T
	store *state.Store
	sync  state.Sync
	ids   []int64
	start time.Time

	requests int
	asked    map[int64]int
	largest  int
	longest  int
	// status returns a source's status, given its number from 0 and its age. The answer lacks a source with an empty one.
	status func(number int, age time.Duration) replycx.Status
	// base, if set, returns the knowledge base in a source's status.
	base func(number int, age time.Duration) int64
	// fails, if set, returns the error of a request.
	fails func(request int, ids []int64) error
}

func newFixture(t *testing.T, sources int, firstID int64) *fixture {
	t.Helper()
	fx := &fixture{t: t, asked: map[int64]int{}, start: time.Now()}
	var err error
	if fx.store, err = state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fx.store.Close(); err != nil {
			t.Error(err)
		}
	})
	dest := state.Destination{Origin: "http://127.0.0.1", Account: "51", KnowledgeBase: 876}
	if fx.sync, err = fx.store.Syncs.Ensure(t.Context(), "docs", "/docs", dest, false); err != nil {
		t.Fatal(err)
	}
	fx.add(sources, firstID)
	return fx
}

// add uploads that many documents, each with one source.
func (fx *fixture) add(sources int, firstID int64) {
	fx.t.Helper()
	ctx := context.Background()
	fatal := func(err error) {
		fx.t.Helper()
		if err != nil {
			fx.t.Fatal(err)
		}
	}
	scan, err := fx.store.Scans.Begin(ctx, fx.sync.ID, "")
	fatal(err)
	var changes []state.Change
	for i := range sources {
		changes = append(changes, state.Change{Op: state.Put, Key: fmt.Sprintf("%06d.md", len(fx.ids)+i), Fingerprint: state.Fingerprint{Size: 1, MTime: 1}})
	}
	fatal(fx.store.Scans.Record(ctx, scan, changes))
	fatal(fx.store.Scans.Drop(ctx, scan))
	id := firstID
	for {
		docs, err := fx.store.Queue.Claim(ctx, fx.sync.ID, 20)
		fatal(err)
		if len(docs) == 0 {
			return
		}
		batch, err := fx.store.Journal.Begin(ctx, state.BatchSpec{SyncID: fx.sync.ID, Members: docs, Bytes: 20})
		fatal(err)
		seals := make([]state.Seal, len(docs))
		answer := state.Answer{StatusCode: 200, Sources: make([][]state.SourceAnswer, len(docs)), NextPoll: time.Now().Add(350 * time.Millisecond)}
		for i, d := range docs {
			seals[i] = state.Seal{SHA256: sha256.Sum256([]byte(d.Key)), Size: 1}
			answer.Sources[i] = []state.SourceAnswer{{ID: id, Name: d.Key, Status: "in-progress"}}
			fx.ids = append(fx.ids, id)
			id++
		}
		fatal(fx.store.Journal.Seal(ctx, batch, seals))
		_, err = fx.store.Journal.Accept(ctx, batch, answer)
		fatal(err)
	}
}

func (fx *fixture) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	fx.requests++
	fx.largest = max(fx.largest, len(ids))
	var text []string
	for _, id := range ids {
		text = append(text, fmt.Sprint(id))
		fx.asked[id]++
	}
	fx.longest = max(fx.longest, len(strings.Join(text, ",")))
	if fx.fails != nil {
		if err := fx.fails(fx.requests, ids); err != nil {
			return nil, err
		}
	}
	var out []replycx.SourceStatus
	for _, id := range ids {
		number := slices.Index(fx.ids, id)
		if word := fx.status(number, time.Since(fx.start)); word != "" {
			s := replycx.SourceStatus{ID: id, Status: word}
			if fx.base != nil {
				s.KnowledgeBaseID = fx.base(number, time.Since(fx.start))
			}
			out = append(out, s)
		}
	}
	slices.Reverse(out)
	return out, nil
}

func (fx *fixture) track(ctx context.Context, opts Options) (Result, error) {
	return New(fx.store, fx, fx.sync.Destination, opts).Run(ctx)
}

func (fx *fixture) wantCounts(want map[state.DocumentState]int) {
	fx.t.Helper()
	got, err := fx.store.Documents.Counts(context.Background(), fx.sync.ID)
	if err != nil {
		fx.t.Fatal(err)
	}
	for s, n := range got {
		if n != want[s] {
			fx.t.Fatalf("documents: got %v, want %v", got, want)
		}
	}
	for s, n := range want {
		if got[s] != n {
			fx.t.Fatalf("documents: got %v, want %v", got, want)
		}
	}
}

func trainsFor(d time.Duration) func(int, time.Duration) replycx.Status {
	return func(_ int, age time.Duration) replycx.Status {
		if age < d {
			return "in-progress"
		}
		return "completed"
	}
}

func TestRunFollowsEverySourceToItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 250, 1000)
		fx.status = func(number int, age time.Duration) replycx.Status {
			switch {
			case age < time.Duration(number)*time.Second:
				return "in-progress"
			case number%10 == 0:
				return "FAILED"
			}
			return "completed"
		}
		var reported Result
		res, err := fx.track(t.Context(), Options{Progress: func(c Result) {
			reported.Completed += c.Completed
			reported.Failed += c.Failed
			reported.Requests += c.Requests
		}})
		if err != nil || res.Completed != 225 || res.Failed != 25 || res.Stuck != 0 || reported != res {
			t.Fatalf("%+v (reported %+v), %v", res, reported, err)
		}
		if took := time.Since(fx.start); took > 6*time.Minute {
			t.Errorf("took %v", took)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 225, state.Failed: 25})
		before := fx.requests
		if res, err := fx.track(t.Context(), Options{}); err != nil || fx.requests != before {
			t.Fatalf("asked again: %+v, %v", res, err)
		}
	})
}

// A status of another knowledge base counts as an answer without the source, whatever its word.
func TestStatusOfAnotherKnowledgeBaseCompletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 4, 1000)
		fx.status = func(number int, _ time.Duration) replycx.Status {
			return []replycx.Status{"completed", "completed", "failed", "completed"}[number]
		}
		fx.base = func(number int, age time.Duration) int64 {
			switch {
			case number == 0 && age < time.Minute, number == 1, number == 2:
				return 5
			case number == 3:
				return 0
			}
			return 876
		}
		var log strings.Builder
		res, err := fx.track(t.Context(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil || res.Completed != 2 || res.Failed != 0 || res.Stuck != 2 {
			t.Fatalf("%+v, %v", res, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 2, state.Stuck: 2})
		if n := strings.Count(log.String(), "the answer has the source in another knowledge base"); n != 1+3+3 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
	})
}

func TestSourcesThatTrainForFiveMinutesCostATwentiethAsManyRequests(t *testing.T) {
	const sources = 1500
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, sources, 300_000)
		requests, took := fx.fiveMinutes(t)
		if requests > sources/20 || fx.largest > 100 {
			t.Errorf("%d requests, of %d ids at most", requests, fx.largest)
		}
		if took > 7*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// BenchmarkP7Requests prints the number of status requests for 10,000 sources that train for five minutes.
func BenchmarkP7Requests(b *testing.B) {
	requests := 0
	for b.Loop() {
		ok := testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "P7", F: func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { requests, _ = newFixture(t, 10_000, 300_000).fiveMinutes(t) })
		}}})
		if !ok {
			b.Fatal("failed")
		}
	}
	b.ReportMetric(float64(requests), "requests")
}

// fiveMinutes tracks sources that train for five minutes. It returns the number of requests, and the time until the end.
func (fx *fixture) fiveMinutes(t *testing.T) (requests int, took time.Duration) {
	fx.status = trainsFor(5 * time.Minute)
	fx.start = time.Now()
	res, err := New(fx.store, quick{fx}, fx.sync.Destination, Options{}).Run(t.Context())
	if err != nil || res.Completed != len(fx.ids) {
		t.Fatalf("%+v, %v", res, err)
	}
	return fx.requests, time.Since(fx.start)
}

// quick answers without a look-up of each source.
type quick struct{ fx *fixture }

func (q quick) SourceStatus(_ context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	q.fx.requests++
	q.fx.largest = max(q.fx.largest, len(ids))
	word := q.fx.status(0, time.Since(q.fx.start))
	out := make([]replycx.SourceStatus, len(ids))
	for i, id := range ids {
		out[i] = replycx.SourceStatus{ID: id, Status: word}
	}
	return out, nil
}

func TestURLsOfStatusRequestsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 300, 1_000_000_000_000_000_000)
		fx.status = trainsFor(time.Second)
		if res, err := fx.track(t.Context(), Options{}); err != nil || res.Completed != 300 {
			t.Fatalf("%+v, %v", res, err)
		}
		if fx.longest > replycx.MaxStatusLength || fx.largest < 90 {
			t.Errorf("%d ids of %d characters", fx.largest, fx.longest)
		}
	})
}

// A source that answers lack is stuck after three of them. The tracker still asks for it, slowly, and it may come back.
func TestMissingSourceIsStuckAndMayComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 3, 1000)
		fx.status = func(number int, age time.Duration) replycx.Status {
			switch {
			case number == 0 && age < 5*time.Second: // known late
				return ""
			case number == 1 && age < time.Hour: // known very late
				return ""
			case age < 20*time.Minute && number != 0:
				return "in-progress"
			}
			return "completed"
		}
		res, err := fx.track(t.Context(), Options{})
		if err != nil || res.Completed != 2 || res.Stuck != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 2, state.Stuck: 1})
		// An answer that has it again ends its being stuck.
		time.Sleep(time.Hour)
		res, err = fx.track(t.Context(), Options{})
		if err != nil || res.Completed != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 3})
	})
}

func TestUnknownStatusIsLoggedOnceAndCountsAsInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 5, 1000)
		fx.status = func(_ int, age time.Duration) replycx.Status {
			if age < 3*time.Minute {
				return "vectorising"
			}
			return "Completed"
		}
		var log strings.Builder
		res, err := fx.track(t.Context(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil || res.Completed != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
		if n := strings.Count(log.String(), "vectorising"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &log)
		}
	})
}

func TestSourceIsStuckAtTheDeadlineAndStillPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 5, 1000)
		fx.status = trainsFor(1000 * time.Hour)
		res, err := fx.track(t.Context(), Options{TrainTimeout: time.Hour})
		took := time.Since(fx.start)
		if err != nil || res.Stuck != 5 || took < time.Hour || took > 62*time.Minute {
			t.Fatalf("%+v after %v, %v", res, took, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Stuck: 5})
		before := fx.requests
		wake := make(chan struct{})
		time.AfterFunc(time.Hour, func() { close(wake) })
		if _, err := fx.track(t.Context(), Options{TrainTimeout: time.Hour, Wake: wake}); err != nil {
			t.Fatal(err)
		}
		if asked := fx.requests - before; asked < 5 || asked > 8 {
			t.Errorf("asked %d times in an hour for stuck sources", asked)
		}
	})
}

func TestBadAnswersFailNoSource(t *testing.T) {
	for name, bad := range map[string]error{
		"404":     &replycx.Error{StatusCode: 404},
		"500":     &replycx.Error{StatusCode: 500, FromAPI: true},
		"503":     &replycx.Error{StatusCode: 503, RetryAfter: 20 * time.Second},
		"429":     &replycx.Error{StatusCode: 429, RetryAfter: 20 * time.Second},
		"refused": errors.New("connection refused"),
		"html":    &replycx.AnswerError{StatusCode: 200, Reason: "is not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t, 150, 1000)
				fx.status = trainsFor(10 * time.Second)
				var last time.Time
				e, _ := errors.AsType[*replycx.Error](bad)
				fx.fails = func(request int, _ []int64) error {
					if request > 1 && e != nil && e.RetryAfter > 0 && time.Since(last) < e.RetryAfter && time.Since(fx.start) < 2*time.Minute {
						t.Errorf("asked after %v", time.Since(last))
					}
					last = time.Now()
					if time.Since(fx.start) < 2*time.Minute {
						return bad
					}
					return nil
				}
				res, err := fx.track(t.Context(), Options{})
				if err != nil || res.Completed != 150 || res.Requests > 20 {
					t.Fatalf("%+v, %v", res, err)
				}
			})
		})
	}
}

func TestRunEndsAfterItsPatienceAndTheDeadlineStillHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 5, 1000)
		fx.fails = func(int, []int64) error { return errors.New("connection refused") }
		_, err := fx.track(t.Context(), Options{})
		if _, ok := errors.AsType[*OutageError](err); !ok || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(fx.start); took > 6*time.Minute {
			t.Errorf("took %v", took)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 5})
		// The deadline holds without an answer too.
		res, err := fx.track(t.Context(), Options{Patience: -1, TrainTimeout: time.Hour})
		if err != nil || res.Stuck != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestDeniedRequestEndsTheRunAndFailsNoSource(t *testing.T) {
	for _, e := range []*replycx.Error{
		{StatusCode: 401, Code: "JWT_SIGNATURE_EXCEPTION"},
		{StatusCode: 401},
		{StatusCode: 401, Code: "UNAUTHORIZED_FEATURE"},
		{StatusCode: 404, Code: "ACCOUNT_DETAILS_NOT_FOUND"},
		{StatusCode: 302},
		{StatusCode: 403},
	} {
		synctest.Test(t, func(t *testing.T) {
			fx := newFixture(t, 5, 1000)
			fx.fails = func(int, []int64) error { return fmt.Errorf("source status: %w", e) }
			_, err := fx.track(t.Context(), Options{})
			if fatal, ok := errors.AsType[*FatalError](err); !ok || !errors.Is(fatal, error(e)) || fx.requests != 1 {
				t.Fatalf("%+v: got %v after %d requests", e, err, fx.requests)
			}
			fx.wantCounts(map[state.DocumentState]int{state.Training: 5})
		})
	}
}

// The API may answer 404 or 400 to a request with an id that it does not know. Only that source becomes stuck, and the others
// complete as soon as without it.
func TestUnknownIDAloneIsStuck(t *testing.T) {
	for name, refusal := range map[string]*replycx.Error{
		"404": {StatusCode: 404, Code: "SOURCE_NOT_FOUND", FromAPI: true},
		"400": {StatusCode: 400, Code: "BAD_REQUEST", FromAPI: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t, 150, 1000)
				fx.status = trainsFor(time.Second)
				fx.fails = func(_ int, ids []int64) error {
					if slices.Contains(ids, 1077) {
						return refusal
					}
					return nil
				}
				var completed time.Duration // when the last one completed
				res, err := fx.track(t.Context(), Options{Progress: func(c Result) {
					if c.Completed > 0 {
						completed = time.Since(fx.start)
					}
				}})
				if err != nil || res.Completed != 149 || res.Stuck != 1 || completed > 5*time.Second {
					t.Fatalf("%+v, the last one completed after %v, %v", res, completed, err)
				}
				fx.wantCounts(map[state.DocumentState]int{state.Completed: 149, state.Stuck: 1})
			})
		})
	}
}

// A source that a run left stuck may be trained by the time of the next run, however soon that begins.
func TestEachRunAsksForStuckSourcesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 5, 1000)
		// The last poll of the first run comes up to 72 s after the deadline: a minute and its jitter.
		fx.status = trainsFor(65 * time.Minute)
		if res, err := fx.track(t.Context(), Options{TrainTimeout: time.Hour}); err != nil || res.Stuck != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
		time.Sleep(30 * time.Second) // still in training
		if res, err := fx.track(t.Context(), Options{TrainTimeout: time.Hour}); err != nil || res.Requests != 1 || res.Completed != 0 {
			t.Fatalf("%+v, %v", res, err)
		}
		time.Sleep(5 * time.Minute)
		if res, err := fx.track(t.Context(), Options{TrainTimeout: time.Hour}); err != nil || res.Requests != 1 || res.Completed != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 5})
	})
}

// An API that refuses every request with a 400 is out of order. Most sources are in training afterwards.
func TestAPIThatRefusesEveryRequestIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 150, 1000)
		fx.fails = func(int, []int64) error { return &replycx.Error{StatusCode: 400} }
		res, err := fx.track(t.Context(), Options{})
		if _, ok := errors.AsType[*OutageError](err); !ok || res.Stuck > 50 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestWokenRunFollowsNewSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 0, 1000)
		fx.status = trainsFor(0)
		wake := make(chan struct{}, 1)
		type end struct {
			res Result
			err error
		}
		ended := make(chan end)
		go func() {
			res, err := fx.track(t.Context(), Options{Wake: wake})
			ended <- end{res, err}
		}()
		time.Sleep(10*time.Minute + time.Second)
		fx.add(30, 5000)
		wake <- struct{}{}
		time.Sleep(3 * time.Second)
		fx.wantCounts(map[state.DocumentState]int{state.Completed: 30})
		fx.add(10, 6000)
		close(wake)
		if got := <-ended; got.err != nil || got.res.Completed != 40 {
			t.Fatalf("%+v", got)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 5, 1000)
		fx.status = trainsFor(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := fx.track(ctx, Options{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(fx.start) != 10*time.Minute {
			t.Fatalf("got %v after %v", err, time.Since(fx.start))
		}
	})
}

func TestDecideByStatusMissesAndAge(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		word   replycx.Status
		misses int
		age    time.Duration
		stuck  bool
		want   state.Outcome
	}{
		{name: "in progress", word: "in-progress", want: state.InTraining},
		{name: "completed", word: "completed", want: state.TrainingCompleted},
		{name: "completed late", word: "completed", age: 3 * time.Hour, want: state.TrainingCompleted},
		{name: "failed", word: "failed", want: state.TrainingFailed},
		{name: "in capitals", word: "COMPLETED", want: state.TrainingCompleted},
		{name: "unknown", word: "done", want: state.InTraining},
		{name: "late", word: "in-progress", age: 2 * time.Hour, want: state.TrainingStuck},
		{name: "missing", misses: 2, age: time.Minute, want: state.InTraining},
		{name: "missing again", misses: 3, age: 15 * time.Second, want: state.TrainingStuck},
		{name: "missing again, just uploaded", misses: 9, age: 14 * time.Second, want: state.InTraining},
		{name: "stuck and missing", misses: 1, stuck: true, want: state.TrainingStuck},
		{name: "stuck and back", word: "in-progress", stuck: true, want: state.InTraining},
	} {
		d := state.DueSource{ID: 7, CreatedAt: now.Add(-c.age), Stuck: c.stuck}
		p := decide(d, replycx.SourceStatus{Status: c.word}, c.word != "", c.misses, now, 2*time.Hour)
		if p.Outcome != c.want || p.SourceID != 7 || p.Status != string(c.word) {
			t.Errorf("%s: got %+v", c.name, p)
		}
	}
}
