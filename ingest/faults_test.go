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

func (fx *fixture) fill(n int) {
	for i := range n {
		fx.tree.put(fmt.Sprintf("%04d.md", i), fmt.Sprintf("content %d", i))
	}
	fx.scan()
}

// A run that is cut at each boundary and then repeated uploads every content at least once, and twice only if the request
// was sealed and the answer lost.
func TestCutAtEachBoundaryLosesNothing(t *testing.T) {
	type cutter func(fx *fixture, cut func())
	fail := errors.New("cut")
	for _, c := range []struct {
		name   string
		at     cutter
		sealed bool
	}{
		{name: "claimed", at: func(fx *fixture, cut func()) {
			fx.tree.broken = func(string) error { cut(); return nil }
		}},
		{name: "before the journal", at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, begin: func(context.Context, state.BatchSpec) (*state.Upload, error) { cut(); return nil, fail }}
			}
		}},
		{name: "journal written", at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, begin: func(ctx context.Context, spec state.BatchSpec) (*state.Upload, error) {
					id, err := j.Begin(ctx, spec)
					cut()
					return id, err
				}}
			}
		}},
		{name: "mid-body", at: func(fx *fixture, cut func()) {
			fx.service.set(func(_ int, contents []string) fault {
				if contents != nil {
					cut()
				}
				return fault{}
			})
		}},
		{name: "before the seal", at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, seal: func(context.Context, *state.Upload, []state.Seal) error { cut(); return fail }}
			}
		}},
		{name: "sealed, nothing sent", at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, seal: func(ctx context.Context, id *state.Upload, seals []state.Seal) error {
					err := j.Seal(ctx, id, seals)
					cut()
					return err
				}}
			}
		}},
		{name: "sealed, answer awaited", sealed: true, at: func(fx *fixture, cut func()) {
			fx.service.sealed = cut
			fx.service.latency = time.Hour
		}},
		{name: "answer there, not recorded", sealed: true, at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, accept: func(context.Context, *state.Upload, state.Answer) (state.Receipt, error) {
					cut()
					return state.Receipt{}, fail
				}}
			}
		}},
		{name: "answer recorded", at: func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, accept: func(ctx context.Context, id *state.Upload, a state.Answer) (state.Receipt, error) {
					receipt, err := j.Accept(ctx, id, a)
					cut()
					return receipt, err
				}}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t)
				fx.fill(30)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c.at(fx, cancel)
				if _, err := fx.run(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, fail) {
					t.Fatalf("got %v", err)
				}
				fx.around, fx.tree.broken, fx.service.sealed, fx.service.latency = nil, nil, nil, 0
				fx.service.set(nil)
				uncertain, err := fx.store.Journal.Recover(t.Context(), fx.sync.ID)
				if err != nil {
					t.Fatal(err)
				}
				if c.sealed != (uncertain > 0) {
					t.Fatalf("%d batches uncertain", uncertain)
				}
				fx.mustRun()
				listed := map[string]bool{}
				for _, d := range fx.duplicates() {
					listed[d.Key] = true
				}
				for key, f := range fx.tree.files {
					n := fx.service.count(string(f.content))
					if n == 0 || n > 2 || n == 2 && !listed[key] {
						t.Errorf("%s: accepted %d times, listed %v", key, n, listed[key])
					}
					if !c.sealed && n != 1 {
						t.Errorf("%s: accepted %d times", key, n)
					}
				}
				fx.wantCounts(map[state.DocumentState]int{state.Training: 30})
				fx.check()
			})
		})
	}
}

func TestRequestBrokenBeforeTheSealIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(200)
		reset := errors.New("connection reset by peer")
		fx.service.set(func(post int, contents []string) fault {
			switch {
			case post%3 == 0 && contents == nil:
				return fault{at: "before", err: reset}
			case post%3 == 1 && post < 20 && contents != nil:
				return fault{at: "middle", err: &replycx.Error{StatusCode: 502}}
			}
			return fault{}
		})
		res := fx.mustRun()
		if res.Uploaded != 200 || res.Incomplete() || len(fx.duplicates()) != 0 {
			t.Fatalf("%+v, %d possible duplicates", res, len(fx.duplicates()))
		}
		fx.wantOnce()
		fx.check()
	})
}

