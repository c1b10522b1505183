package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func (w *world) fill(n int) {
	for i := range n {
		w.tree.put(fmt.Sprintf("%04d.md", i), fmt.Sprintf("content %d", i))
	}
	w.scan()
}

// C1: a cut at each boundary, then a clean run: every content at least once, and more
// than once only where the request was sealed and the answer lost.
func TestC1CutAtEachBoundary(t *testing.T) {
	type cutter func(w *world, cut func())
	fail := errors.New("cut")
	for _, c := range []struct {
		name   string
		at     cutter
		sealed bool
	}{
		{name: "claimed", at: func(w *world, cut func()) {
			w.tree.broken = func(string) error { cut(); return nil }
		}},
		{name: "before the journal", at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, begin: func(context.Context, state.BatchSpec) (int64, error) { cut(); return 0, fail }}
			}
		}},
		{name: "journal written", at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, begin: func(ctx context.Context, spec state.BatchSpec) (int64, error) {
					id, err := j.Begin(ctx, spec)
					cut()
					return id, err
				}}
			}
		}},
		{name: "mid-body", at: func(w *world, cut func()) {
			w.service.set(func(_ int, contents []string) fault {
				if contents != nil {
					cut()
				}
				return fault{}
			})
		}},
		{name: "before the seal", at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, seal: func(context.Context, int64, []state.Seal) error { cut(); return fail }}
			}
		}},
		{name: "sealed, nothing sent", at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, seal: func(ctx context.Context, id int64, seals []state.Seal) error {
					err := j.Seal(ctx, id, seals)
					cut()
					return err
				}}
			}
		}},
		{name: "sealed, answer awaited", sealed: true, at: func(w *world, cut func()) {
			w.service.sealed = cut
			w.service.latency = time.Hour
		}},
		{name: "answer there, not recorded", sealed: true, at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, accept: func(context.Context, int64, state.Answer) (state.Receipt, error) { cut(); return state.Receipt{}, fail }}
			}
		}},
		{name: "answer recorded", at: func(w *world, cut func()) {
			w.around = func(j journal) journal {
				return hooks{journal: j, accept: func(ctx context.Context, id int64, a state.Answer) (state.Receipt, error) {
					receipt, err := j.Accept(ctx, id, a)
					cut()
					return receipt, err
				}}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.fill(30)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c.at(w, cancel)
				if _, err := w.run(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, fail) {
					t.Fatalf("got %v", err)
				}
				w.around, w.tree.broken, w.service.sealed, w.service.latency = nil, nil, nil, 0
				w.service.set(nil)
				uncertain, err := w.store.Journal.Recover(t.Context(), w.sync.ID)
				if err != nil {
					t.Fatal(err)
				}
				if c.sealed != (uncertain > 0) {
					t.Fatalf("%d batches uncertain", uncertain)
				}
				w.mustRun()
				listed := map[string]bool{}
				for _, d := range w.duplicates() {
					listed[d.Key] = true
				}
				for key, f := range w.tree.files {
					n := w.service.count(string(f.content))
					if n == 0 || n > 2 || n == 2 && !listed[key] {
						t.Errorf("%s: accepted %d times, listed %v", key, n, listed[key])
					}
					if !c.sealed && n != 1 {
						t.Errorf("%s: accepted %d times", key, n)
					}
				}
				w.wantCounts(map[state.DocumentState]int{state.Training: 30})
				w.check()
			})
		})
	}
}

// C3: what breaks before the seal is sent again and received once.
func TestC3BrokenBeforeTheSeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(200)
		reset := errors.New("connection reset by peer")
		w.service.set(func(post int, contents []string) fault {
			switch {
			case post%3 == 0 && contents == nil:
				return fault{at: "before", err: reset}
			case post%3 == 1 && post < 20 && contents != nil:
				return fault{at: "middle", err: &replycx.Error{StatusCode: 502}}
			}
			return fault{}
		})
		res := w.mustRun()
		if res.Uploaded != 200 || res.Incomplete() || len(w.duplicates()) != 0 {
			t.Fatalf("%+v, %d possible duplicates", res, len(w.duplicates()))
		}
		w.wantOnce()
		w.check()
	})
}

