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

// A world is a destination with sources that train.
type world struct {
	t     *testing.T
	store *state.Store
	sync  state.Sync
	ids   []int64
	start time.Time

	requests int
	asked    map[int64]int
	largest  int
	longest  int
	// status says what a source's status is, by its number from 0 and its age; an empty
	// one is missing from the answer.
	status func(number int, age time.Duration) replycx.Status
	// fails, if set, answers a request in place of that.
	fails func(request int, ids []int64) error
}

func newWorld(t *testing.T, sources int, firstID int64) *world {
	t.Helper()
	w := &world{t: t, asked: map[int64]int{}, start: time.Now()}
	var err error
	if w.store, err = state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	dest := state.Destination{Origin: "http://127.0.0.1", Account: "51", KnowledgeBase: 876}
	if w.sync, err = w.store.Syncs.Ensure(t.Context(), "docs", "/docs", dest, false); err != nil {
		t.Fatal(err)
	}
	w.add(sources, firstID)
	return w
}

// add uploads so many documents, each with a source.
func (w *world) add(sources int, firstID int64) {
	w.t.Helper()
	ctx := context.Background()
	fatal := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	scan, err := w.store.Scans.Begin(ctx, w.sync.ID, "")
	fatal(err)
	var changes []state.Change
	for i := range sources {
		changes = append(changes, state.Change{Op: state.Put, Key: fmt.Sprintf("%06d.md", len(w.ids)+i), Fingerprint: state.Fingerprint{Size: 1, MTime: 1}})
	}
	fatal(w.store.Scans.Record(ctx, scan, changes))
	fatal(w.store.Scans.Drop(ctx, scan))
	id := firstID
	for {
		docs, err := w.store.Queue.Claim(ctx, w.sync.ID, 20)
		fatal(err)
		if len(docs) == 0 {
			return
		}
		batch, err := w.store.Journal.Begin(ctx, state.BatchSpec{SyncID: w.sync.ID, Members: docs, Bytes: 20})
		fatal(err)
		seals := make([]state.Seal, len(docs))
		answer := state.Answer{StatusCode: 200, Sources: make([][]state.SourceAnswer, len(docs)), NextPoll: time.Now().Add(2 * time.Second)}
		for i, d := range docs {
			seals[i] = state.Seal{SHA256: sha256.Sum256([]byte(d.Key)), Size: 1}
			answer.Sources[i] = []state.SourceAnswer{{ID: id, Name: d.Key, Status: "in-progress"}}
			w.ids = append(w.ids, id)
			id++
		}
		fatal(w.store.Journal.Seal(ctx, batch, seals))
		_, err = w.store.Journal.Accept(ctx, batch, answer)
		fatal(err)
	}
}

func (w *world) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	w.requests++
	w.largest = max(w.largest, len(ids))
	var text []string
	for _, id := range ids {
		text = append(text, fmt.Sprint(id))
		w.asked[id]++
	}
	w.longest = max(w.longest, len(strings.Join(text, ",")))
	if w.fails != nil {
		if err := w.fails(w.requests, ids); err != nil {
			return nil, err
		}
	}
	var out []replycx.SourceStatus
	for _, id := range ids {
		number := slices.Index(w.ids, id)
		if word := w.status(number, time.Since(w.start)); word != "" {
			out = append(out, replycx.SourceStatus{ID: id, Status: word})
		}
	}
	slices.Reverse(out)
	return out, nil
}

func (w *world) track(ctx context.Context, opts Options) (Result, error) {
	return New(w.store, w, w.sync.Destination, opts).Run(ctx)
}

func (w *world) wantCounts(want map[state.DocumentState]int) {
	w.t.Helper()
	got, err := w.store.Documents.Counts(context.Background(), w.sync.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for s, n := range got {
		if n != want[s] {
			w.t.Fatalf("documents: got %v, want %v", got, want)
		}
	}
	for s, n := range want {
		if got[s] != n {
			w.t.Fatalf("documents: got %v, want %v", got, want)
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

func TestFollowsToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 250, 1000)
		w.status = func(number int, age time.Duration) replycx.Status {
			switch {
			case age < time.Duration(number)*time.Second:
				return "in-progress"
			case number%10 == 0:
				return "FAILED"
			}
			return "completed"
		}
		var told Result
		res, err := w.track(t.Context(), Options{Progress: func(c Result) {
			told.Completed += c.Completed
			told.Failed += c.Failed
			told.Requests += c.Requests
		}})
		if err != nil || res.Completed != 225 || res.Failed != 25 || res.Stuck != 0 || told != res {
			t.Fatalf("%+v (told %+v), %v", res, told, err)
		}
		if took := time.Since(w.start); took > 6*time.Minute {
			t.Errorf("took %v", took)
		}
		w.wantCounts(map[state.DocumentState]int{state.Completed: 225, state.Failed: 25})
		before := w.requests
		if res, err := w.track(t.Context(), Options{}); err != nil || w.requests != before {
			t.Fatalf("asked again: %+v, %v", res, err)
		}
	})
}