// A request that breaks after the seal makes its documents uncertain and halts the others. They are resent once after a
// minute, and listed as possible duplicates.
func TestLostAnswerIsResentOnceAndListed(t *testing.T) {
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
				fx := newFixture(t)
				fx.opts.Transfers = 1
				fx.fill(60)
				var lose []string
				fx.service.set(func(post int, contents []string) fault {
					if post == 2 {
						lose = contents
						return fault{at: "lose", err: lost}
					}
					return fault{}
				})
				start := time.Now()
				res := fx.mustRun()
				if res.Uploaded != 60 || res.Uncertain != 20 || res.Resent != 20 {
					t.Fatalf("%+v", res)
				}
				if time.Since(start) < time.Minute {
					t.Errorf("sent again after %v", time.Since(start))
				}
				if d := fx.duplicates(); len(d) != 20 || d[0].ResentAs == 0 {
					t.Fatalf("possible duplicates: %+v", d)
				}
				for _, f := range fx.tree.files {
					want := 1
					if slices.Contains(lose, string(f.content)) {
						want = 2
					}
					if n := fx.service.count(string(f.content)); n != want {
						t.Errorf("%s: %d times, want %d", f.content, n, want)
					}
				}
				fx.wantCounts(map[state.DocumentState]int{state.Training: 60})
				fx.check()
			})
		})
	}
}

func TestHoldUncertainNeverResends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.HoldUncertain, fx.opts.Transfers = true, 1
		fx.fill(25)
		fx.service.set(func(post int, _ []string) fault {
			if post == 1 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		fx.mustRun()
		time.Sleep(time.Hour)
		fx.mustRun()
		fx.wantCounts(map[state.DocumentState]int{state.Training: 5, state.Uncertain: 20})
	})
}

func TestUncertainDocumentIsResentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(1)
		fx.service.set(func(post int, _ []string) fault {
			if post <= 2 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		for range 5 {
			_, _ = fx.run(t.Context())
			time.Sleep(time.Hour)
		}
		if fx.service.posted() != 2 {
			t.Fatalf("sent %d times", fx.service.posted())
		}
		fx.wantCounts(map[state.DocumentState]int{state.Uncertain: 1})
	})
}

func TestDocumentChangedSinceItsLostAnswerIsNotResent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Transfers = 1
		fx.fill(3)
		fx.service.set(func(post int, _ []string) fault {
			if post == 1 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		fx.opts.Patience = time.Millisecond
		fx.mustRun()
		fx.tree.put("0000.md", "edited") // seen by a scan
		fx.scan()
		fx.tree.put("0001.md", "edited too") // not yet
		time.Sleep(2 * time.Minute)
		fx.opts.Patience = 0
		fx.mustRun()
		fx.scan()
		fx.mustRun()
		if fx.service.count("content 0") != 0 || fx.service.count("content 1") != 0 || fx.service.count("content 2") != 1 || fx.service.count("edited") != 1 || fx.service.count("edited too") != 1 {
			t.Fatalf("%v", fx.service.accepted)
		}
		left := 0
		for _, d := range fx.duplicates() {
			if d.LeftBehind {
				left++
			}
		}
		if left != 2 {
			t.Errorf("%d listed as possibly left behind: %+v", left, fx.duplicates())
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 3})
		fx.check()
	})
}

// loseFirstAnswer loses the answer to the first request, and calls then when that has arrived.
func (fx *fixture) loseFirstAnswer(then func()) {
	fx.service.set(func(post int, contents []string) fault {
		if post == 1 && contents != nil {
			then()
			return fault{at: "lost", err: errors.New("EOF")}
		}
		return fault{}
	})
}