// C3: what breaks after the seal is uncertain; it halts the others, goes out once more
// after a minute, and is listed.
func TestC3LostAnswer(t *testing.T) {
	for name, lost := range map[string]error{
		"reset":     errors.New("connection reset by peer"),
		"stalled":   replycx.ErrStalled,
		"500":       apiError(500, "", "oops"),
		"502":       apiError(502, "", "bad gateway"),
		"504":       apiError(504, "", "timeout"),
		"bare 503":  apiError(503, "", "unavailable"),
		"empty":     &replycx.AnswerError{StatusCode: 200, Reason: "is empty"},
		"truncated": &replycx.AnswerError{StatusCode: 200, Reason: "is cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.opts.Transfers = 1
				w.fill(60)
				var lose []string
				w.service.set(func(post int, contents []string) fault {
					if post == 2 {
						lose = contents
						return fault{at: "lose", err: lost}
					}
					return fault{}
				})
				start := time.Now()
				res := w.mustRun()
				if res.Uploaded != 60 || res.Uncertain != 20 || res.Resent != 20 {
					t.Fatalf("%+v", res)
				}
				if time.Since(start) < time.Minute {
					t.Errorf("sent again after %v", time.Since(start))
				}
				if d := w.duplicates(); len(d) != 20 || d[0].ResentAs == 0 {
					t.Fatalf("possible duplicates: %+v", d)
				}
				for _, f := range w.tree.files {
					want := 1
					if slices.Contains(lose, string(f.content)) {
						want = 2
					}
					if n := w.service.count(string(f.content)); n != want {
						t.Errorf("%s: %d times, want %d", f.content, n, want)
					}
				}
				w.wantCounts(map[state.DocumentState]int{state.Training: 60})
				w.check()
			})
		})
	}
}

func TestUncertainIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.HoldUncertain, w.opts.Transfers = true, 1
		w.fill(25)
		w.service.set(func(post int, _ []string) fault {
			if post == 1 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		w.mustRun()
		time.Sleep(time.Hour)
		w.mustRun()
		w.wantCounts(map[state.DocumentState]int{state.Training: 5, state.Uncertain: 20})
	})
}

// A second loss holds what was sent again.
func TestUncertainIsSentAgainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(1)
		w.service.set(func(post int, _ []string) fault {
			if post <= 2 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		for range 5 {
			_, _ = w.run(t.Context())
			time.Sleep(time.Hour)
		}
		if w.service.posted() != 2 {
			t.Fatalf("sent %d times", w.service.posted())
		}
		w.wantCounts(map[state.DocumentState]int{state.Uncertain: 1})
	})
}

// What changed since its answer was lost is not sent again as it was.
func TestChangedSinceUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Transfers = 1
		w.fill(3)
		w.service.set(func(post int, _ []string) fault {
			if post == 1 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		w.opts.Patience = time.Millisecond
		w.mustRun()
		w.tree.put("0000.md", "edited") // seen by a scan
		w.scan()
		w.tree.put("0001.md", "edited too") // not yet
		time.Sleep(2 * time.Minute)
		w.opts.Patience = 0
		w.mustRun()
		w.scan()
		w.mustRun()
		if w.service.count("content 0") != 0 || w.service.count("content 1") != 0 || w.service.count("content 2") != 1 || w.service.count("edited") != 1 || w.service.count("edited too") != 1 {
			t.Fatalf("%v", w.service.accepted)
		}
		left := 0
		for _, d := range w.duplicates() {
			if d.LeftBehind {
				left++
			}
		}
		if left != 2 {
			t.Errorf("%d listed as possibly left behind: %+v", left, w.duplicates())
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 3})
		w.check()
	})
}