// P7: sources that train for five minutes cost at most a tenth as many requests.
func TestP7Requests(t *testing.T) {
	const sources = 1500
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sources, 300_000)
		requests, took := w.fiveMinutes(t)
		if requests > sources/10 || w.largest > 100 {
			t.Errorf("%d requests, of %d ids at most", requests, w.largest)
		}
		if took > 7*time.Minute {
			t.Errorf("noticed after %v", took)
		}
	})
}

// BenchmarkP7Requests prints how many requests 10,000 sources cost that train for five minutes.
func BenchmarkP7Requests(b *testing.B) {
	requests := 0
	for b.Loop() {
		ok := testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "P7", F: func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { requests, _ = newWorld(t, 10_000, 300_000).fiveMinutes(t) })
		}}})
		if !ok {
			b.Fatal("failed")
		}
	}
	b.ReportMetric(float64(requests), "requests")
}

// fiveMinutes tracks sources that train so long, and returns how many requests it took and when it had noticed.
func (w *world) fiveMinutes(t *testing.T) (requests int, took time.Duration) {
	w.status = trainsFor(5 * time.Minute)
	w.start = time.Now()
	res, err := New(w.store, quick{w}, w.sync.Destination, Options{}).Run(t.Context())
	if err != nil || res.Completed != len(w.ids) {
		t.Fatalf("%+v, %v", res, err)
	}
	return w.requests, time.Since(w.start)
}

// quick answers without looking up which source it is.
type quick struct{ w *world }

func (q quick) SourceStatus(_ context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	q.w.requests++
	q.w.largest = max(q.w.largest, len(ids))
	word := q.w.status(0, time.Since(q.w.start))
	out := make([]replycx.SourceStatus, len(ids))
	for i, id := range ids {
		out[i] = replycx.SourceStatus{ID: id, Status: word}
	}
	return out, nil
}

func TestURLsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 300, 1_000_000_000_000_000_000)
		w.status = trainsFor(time.Second)
		if res, err := w.track(t.Context(), Options{}); err != nil || res.Completed != 300 {
			t.Fatalf("%+v, %v", res, err)
		}
		if w.longest > maxLength || w.largest < 90 {
			t.Errorf("%d ids of %d characters", w.largest, w.longest)
		}
	})
}

// C6: an id that is missing is asked for again, and stuck after three times; it is still
// asked for, slowly, and may come back.
func TestC6Missing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1000)
		w.status = func(number int, age time.Duration) replycx.Status {
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
		res, err := w.track(t.Context(), Options{})
		if err != nil || res.Completed != 2 || res.Stuck != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		w.wantCounts(map[state.DocumentState]int{state.Completed: 2, state.Stuck: 1})
		// It trains again when an answer has it.
		time.Sleep(time.Hour)
		res, err = w.track(t.Context(), Options{})
		if err != nil || res.Completed != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		w.wantCounts(map[state.DocumentState]int{state.Completed: 3})
	})
}

// C6: an unknown word is logged once, and counts as in progress.
func TestC6UnknownWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 1000)
		w.status = func(_ int, age time.Duration) replycx.Status {
			if age < 3*time.Minute {
				return "vectorising"
			}
			return "Completed"
		}
		var log strings.Builder
		res, err := w.track(t.Context(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil || res.Completed != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
		if n := strings.Count(log.String(), "vectorising"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &log)
		}
	})
}

// C6: training that never ends is stuck at the deadline, and is still asked for.
func TestC6NeverDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 1000)
		w.status = trainsFor(1000 * time.Hour)
		res, err := w.track(t.Context(), Options{TrainTimeout: time.Hour})
		took := time.Since(w.start)
		if err != nil || res.Stuck != 5 || took < time.Hour || took > 62*time.Minute {
			t.Fatalf("%+v after %v, %v", res, took, err)
		}
		w.wantCounts(map[state.DocumentState]int{state.Stuck: 5})
		before := w.requests
		wake := make(chan struct{})
		time.AfterFunc(time.Hour, func() { close(wake) })
		if _, err := w.track(t.Context(), Options{TrainTimeout: time.Hour, Wake: wake}); err != nil {
			t.Fatal(err)
		}
		if asked := w.requests - before; asked < 5 || asked > 8 {
			t.Errorf("asked %d times in an hour for what is stuck", asked)
		}
	})
}