// A document that cannot be read when it is to be resent is read again some seconds later.
func TestUncertainDocumentThatCannotBeReadIsResentLater(t *testing.T) {
	for _, size := range []int{10, state.HashAhead + 10} { // read before the request, and on the way
		synctest.Test(t, func(t *testing.T) {
			fx := newFixture(t)
			fx.tree.put("a.txt", strings.Repeat("a", size))
			fx.scan()
			fx.loseFirstAnswer(func() {
				broken := false
				fx.tree.broken = func(string) error {
					if broken {
						return nil
					}
					broken = true
					return errors.New("input/output error")
				}
			})
			start := time.Now()
			res := fx.mustRun()
			if res.Unreadable != 1 || res.Changed != 0 || res.Resent != 1 || time.Since(start) > 2*time.Minute {
				t.Fatalf("after %v: %+v", time.Since(start), res)
			}
			fx.wantCounts(map[state.DocumentState]int{state.Training: 1})
			fx.check()
		})
	}
}

// A document is not resent if it has other bytes than the uncertain content, even under the same fingerprint.
func TestUncertainDocumentWithOtherBytesIsNotResent(t *testing.T) {
	for _, size := range []int{10, state.HashAhead + 10} { // hashed beforehand, and on the way
		synctest.Test(t, func(t *testing.T) {
			fx := newFixture(t)
			fx.tree.put("a.txt", strings.Repeat("a", size))
			fx.scan()
			fx.loseFirstAnswer(func() { fx.tree.files["a.txt"].content = []byte(strings.Repeat("b", size)) })
			res := fx.mustRun()
			if res.Changed != 1 || res.Resent != 0 || res.Uploaded != 0 || fx.service.accepted[fx.document("a.txt").SHA256] != 0 {
				t.Fatalf("%+v", res)
			}
			fx.check()
		})
	}
}

// The answer of another knowledge base proves nothing, but its sources are in the inventory.
func TestAnswerOfAnotherKnowledgeBaseIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Patience = time.Second
		fx.fill(3)
		fx.service.set(func(int, []string) fault { return fault{knowledgeBase: 12} })
		if res, _ := fx.run(t.Context()); res.Uploaded != 0 || res.Uncertain != 3 {
			t.Fatalf("%+v", res)
		}
		foreign := 0
		for source, err := range fx.store.Inventory.Sources(t.Context(), state.SourceFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if source.Destination.KnowledgeBase == 12 && source.Standing == state.Orphaned {
				foreign++
			}
		}
		if foreign != 3 {
			t.Fatalf("%d sources of the other knowledge base are in the inventory", foreign)
		}
	})
}

// An answer that repeats the ids of an earlier one completes no document.
func TestAnswerWithKnownIDsIsUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(3)
		fx.mustRun()
		fx.opts.Patience = time.Second
		fx.tree.put("new.md", "new")
		fx.scan()
		fx.service.set(func(int, []string) fault { return fault{knownIDs: true} })
		if res, _ := fx.run(t.Context()); res.Uploaded != 0 || res.Uncertain != 1 {
			t.Fatalf("%+v", res)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 3, state.Uncertain: 1})
	})
}

func TestFieldMissingFromTheAnswerMakesOnlyItsDocumentUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Patience = time.Second
		fx.fill(20)
		fx.service.set(func(post int, _ []string) fault { return fault{drop: 2} })
		res := fx.mustRun()
		if res.Uploaded != 18 || res.Uncertain != 2 || res.Requests != 1 || !res.Incomplete() {
			t.Fatalf("%+v", res)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 18, state.Uncertain: 2})
		fx.service.set(nil)
		time.Sleep(time.Minute)
		if res := fx.mustRun(); res.Resent != 2 {
			t.Fatalf("%+v", res)
		}
		fx.check()
	})
}