// What has other bytes than those whose answer was lost, its fingerprint the same, is
// not what was sent.
func TestOtherContentThanUncertain(t *testing.T) {
	for _, size := range []int{10, state.HashAhead + 10} { // hashed beforehand, and on the way
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.tree.put("a.txt", strings.Repeat("a", size))
			w.scan()
			w.service.set(func(post int, contents []string) fault {
				if post == 1 && contents != nil {
					w.tree.files["a.txt"].content = []byte(strings.Repeat("b", size))
					return fault{at: "lost", err: errors.New("EOF")}
				}
				return fault{}
			})
			res := w.mustRun()
			if res.Changed != 1 || res.Resent != 0 || res.Uploaded != 0 || w.service.accepted[w.document("a.txt").SHA256] != 0 {
				t.Fatalf("%+v", res)
			}
			w.check()
		})
	}
}

// An answer that names nothing, or another knowledge base, is no answer.
func TestDoubt(t *testing.T) {
	r := newRun(newWorld(t).ingest())
	some := map[string][]replycx.Source{"d1": {{ID: 1}}}
	for _, c := range []struct {
		result replycx.UploadResult
		want   bool
	}{
		{replycx.UploadResult{KnowledgeBaseID: knowledgeBase, Sources: some}, false},
		{replycx.UploadResult{Sources: some}, false},
		{replycx.UploadResult{KnowledgeBaseID: 12, Sources: some}, true},
		{replycx.UploadResult{KnowledgeBaseID: knowledgeBase}, true},
	} {
		if got := r.doubt(&c.result); (got != "") != c.want {
			t.Errorf("%+v: %q", c.result, got)
		}
	}
}

// A field that is missing from the answer makes that document uncertain, not the batch.
func TestFieldMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Patience = time.Second
		w.fill(20)
		w.service.set(func(post int, _ []string) fault { return fault{drop: 2} })
		res := w.mustRun()
		if res.Uploaded != 18 || res.Uncertain != 2 || res.Requests != 1 || !res.Incomplete() {
			t.Fatalf("%+v", res)
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 18, state.Uncertain: 2})
		w.service.set(nil)
		time.Sleep(time.Minute)
		if res := w.mustRun(); res.Resent != 2 {
			t.Fatalf("%+v", res)
		}
		w.check()
	})
}

// The API answering 500 to every upload while status requests work: at most twelve
// uploads a pass, the rest stays pending; when it is well, everything arrives.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(400)
		down := func(int, []string) fault { return fault{at: "refuse", err: apiError(500, "", "oops")} }
		w.service.set(down)
		res, err := w.run(t.Context())
		outage, ok := errors.AsType[*OutageError](err)
		if !ok || outage.Streak < 3 || !strings.Contains(err.Error(), "500") {
			t.Fatalf("got %v", err)
		}
		if res.Requests > 12 || res.Deferred == 0 || res.Uploaded != 0 {
			t.Fatalf("%+v", res)
		}
		for range 3 { // each further pass tries one batch of one document
			time.Sleep(time.Hour)
			before := w.service.posted()
			if _, err := w.run(t.Context()); err == nil || w.service.posted() != before+1 {
				t.Fatalf("%d uploads, %v", w.service.posted()-before, err)
			}
		}
		w.service.set(nil)
		time.Sleep(time.Hour)
		for range 3 {
			w.mustRun()
			time.Sleep(time.Hour)
		}
		held := 0
		for _, d := range w.duplicates() {
			if d.ResentAs == 0 {
				held++
			}
		}
		counts := w.counts()
		if counts[state.Pending] != 0 || counts[state.Training]+counts[state.Uncertain] != 400 || counts[state.Uncertain] > 3 {
			t.Fatalf("%v, %d held", counts, held)
		}
		w.check()
	})
}