// C6: an API that does not answer fails no source; it is asked again, with patience.
func TestC6BadAnswers(t *testing.T) {
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
				w := newWorld(t, 150, 1000)
				w.status = trainsFor(10 * time.Second)
				var last time.Time
				e, _ := errors.AsType[*replycx.Error](bad)
				w.fails = func(request int, _ []int64) error {
					if request > 1 && e != nil && e.RetryAfter > 0 && time.Since(last) < e.RetryAfter && time.Since(w.start) < 2*time.Minute {
						t.Errorf("asked after %v", time.Since(last))
					}
					last = time.Now()
					if time.Since(w.start) < 2*time.Minute {
						return bad
					}
					return nil
				}
				res, err := w.track(t.Context(), Options{})
				if err != nil || res.Completed != 150 || res.Requests > 20 {
					t.Fatalf("%+v, %v", res, err)
				}
			})
		})
	}
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 1000)
		w.fails = func(int, []int64) error { return errors.New("connection refused") }
		_, err := w.track(t.Context(), Options{})
		if _, ok := errors.AsType[*OutageError](err); !ok || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(w.start); took > 6*time.Minute {
			t.Errorf("took %v", took)
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 5})
		// The deadline holds without an answer, too.
		res, err := w.track(t.Context(), Options{Patience: -1, TrainTimeout: time.Hour})
		if err != nil || res.Stuck != 5 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestFatal(t *testing.T) {
	for _, e := range []*replycx.Error{
		{StatusCode: 401, Code: "JWT_SIGNATURE_EXCEPTION"},
		{StatusCode: 401},
		{StatusCode: 401, Code: "UNAUTHORIZED_FEATURE"},
		{StatusCode: 404, Code: "ACCOUNT_DETAILS_NOT_FOUND"},
		{StatusCode: 302},
		{StatusCode: 403},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 5, 1000)
			w.fails = func(int, []int64) error { return fmt.Errorf("source status: %w", e) }
			_, err := w.track(t.Context(), Options{})
			if fatal, ok := errors.AsType[*FatalError](err); !ok || !errors.Is(fatal, error(e)) || w.requests != 1 {
				t.Fatalf("%+v: got %v after %d requests", e, err, w.requests)
			}
			w.wantCounts(map[state.DocumentState]int{state.Training: 5})
		})
	}
}

// An id that the API answers with an error costs its neighbours nothing but time.
func TestPoisonedID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 150, 1000)
		w.status = trainsFor(time.Second)
		w.fails = func(_ int, ids []int64) error {
			if slices.Contains(ids, 1077) {
				return &replycx.Error{StatusCode: 400, Code: "BAD_REQUEST", FromAPI: true}
			}
			return nil
		}
		res, err := w.track(t.Context(), Options{})
		if err != nil || res.Completed != 149 || res.Stuck != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 1000)
		w.status = trainsFor(0)
		wake := make(chan struct{}, 1)
		type end struct {
			res Result
			err error
		}
		ended := make(chan end)
		go func() {
			res, err := w.track(t.Context(), Options{Wake: wake})
			ended <- end{res, err}
		}()
		time.Sleep(10*time.Minute + time.Second)
		w.add(30, 5000)
		wake <- struct{}{}
		time.Sleep(3 * time.Second)
		w.wantCounts(map[state.DocumentState]int{state.Completed: 30})
		w.add(10, 6000)
		close(wake)
		if got := <-ended; got.err != nil || got.res.Completed != 40 {
			t.Fatalf("%+v", got)
		}
	})
}

func TestDeadlineOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 1000)
		w.status = trainsFor(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_, err := w.track(ctx, Options{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(w.start) != 10*time.Minute {
			t.Fatalf("got %v after %v", err, time.Since(w.start))
		}
	})
}

func TestPollDelay(t *testing.T) {
	for polls, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		want *= time.Second
		if got := pollDelay(polls, 2*time.Second, time.Minute, 0); got != want {
			t.Errorf("after %d: %v, want %v", polls, got, want)
		}
		if got := pollDelay(polls, 2*time.Second, time.Minute, 0.5); got != want+want/10 {
			t.Errorf("after %d: %v, want %v", polls, got, want+want/10)
		}
	}
	if got := pollDelay(1_000_000, time.Second, time.Minute, 0); got != time.Minute {
		t.Errorf("after many: %v", got)
	}
}

func TestDecide(t *testing.T) {
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
		{name: "missing", misses: 2, want: state.InTraining},
		{name: "missing again", misses: 3, want: state.TrainingStuck},
		{name: "stuck and missing", misses: 1, stuck: true, want: state.TrainingStuck},
		{name: "stuck and back", word: "in-progress", stuck: true, want: state.InTraining},
	} {
		d := state.DueSource{ID: 7, CreatedAt: now.Add(-c.age), Stuck: c.stuck}
		p := decide(d, replycx.SourceStatus{Status: c.word}, c.word != "", c.misses, now, 2*time.Hour)
		if p.Outcome != c.want || p.SourceID != 7 || p.Seen != (c.word != "") || p.Status != string(c.word) {
			t.Errorf("%s: got %+v", c.name, p)
		}
	}
}