// If the API answers 500 to every upload but answers status requests, a pass sends at most twelve uploads and the other
// documents stay pending. After the outage every document is uploaded.
func TestOutageEndsTheRunWithFewUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(400)
		down := func(int, []string) fault { return fault{at: "refuse", err: apiError(500, "", "oops")} }
		fx.service.set(down)
		res, err := fx.run(t.Context())
		outage, ok := errors.AsType[*OutageError](err)
		if !ok || outage.Streak < 3 || !strings.Contains(err.Error(), "500") {
			t.Fatalf("got %v", err)
		}
		if res.Requests > 12 || res.Deferred == 0 || res.Uploaded != 0 {
			t.Fatalf("%+v", res)
		}
		for range 3 { // each further pass tries one batch of one document
			time.Sleep(time.Hour)
			before := fx.service.posted()
			if _, err := fx.run(t.Context()); err == nil || fx.service.posted() != before+1 {
				t.Fatalf("%d uploads, %v", fx.service.posted()-before, err)
			}
		}
		fx.service.set(nil)
		time.Sleep(time.Hour)
		for range 3 {
			fx.mustRun()
			time.Sleep(time.Hour)
		}
		held := 0
		for _, d := range fx.duplicates() {
			if d.ResentAs == 0 {
				held++
			}
		}
		counts := fx.counts()
		if counts[state.Pending] != 0 || counts[state.Training]+counts[state.Uncertain] != 400 || counts[state.Uncertain] > 3 {
			t.Fatalf("%v, %d held", counts, held)
		}
		fx.check()
	})
}

// A lost answer opens the breaker. After an answered status request the run sends one document alone, and then the others.
func TestBreakerProbeComesBeforeTheOtherUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Transfers = 1
		fx.fill(200)
		sizes := map[int]int{}
		fx.service.set(func(post int, contents []string) fault {
			if contents != nil {
				sizes[post] = len(contents)
			}
			if post == 4 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		fx.service.status = func(ask int) error {
			if ask <= 3 {
				return apiError(502, "", "bad gateway")
			}
			return nil
		}
		res := fx.mustRun()
		if res.Uploaded != 200 || res.Uncertain != 20 || res.Resent != 20 {
			t.Fatalf("%+v", res)
		}
		if sizes[5] != 1 || sizes[6] != 20 || fx.service.asks != 4 {
			t.Fatalf("batches of %v; %d status requests", sizes, fx.service.asks)
		}
		fx.wantOnce()
		fx.check()
	})
}

func TestOpenBreakerKeepsTransfersInFlightFromBeingSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Transfers, fx.opts.Documents, fx.opts.BytesPerSecond = 2, 1, 100_000
		fx.tree.put("a-small.md", "small")
		fx.tree.put("b-large.md", strings.Repeat("x", 1_000_000)) // takes ten seconds
		fx.scan()
		fx.service.set(func(post int, contents []string) fault {
			if slices.Contains(contents, "small") && post <= 2 {
				return fault{at: "lost", err: errors.New("EOF")}
			}
			return fault{}
		})
		var asked time.Duration
		start := time.Now()
		fx.service.status = func(int) error {
			asked = time.Since(start)
			return nil
		}
		res := fx.mustRun()
		if res.Uploaded != 2 || res.Requests != 4 || asked > 5*time.Second {
			t.Fatalf("%+v, asked after %v", res, asked)
		}
		fx.check()
	})
}

func TestRunEndsWithinItsPatienceIfTheAPIDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Transfers = 1
		fx.fill(40)
		fx.service.set(func(post int, _ []string) fault { return fault{at: "lost", err: errors.New("EOF")} })
		fx.service.status = func(int) error { return errors.New("connection refused") }
		start := time.Now()
		res, err := fx.run(t.Context())
		if _, ok := errors.AsType[*OutageError](err); !ok || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
		if res.Requests != 1 || time.Since(start) > 2*time.Minute || res.Deferred != 20 {
			t.Fatalf("%+v after %v", res, time.Since(start))
		}
	})
}

func TestRetryAfterHoldsAllWorkersAndIsCapped(t *testing.T) {
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
				fx := newFixture(t)
				fx.fill(200)
				start := time.Now()
				var refused atomic.Int64
				var early atomic.Int64
				fx.service.set(func(post int, contents []string) fault {
					switch {
					case post == 1 && contents != nil:
						refused.Store(int64(time.Since(start)))
						return fault{at: "refuse", err: c.err}
					case contents == nil && refused.Load() > 0 && time.Since(start) < time.Duration(refused.Load())+max(c.after, time.Minute/4):
						early.Add(1)
					}
					return fault{}
				})
				res := fx.mustRun()
				if early.Load() > 0 {
					t.Errorf("%d requests while the API asked to wait", early.Load())
				}
				if c.after == 0 {
					if !res.Incomplete() || time.Since(start) > time.Minute {
						t.Fatalf("%+v after %v", res, time.Since(start))
					}
					_, until, err := fx.store.Journal.Breaker(t.Context(), fx.sync.Destination.ID)
					if err != nil || time.Until(until) > 15*time.Minute || time.Until(until) < 14*time.Minute {
						t.Fatalf("paused for %v, %v", time.Until(until), err)
					}
					time.Sleep(15 * time.Minute)
					res = fx.mustRun()
				}
				if res.Incomplete() {
					t.Fatalf("%+v", res)
				}
				fx.wantOnce()
				fx.check()
			})
		})
	}
}