// A lost answer opens the breaker; after a well-formed status answer one document is
// tried alone, and then the others go on.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Transfers = 1
		w.fill(200)
		sizes := map[int]int{}
		w.service.set(func(post int, contents []string) fault {
			if contents != nil {
				sizes[post] = len(contents)
			}
			if post == 4 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		w.service.status = func(ask int) error {
			if ask <= 3 {
				return apiError(502, "", "bad gateway")
			}
			return nil
		}
		res := w.mustRun()
		if res.Uploaded != 200 || res.Uncertain != 20 || res.Resent != 20 {
			t.Fatalf("%+v", res)
		}
		if sizes[5] != 1 || sizes[6] != 20 || w.service.asks != 4 {
			t.Fatalf("batches of %v; %d status requests", sizes, w.service.asks)
		}
		w.wantOnce()
		w.check()
	})
}

// While the breaker is open nothing is sealed, transfers in flight included.
func TestBreakerHoldsTransfersInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Transfers, w.opts.Documents, w.opts.BytesPerSecond = 2, 1, 100_000
		w.tree.put("a-small.md", "small")
		w.tree.put("b-large.md", strings.Repeat("x", 1_000_000)) // takes ten seconds
		w.scan()
		w.service.set(func(post int, contents []string) fault {
			if slices.Contains(contents, "small") && post <= 2 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		var asked time.Duration
		start := time.Now()
		w.service.status = func(int) error {
			asked = time.Since(start)
			return nil
		}
		res := w.mustRun()
		if res.Uploaded != 2 || res.Requests != 4 || asked > 5*time.Second {
			t.Fatalf("%+v, asked after %v", res, asked)
		}
		w.check()
	})
}

func TestNoAnswerAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.Transfers = 1
		w.fill(40)
		w.service.set(func(post int, _ []string) fault { return fault{at: "lost", err: errors.New("EOF")} })
		w.service.status = func(int) error { return errors.New("connection refused") }
		start := time.Now()
		res, err := w.run(t.Context())
		if _, ok := errors.AsType[*OutageError](err); !ok || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
		if res.Requests != 1 || time.Since(start) > 2*time.Minute || res.Deferred != 20 {
			t.Fatalf("%+v after %v", res, time.Since(start))
		}
	})
}

// C4: a Retry-After is honoured by all workers, and capped.
func TestC4RetryAfter(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   *replycx.Error
		after time.Duration // the next request comes then; 0: not in this run
	}{
		{name: "429", err: &replycx.Error{StatusCode: 429, RetryAfter: 30 * time.Second}, after: 30 * time.Second},
		{name: "503", err: &replycx.Error{StatusCode: 503, RetryAfter: 30 * time.Second}, after: 30 * time.Second},
		{name: "absurd", err: &replycx.Error{StatusCode: 429, RetryAfter: 1 << 62}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.fill(200)
				start := time.Now()
				var refused atomic.Int64
				var early atomic.Int64
				w.service.set(func(post int, contents []string) fault {
					switch {
					case post == 1 && contents != nil:
						refused.Store(int64(time.Since(start)))
						return fault{at: "refuse", err: c.err}
					case contents == nil && refused.Load() > 0 && time.Since(start) < time.Duration(refused.Load())+max(c.after, time.Minute/4):
						early.Add(1)
					}
					return fault{}
				})
				res := w.mustRun()
				if early.Load() > 0 {
					t.Errorf("%d requests while the API asked to wait", early.Load())
				}
				if c.after == 0 {
					if !res.Incomplete() || time.Since(start) > time.Minute {
						t.Fatalf("%+v after %v", res, time.Since(start))
					}
					_, until, err := w.store.Journal.Breaker(t.Context(), w.sync.Destination.ID)
					if err != nil || time.Until(until) > 15*time.Minute || time.Until(until) < 14*time.Minute {
						t.Fatalf("paused for %v, %v", time.Until(until), err)
					}
					time.Sleep(15 * time.Minute)
					res = w.mustRun()
				}
				if res.Incomplete() {
					t.Fatalf("%+v", res)
				}
				w.wantOnce()
				w.check()
			})
		})
	}
}