func TestTenMinutesOf503CauseNoDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(2000)
		start := time.Now()
		fx.service.set(func(post int, _ []string) fault {
			if time.Since(start) < 10*time.Minute {
				return fault{at: "refuse", err: apiError(503, "UNAVAILABLE", "later")}
			}
			return fault{}
		})
		runs := 0
		for {
			res := fx.mustRun()
			if runs++; !res.Incomplete() {
				break
			}
			if runs > 40 {
				t.Fatalf("%+v", res)
			}
			time.Sleep(time.Minute)
		}
		if fx.service.posted() > 100+10*60 {
			t.Errorf("%d requests", fx.service.posted())
		}
		fx.wantOnce()
		fx.wantCounts(map[state.DocumentState]int{state.Training: 2000})
		fx.check()
	})
}

func TestFatalAnswerStopsTheRunAndFailsNoDocument(t *testing.T) {
	for _, e := range []error{
		apiError(401, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token"),
		apiError(401, "UNAUTHORIZED_FEATURE", "Please reach out"),
		apiError(404, "KNOWLEDGE_BASE_NOT_FOUND", "not found"),
		apiError(400, "BAD_REQUEST", "Knowledge base does not belong to the account(876)"),
		apiError(301, "", "moved"),
	} {
		for _, at := range []string{"refuse", "middle"} {
			synctest.Test(t, func(t *testing.T) {
				fx := newFixture(t)
				fx.fill(200)
				fx.service.set(func(int, []string) fault { return fault{at: at, err: e} })
				res, err := fx.run(t.Context())
				fatal, ok := errors.AsType[*FatalError](err)
				if !ok || !errors.Is(fatal, e) {
					t.Fatalf("got %v", err)
				}
				if res.Failed != 0 || res.Uncertain != 0 || res.Requests > fx.ingest().opts.Transfers {
					t.Fatalf("%+v", res)
				}
				fx.wantCounts(map[state.DocumentState]int{state.Pending: 200})
				fx.service.set(nil)
				fx.mustRun()
				fx.wantOnce()
				fx.wantCounts(map[state.DocumentState]int{state.Training: 200})
				fx.check()
			})
		}
	}
}

func TestOneRefusedDocumentAmongFiftyFailsAlone(t *testing.T) {
	for _, at := range []string{"refuse", "middle"} {
		t.Run(at, func(t *testing.T) {
			fx := newFixture(t)
			fx.opts.Documents = 50
			fx.fill(50)
			fx.service.set(func(_ int, contents []string) fault {
				if slices.Contains(contents, "content 17") {
					return fault{at: at, err: apiError(400, "BAD_REQUEST", "I do not like 17")}
				}
				return fault{}
			})
			res := fx.mustRun()
			if res.Uploaded != 49 || res.Failed != 1 || len(res.Failures) != 1 || res.Failures[0].Key != "0017.md" || res.Failures[0].Reason != "I do not like 17" {
				t.Fatalf("%+v", res)
			}
			if d := fx.document("0017.md"); d.State != state.Failed || d.Reason != "I do not like 17" {
				t.Fatalf("%+v", d)
			}
			fx.wantCounts(map[state.DocumentState]int{state.Training: 49, state.Failed: 1})
			before := fx.service.posted()
			if fx.scan(); fx.mustRun().Requests != 0 || fx.service.posted() != before {
				t.Fatal("sent again")
			}
			delete(fx.tree.files, "0017.md")
			fx.wantOnce()
			fx.check()
		})
	}
}

func TestHoldRefusedFailsTheWholeBatch(t *testing.T) {
	fx := newFixture(t)
	fx.opts.HoldRefused = true
	fx.fill(40)
	fx.service.set(func(_ int, contents []string) fault {
		if slices.Contains(contents, "content 17") {
			return fault{at: "refuse", err: apiError(422, "", "no")}
		}
		return fault{}
	})
	if res := fx.mustRun(); res.Uploaded != 20 || res.Failed != 20 || res.Requests != 2 {
		t.Fatalf("%+v", res)
	}
}

func TestLaterBatchesAreSmallerThanARefusedOne(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Transfers = 1
	for i := range 100 {
		fx.tree.put(fmt.Sprintf("%03d.md", i), fmt.Sprintf("%0100d", i))
	}
	fx.tree.put("big.md", strings.Repeat("x", 1000))
	fx.scan()
	refused := 0
	fx.service.set(func(_ int, contents []string) fault {
		total := 0
		for _, c := range contents {
			total += len(c)
		}
		if total > 550 {
			refused++
			return fault{at: "middle", err: apiError(413, "", "Request Entity Too Large")}
		}
		return fault{}
	})
	res := fx.mustRun()
	if res.Uploaded != 100 || res.Failed != 1 || refused > 8 {
		t.Fatalf("%+v, %d refused", res, refused)
	}
	if d := fx.document("big.md"); d.State != state.Failed {
		t.Fatalf("%+v", d)
	}
	fx.check()
	for i := range 20 {
		fx.tree.put(fmt.Sprintf("more%03d.md", i), fmt.Sprintf("more %0100d", i))
	}
	fx.scan()
	before := refused
	limits, err := fx.store.Journal.Limits(t.Context(), fx.sync.Destination.ID)
	if err != nil || limits.SmallestRefused <= 550 || limits.SmallestRefused > 1000 || time.Since(limits.RefusedAt) > time.Minute {
		t.Fatalf("%+v, %v", limits, err)
	}
	if res := fx.mustRun(); res.Uploaded != 20 || refused != before {
		t.Fatalf("%+v, %d requests refused although the limit was known", res, refused-before)
	}
}

// A proxy with a small limit for an hour must not make every later request small.
func TestLearntLimitIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Transfers = 1
		limit, refused := 550, 0
		fx.service.set(func(_ int, contents []string) fault {
			if total := len(strings.Join(contents, "")); total > limit {
				refused++
				return fault{at: "middle", err: apiError(413, "", "Request Entity Too Large")}
			}
			return fault{}
		})
		more := func(hour int) (requests int) {
			for i := range 100 {
				fx.tree.put(fmt.Sprintf("%d-%03d.md", hour, i), fmt.Sprintf("%d %0100d", hour, i))
			}
			fx.scan()
			refused = 0
			return fx.mustRun().Requests
		}
		more(0)
		time.Sleep(30 * time.Minute)
		if n := more(1); refused != 0 || n < 20 {
			t.Errorf("within the hour: %d requests, %d refused", n, refused)
		}
		time.Sleep(time.Hour)
		if n := more(2); refused != 1 || n < 20 {
			t.Errorf("after an hour: %d requests, %d refused; want one trial", n, refused)
		}
		limit = 1 << 30
		time.Sleep(30 * time.Minute)
		if n := more(3); n < 20 {
			t.Errorf("half an hour after a refused trial: %d requests", n)
		}
		time.Sleep(time.Hour)
		if n := more(4); refused != 0 || n > 10 { // some small ones were handed over before the answer
			t.Errorf("after an accepted trial: %d requests, %d refused", n, refused)
		}
		if n := more(5); refused != 0 || n != 5 {
			t.Errorf("in the run after it: %d requests, %d refused", n, refused)
		}
		fx.wantOnce()
		fx.check()
	})
}

func TestManyTooLargeDocumentsAreNoQuota(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Transfers = 1
	for i := range 15 {
		fx.tree.put(fmt.Sprintf("big%02d.md", i), fmt.Sprintf("%01000d", i))
		fx.tree.put(fmt.Sprintf("a%02d.md", i), fmt.Sprint(i))
	}
	fx.scan()
	fx.service.set(func(_ int, contents []string) fault {
		for _, c := range contents {
			if len(c) > 500 {
				return fault{at: "middle", err: apiError(413, "", "Request Entity Too Large")}
			}
		}
		return fault{}
	})
	if res := fx.mustRun(); res.Uploaded != 15 || res.Failed != 15 {
		t.Fatalf("%+v", res)
	}
}

func TestTenSingleRefusalsInARowStopTheRunAndFailNoDocument(t *testing.T) {
	for _, transfers := range []int{1, 4} {
		fx := newFixture(t)
		fx.opts.Transfers = transfers
		fx.fill(100)
		fx.service.set(func(post int, _ []string) fault {
			if post > 2 {
				return fault{at: "refuse", err: apiError(400, "QUOTA", "no more sources")}
			}
			return fault{}
		})
		res, err := fx.run(t.Context())
		quota, ok := errors.AsType[*QuotaError](err)
		if !ok || quota.Documents != 10 || quota.Code != "QUOTA" || !strings.Contains(err.Error(), "no more sources") {
			t.Fatalf("got %v", err)
		}
		if res.Uploaded != 40 || res.Failed != 0 || len(res.Failures) != 0 || res.Deferred != 60 {
			t.Fatalf("%+v", res)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 40, state.Pending: 60})
		fx.check()
		fx.service.set(nil)
		fx.mustRun()
		fx.wantOnce()
		fx.wantCounts(map[state.DocumentState]int{state.Training: 100})
	}
}