func TestHopeless(t *testing.T) {
	const patience = time.Minute
	now := time.Now()
	for _, c := range []struct {
		name     string
		progress time.Duration // ago
		held     time.Duration // from now on
		busy     int
		want     bool
	}{
		{name: "all is well", progress: time.Hour},
		{name: "held for a while", progress: 10 * time.Second, held: 20 * time.Second, busy: 1},
		{name: "held for longer", progress: 10 * time.Second, held: 55 * time.Second, busy: 1, want: true},
		{name: "was held", progress: time.Hour, held: -time.Second, busy: 1},
		{name: "two failures", progress: time.Hour, busy: 2},
		{name: "three failures", progress: time.Hour, busy: 3, want: true},
		{name: "three failures just now", progress: time.Second, busy: 3},
	} {
		r := newRun(&Ingest{opts: Options{Patience: patience, Checkers: 1, Transfers: 1}})
		r.progress, r.heldUntil, r.busy = now.Add(-c.progress), now.Add(c.held), c.busy
		if got := r.hopeless(); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

// C4: 503 for ten minutes: the backlog is bounded, and drains without duplicates.
func TestC4UnavailableForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(2000)
		start := time.Now()
		w.service.set(func(post int, _ []string) fault {
			if time.Since(start) < 10*time.Minute {
				return fault{at: "refuse", err: apiError(503, "UNAVAILABLE", "later")}
			}
			return fault{}
		})
		runs := 0
		for {
			res := w.mustRun()
			if runs++; !res.Incomplete() {
				break
			}
			if runs > 40 {
				t.Fatalf("%+v", res)
			}
			time.Sleep(time.Minute)
		}
		if w.service.posted() > 100+10*60 {
			t.Errorf("%d requests", w.service.posted())
		}
		w.wantOnce()
		w.wantCounts(map[state.DocumentState]int{state.Training: 2000})
		w.check()
	})
}

// C5: fatal answers stop the sync and fail nothing; with the right token all arrives.
func TestC5Fatal(t *testing.T) {
	for _, e := range []error{
		apiError(401, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token"),
		apiError(401, "UNAUTHORIZED_FEATURE", "Please reach out"),
		apiError(404, "KNOWLEDGE_BASE_NOT_FOUND", "not found"),
		apiError(400, "BAD_REQUEST", "Knowledge base does not belong to the account(876)"),
		apiError(301, "", "moved"),
	} {
		for _, at := range []string{"refuse", "middle"} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.fill(200)
				w.service.set(func(int, []string) fault { return fault{at: at, err: e} })
				res, err := w.run(t.Context())
				fatal, ok := errors.AsType[*FatalError](err)
				if !ok || !errors.Is(fatal, e) {
					t.Fatalf("got %v", err)
				}
				if res.Failed != 0 || res.Uncertain != 0 || res.Requests > w.ingest().opts.Transfers {
					t.Fatalf("%+v", res)
				}
				w.wantCounts(map[state.DocumentState]int{state.Pending: 200})
				w.service.set(nil)
				w.mustRun()
				w.wantOnce()
				w.wantCounts(map[state.DocumentState]int{state.Training: 200})
				w.check()
			})
		}
	}
}