func TestAcceptedDocumentOrAnotherCodeRestartsTheCountOfRefusals(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Transfers, fx.opts.Documents = 1, 1
	fx.fill(60)
	fx.service.set(func(post int, _ []string) fault {
		switch {
		case post%20 < 9:
			return fault{at: "refuse", err: apiError(400, "ONE", "no")}
		case post%20 < 18:
			return fault{at: "refuse", err: apiError(422, "OTHER", "no")}
		}
		return fault{}
	})
	if res := fx.mustRun(); res.Failed+res.Uploaded != 60 || res.Uploaded != 6 {
		t.Fatalf("%+v", res)
	}
	fx = newFixture(t)
	fx.opts.Transfers, fx.opts.Documents = 1, 1
	fx.fill(60)
	fx.service.set(func(post int, _ []string) fault {
		if post%10 == 0 {
			return fault{}
		}
		return fault{at: "refuse", err: apiError(400, "ONE", "no")}
	})
	if res := fx.mustRun(); res.Failed != 54 || res.Uploaded != 6 {
		t.Fatalf("%+v", res)
	}
}

func TestNothingIsSentIfTheJournalCannotBeWritten(t *testing.T) {
	full := errors.New("disk full")
	for _, step := range []string{"begin", "seal"} {
		fx := newFixture(t)
		fx.fill(100)
		fx.around = func(j journal) journal {
			h := hooks{journal: j}
			if step == "begin" {
				h.begin = func(context.Context, state.BatchSpec) (*state.Upload, error) { return nil, full }
			} else {
				h.seal = func(context.Context, *state.Upload, []state.Seal) error { return full }
			}
			return h
		}
		if _, err := fx.run(t.Context()); !errors.Is(err, full) {
			t.Fatalf("%s: got %v", step, err)
		}
		if len(fx.service.accepted) != 0 {
			t.Fatalf("%s: something was accepted", step)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Pending: 100})
		fx.around = nil
		fx.mustRun()
		fx.wantOnce()
	}
}

func TestAcceptedAnswerIsWrittenUntilItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(100)
		start := time.Now()
		var failures atomic.Int64
		fx.around = func(j journal) journal {
			return hooks{journal: j, accept: func(ctx context.Context, id *state.Upload, a state.Answer) (state.Receipt, error) {
				if time.Since(start) < 10*time.Minute {
					failures.Add(1)
					return state.Receipt{}, errors.New("disk full")
				}
				return j.Accept(ctx, id, a)
			}}
		}
		fx.mustRun()
		if failures.Load() < 20 || failures.Load() > 2000 {
			t.Errorf("tried %d times", failures.Load())
		}
		fx.wantOnce()
		fx.wantCounts(map[state.DocumentState]int{state.Training: 100})
	})
}