// C5: one refused among fifty: 49 done, one failed with the server's words.
func TestC5OneRefusedAmongFifty(t *testing.T) {
	for _, at := range []string{"refuse", "middle"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			w.opts.Documents = 50
			w.fill(50)
			w.service.set(func(_ int, contents []string) fault {
				if slices.Contains(contents, "content 17") {
					return fault{at: at, err: apiError(400, "BAD_REQUEST", "I do not like 17")}
				}
				return fault{}
			})
			res := w.mustRun()
			if res.Uploaded != 49 || res.Failed != 1 || len(res.Failures) != 1 || res.Failures[0].Key != "0017.md" || res.Failures[0].Reason != "I do not like 17" {
				t.Fatalf("%+v", res)
			}
			if d := w.document("0017.md"); d.State != state.Failed || d.Reason != "I do not like 17" {
				t.Fatalf("%+v", d)
			}
			w.wantCounts(map[state.DocumentState]int{state.Training: 49, state.Failed: 1})
			before := w.service.posted()
			if w.scan(); w.mustRun().Requests != 0 || w.service.posted() != before {
				t.Fatal("sent again")
			}
			delete(w.tree.files, "0017.md")
			w.wantOnce()
			w.check()
		})
	}
}

func TestRefusedIsHeld(t *testing.T) {
	w := newWorld(t)
	w.opts.HoldRefused = true
	w.fill(40)
	w.service.set(func(_ int, contents []string) fault {
		if slices.Contains(contents, "content 17") {
			return fault{at: "refuse", err: apiError(422, "", "no")}
		}
		return fault{}
	})
	if res := w.mustRun(); res.Uploaded != 20 || res.Failed != 20 || res.Requests != 2 {
		t.Fatalf("%+v", res)
	}
}

// C5: 413 halves, and later batches stay below what was refused.
func TestC5TooLarge(t *testing.T) {
	w := newWorld(t)
	w.opts.Transfers = 1
	for i := range 100 {
		w.tree.put(fmt.Sprintf("%03d.md", i), fmt.Sprintf("%0100d", i))
	}
	w.tree.put("big.md", strings.Repeat("x", 1000))
	w.scan()
	refused, largest := 0, 0
	w.service.set(func(_ int, contents []string) fault {
		total := 0
		for _, c := range contents {
			total += len(c)
		}
		largest = max(largest, total)
		if total > 550 {
			refused++
			return fault{at: "middle", err: apiError(413, "", "Request Entity Too Large")}
		}
		return fault{}
	})
	res := w.mustRun()
	if res.Uploaded != 100 || res.Failed != 1 || refused > 8 {
		t.Fatalf("%+v, %d refused", res, refused)
	}
	if d := w.document("big.md"); d.State != state.Failed {
		t.Fatalf("%+v", d)
	}
	w.check()
	for i := range 20 {
		w.tree.put(fmt.Sprintf("more%03d.md", i), fmt.Sprintf("more %0100d", i))
	}
	w.scan()
	largest = 0
	_, smallest, err := w.store.Journal.Limits(t.Context(), w.sync.Destination.ID)
	if err != nil || smallest <= 550 || smallest > 1000 {
		t.Fatalf("smallest refused: %d, %v", smallest, err)
	}
	if res := w.mustRun(); res.Uploaded != 20 || largest >= int(smallest) {
		t.Fatalf("%+v, a request of %d bytes although %d were refused", res, largest, smallest)
	}
}

// Many documents that are larger than anything the API takes say nothing of a quota.
func TestManyTooLarge(t *testing.T) {
	w := newWorld(t)
	w.opts.Transfers = 1
	for i := range 15 {
		w.tree.put(fmt.Sprintf("big%02d.md", i), fmt.Sprintf("%01000d", i))
		w.tree.put(fmt.Sprintf("a%02d.md", i), fmt.Sprint(i))
	}
	w.scan()
	w.service.set(func(_ int, contents []string) fault {
		for _, c := range contents {
			if len(c) > 500 {
				return fault{at: "middle", err: apiError(413, "", "Request Entity Too Large")}
			}
		}
		return fault{}
	})
	if res := w.mustRun(); res.Uploaded != 15 || res.Failed != 15 {
		t.Fatalf("%+v", res)
	}
}