// A soft stop waits for the answers to the sealed requests and seals no other. A hard stop cuts, as a kill does.
func TestSoftStopWaitsForAnswersAndHardStopCuts(t *testing.T) {
	for _, hard := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fx := newFixture(t)
			fx.fill(400)
			fx.service.latency = 10 * time.Second
			stop := make(chan struct{})
			fx.opts.Stop = stop
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(15*time.Second, func() { close(stop) })
			if hard {
				time.AfterFunc(16*time.Second, cancel)
			}
			start := time.Now()
			res, err := fx.run(ctx)
			took := time.Since(start)
			if !errors.Is(err, ErrStopped) {
				t.Fatalf("got %v", err)
			}
			if !hard {
				if took != 20*time.Second || res.Uploaded != 160 || res.Uncertain != 0 {
					t.Fatalf("after %v: %+v", took, res)
				}
				fx.wantCounts(map[state.DocumentState]int{state.Training: 160, state.Pending: 240})
				fx.check()
				return
			}
			if took != 16*time.Second || res.Uploaded != 80 {
				t.Fatalf("after %v: %+v", took, res)
			}
			n, err := fx.store.Journal.Recover(t.Context(), fx.sync.ID)
			if err != nil || n != 4 {
				t.Fatalf("%d batches uncertain, %v", n, err)
			}
			fx.wantCounts(map[state.DocumentState]int{state.Training: 80, state.Uncertain: 80, state.Pending: 240})
			fx.check()
		})
	}
}

func TestStopDuringTheSealKeepsTheLastByteBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(10)
		stop := make(chan struct{})
		fx.opts.Stop = stop
		fx.around = func(j journal) journal {
			return hooks{journal: j, seal: func(ctx context.Context, id *state.Upload, seals []state.Seal) error {
				err := j.Seal(ctx, id, seals)
				close(stop)
				synctest.Wait()
				return err
			}}
		}
		if _, err := fx.run(t.Context()); !errors.Is(err, ErrStopped) {
			t.Fatalf("got %v", err)
		}
		if len(fx.service.accepted) != 0 {
			t.Fatal("sent after the stop")
		}
		fx.wantCounts(map[state.DocumentState]int{state.Pending: 10})
		fx.check()
	})
}

func TestStopAbandonsAnUnsealedRequestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.BytesPerSecond = 10_000
		fx.tree.put("large.bin", strings.Repeat("x", 1_000_000))
		fx.scan()
		stop := make(chan struct{})
		fx.opts.Stop = stop
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { close(stop) })
		if _, err := fx.run(t.Context()); !errors.Is(err, ErrStopped) || time.Since(start) > 20*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		fx.wantCounts(map[state.DocumentState]int{state.Pending: 1})
	})
}

// The API's host is down for an hour while the documents change twice: only the last version of each is uploaded.
func TestOnlyTheLastVersionIsUploadedAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.service.set(func(int, []string) fault { return fault{at: "before", err: errors.New("connection refused")} })
		fx.service.status = func(int) error { return errors.New("connection refused") }
		for version := range 3 {
			for i := range 500 {
				fx.tree.put(fmt.Sprintf("%04d.md", i), fmt.Sprintf("content %d version %d", i, version))
			}
			fx.scan()
			for range 4 {
				start := time.Now()
				res := fx.mustRun()
				if took := time.Since(start); took > 2*time.Minute {
					t.Errorf("a run without progress took %v", took)
				}
				if res.Uploaded != 0 || !res.Incomplete() || !strings.Contains(res.Why, "connection refused") {
					t.Fatalf("%+v", res)
				}
				time.Sleep(5 * time.Minute)
			}
		}
		fx.service.set(nil)
		for range 3 {
			fx.mustRun()
			time.Sleep(5 * time.Minute)
		}
		fx.wantOnce()
		if len(fx.service.accepted) != 500 {
			t.Fatalf("%d contents accepted", len(fx.service.accepted))
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 500})
		fx.check()
	})
}