// Ten single documents refused in a row are no fault of theirs.
func TestQuota(t *testing.T) {
	for _, transfers := range []int{1, 4} {
		w := newWorld(t)
		w.opts.Transfers = transfers
		w.fill(100)
		w.service.set(func(post int, _ []string) fault {
			if post > 2 {
				return fault{at: "refuse", err: apiError(400, "QUOTA", "no more sources")}
			}
			return fault{}
		})
		res, err := w.run(t.Context())
		quota, ok := errors.AsType[*QuotaError](err)
		if !ok || quota.Documents != 10 || quota.Code != "QUOTA" || !strings.Contains(err.Error(), "no more sources") {
			t.Fatalf("got %v", err)
		}
		if res.Uploaded != 40 || res.Failed != 0 || len(res.Failures) != 0 || res.Deferred != 60 {
			t.Fatalf("%+v", res)
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 40, state.Pending: 60})
		w.check()
		w.service.set(nil)
		w.mustRun()
		w.wantOnce()
		w.wantCounts(map[state.DocumentState]int{state.Training: 100})
	}
}

// An accepted document between them, or another code, starts the count anew.
func TestRefusalsThatAreNoQuota(t *testing.T) {
	w := newWorld(t)
	w.opts.Transfers, w.opts.Documents = 1, 1
	w.fill(60)
	w.service.set(func(post int, _ []string) fault {
		switch {
		case post%20 < 9:
			return fault{at: "refuse", err: apiError(400, "ONE", "no")}
		case post%20 < 18:
			return fault{at: "refuse", err: apiError(422, "OTHER", "no")}
		}
		return fault{}
	})
	if res := w.mustRun(); res.Failed+res.Uploaded != 60 || res.Uploaded != 6 {
		t.Fatalf("%+v", res)
	}
	w = newWorld(t)
	w.opts.Transfers, w.opts.Documents = 1, 1
	w.fill(60)
	w.service.set(func(post int, _ []string) fault {
		if post%10 == 0 {
			return fault{}
		}
		return fault{at: "refuse", err: apiError(400, "ONE", "no")}
	})
	if res := w.mustRun(); res.Failed != 54 || res.Uploaded != 6 {
		t.Fatalf("%+v", res)
	}
}

// C7: what cannot be recorded is not sent.
func TestC7JournalCannotBeWritten(t *testing.T) {
	full := errors.New("disk full")
	for _, step := range []string{"begin", "seal"} {
		w := newWorld(t)
		w.fill(100)
		w.around = func(j journal) journal {
			h := hooks{journal: j}
			if step == "begin" {
				h.begin = func(context.Context, state.BatchSpec) (int64, error) { return 0, full }
			} else {
				h.seal = func(context.Context, int64, []state.Seal) error { return full }
			}
			return h
		}
		if _, err := w.run(t.Context()); !errors.Is(err, full) {
			t.Fatalf("%s: got %v", step, err)
		}
		if len(w.service.accepted) != 0 {
			t.Fatalf("%s: something was accepted", step)
		}
		w.wantCounts(map[state.DocumentState]int{state.Pending: 100})
		w.around = nil
		w.mustRun()
		w.wantOnce()
	}
}

// C7: nothing accepted goes unrecorded: an answer is written again and again.
func TestC7AnswerCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(100)
		start := time.Now()
		var failures atomic.Int64
		w.around = func(j journal) journal {
			return hooks{journal: j, accept: func(ctx context.Context, id int64, a state.Answer) (state.Receipt, error) {
				if time.Since(start) < 10*time.Minute {
					failures.Add(1)
					return state.Receipt{}, errors.New("disk full")
				}
				return j.Accept(ctx, id, a)
			}}
		}
		w.mustRun()
		if failures.Load() < 20 || failures.Load() > 2000 {
			t.Errorf("tried %d times", failures.Load())
		}
		w.wantOnce()
		w.wantCounts(map[state.DocumentState]int{state.Training: 100})
	})
}

// C10: a soft stop waits for the answers of what is sealed, and seals nothing more; a
// hard one cuts, and is equal to a kill.
func TestC10Stop(t *testing.T) {
	for _, hard := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.fill(400)
			w.service.latency = 10 * time.Second
			stop := make(chan struct{})
			w.opts.Stop = stop
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(15*time.Second, func() { close(stop) })
			if hard {
				time.AfterFunc(16*time.Second, cancel)
			}
			start := time.Now()
			res, err := w.run(ctx)
			took := time.Since(start)
			if !errors.Is(err, ErrStopped) {
				t.Fatalf("got %v", err)
			}
			if !hard {
				if took != 20*time.Second || res.Uploaded != 160 || res.Uncertain != 0 {
					t.Fatalf("after %v: %+v", took, res)
				}
				w.wantCounts(map[state.DocumentState]int{state.Training: 160, state.Pending: 240})
				w.check()
				return
			}
			if took != 16*time.Second || res.Uploaded != 80 {
				t.Fatalf("after %v: %+v", took, res)
			}
			n, err := w.store.Journal.Recover(t.Context(), w.sync.ID)
			if err != nil || n != 4 {
				t.Fatalf("%d batches uncertain, %v", n, err)
			}
			w.wantCounts(map[state.DocumentState]int{state.Training: 80, state.Uncertain: 80, state.Pending: 240})
			w.check()
		})
	}
}

// C10: a stop that comes while a request is being sealed still keeps its end back.
func TestC10StopWhileSealing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(10)
		stop := make(chan struct{})
		w.opts.Stop = stop
		w.around = func(j journal) journal {
			return hooks{journal: j, seal: func(ctx context.Context, id int64, seals []state.Seal) error {
				err := j.Seal(ctx, id, seals)
				close(stop)
				synctest.Wait()
				return err
			}}
		}
		if _, err := w.run(t.Context()); !errors.Is(err, ErrStopped) {
			t.Fatalf("got %v", err)
		}
		if len(w.service.accepted) != 0 {
			t.Fatal("sent although the stop had come")
		}
		w.wantCounts(map[state.DocumentState]int{state.Pending: 10})
		w.check()
	})
}

// C10: what is still being sent when the stop comes is given up at once.
func TestC10StopWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.BytesPerSecond = 10_000
		w.tree.put("large.bin", strings.Repeat("x", 1_000_000))
		w.scan()
		stop := make(chan struct{})
		w.opts.Stop = stop
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { close(stop) })
		if _, err := w.run(t.Context()); !errors.Is(err, ErrStopped) || time.Since(start) > 20*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		w.wantCounts(map[state.DocumentState]int{state.Pending: 1})
	})
}

// C11: the API's host is down for an hour while the documents change twice: only the
// last version of each is sent.
func TestC11DownForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.service.set(func(int, []string) fault { return fault{at: "before", err: errors.New("connection refused")} })
		w.service.status = func(int) error { return errors.New("connection refused") }
		for version := range 3 {
			for i := range 500 {
				w.tree.put(fmt.Sprintf("%04d.md", i), fmt.Sprintf("content %d version %d", i, version))
			}
			w.scan()
			for range 4 {
				start := time.Now()
				res := w.mustRun()
				if took := time.Since(start); took > 2*time.Minute {
					t.Errorf("a run without progress took %v", took)
				}
				if res.Uploaded != 0 || !res.Incomplete() || !strings.Contains(res.Why, "connection refused") {
					t.Fatalf("%+v", res)
				}
				time.Sleep(5 * time.Minute)
			}
		}
		w.service.set(nil)
		for range 3 {
			w.mustRun()
			time.Sleep(5 * time.Minute)
		}
		w.wantOnce()
		if len(w.service.accepted) != 500 {
			t.Fatalf("%d contents accepted", len(w.service.accepted))
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 500})
		w.check()
	})
}
