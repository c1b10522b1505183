package ingest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A run that ends has no claim left, whatever ended it: claimed documents would be uploading until a restart.
func TestRunThatFailsWhileItVerifiesLeavesNoClaim(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Checkers = 1
	for _, content := range []string{"old", "new"} {
		fx.tree.put("a.md", content)
		fx.scan()
		fx.mustRun()
	}
	fx.tree.put("a.md", "old") // its sources must be verified
	// b.md fills what the planner hashes at once, so that c.md comes after the failed verification.
	fx.tree.files["b.md"] = &file{fp: state.Fingerprint{Size: hashAtOnce + 1, MTime: 1, CTime: 1, Inode: 1 << 40}}
	fx.tree.put("c.md", "c")
	fx.scan()
	fx.service.status = func(int) error { return apiError(401, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token") }
	_, err := fx.run(t.Context())
	if _, ok := errors.AsType[*FatalError](err); !ok {
		t.Fatal(err)
	}
	fx.wantCounts(map[state.DocumentState]int{state.Pending: 3})
}

func TestRunThatIsCutLeavesNoClaim(t *testing.T) {
	for _, c := range []struct {
		name string
		at   func(fx *fixture, cut func())
	}{
		{"while it hashes", func(fx *fixture, cut func()) {
			fx.tree.broken = func(string) error { cut(); return nil }
		}},
		{"while it sends", func(fx *fixture, cut func()) {
			fx.service.set(func(int, []string) fault { cut(); return fault{} })
		}},
		{"while it seals", func(fx *fixture, cut func()) {
			fx.around = func(j journal) journal {
				return hooks{journal: j, seal: func(ctx context.Context, id *state.Upload, seals []state.Seal) error {
					err := j.Seal(ctx, id, seals)
					cut()
					return err
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
				if _, err := fx.run(ctx); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				fx.wantCounts(map[state.DocumentState]int{state.Pending: 30})
			})
		})
	}
}

// An end of a batch that the journal does not take stops the run, and is not lost behind the cause that interrupted it.
func TestRefusalThatCannotBeRecordedStopsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(3)
		full := errors.New("disk full")
		var seals, refusals atomic.Int64
		fx.around = func(j journal) journal {
			return hooks{
				journal: j,
				seal: func(ctx context.Context, id *state.Upload, s []state.Seal) error {
					if seals.Add(1) == 1 {
						return state.ErrBreakerOpen // opened by another process, and closed since
					}
					return j.Seal(ctx, id, s)
				},
				refuse: func(context.Context, *state.Upload, state.Refusal) error { refusals.Add(1); return full },
			}
		}
		start := time.Now()
		if _, err := fx.run(t.Context()); !errors.Is(err, full) {
			t.Fatalf("the run ended with %v", err)
		}
		if refusals.Load() < 2 || time.Since(start) < time.Minute {
			t.Errorf("tried %d times in %v", refusals.Load(), time.Since(start))
		}
		fx.around = nil
		fx.mustRun()
		fx.wantOnce()
		fx.wantCounts(map[state.DocumentState]int{state.Training: 3})
	})
}

// The end of a sealed request that was not sent is recorded even after a cut: only this process knows that it was not sent.
func TestUnsentSealedRequestIsRecordedAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.fill(3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var refusals atomic.Int64
		fx.around = func(j journal) journal {
			return hooks{
				journal: j,
				seal: func(ctx context.Context, id *state.Upload, s []state.Seal) error {
					err := j.Seal(ctx, id, s)
					cancel()
					return err
				},
				refuse: func(ctx context.Context, id *state.Upload, r state.Refusal) error {
					if refusals.Add(1) == 1 {
						return errors.New("database is locked")
					}
					return j.Refuse(ctx, id, r)
				},
			}
		}
		if _, err := fx.run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		fx.around = nil
		fx.mustRun()
		fx.wantOnce()
		if d := fx.duplicates(); len(d) > 0 {
			t.Errorf("listed as possible duplicates: %v", d)
		}
	})
}

// A run whose last claims cannot be given back fails, so that its caller recovers the sync.
func TestRunThatCannotGiveItsClaimsBackFails(t *testing.T) {
	fx := newFixture(t)
	fx.fill(3)
	closeStore := sync.OnceFunc(func() {
		if err := fx.store.Close(); err != nil {
			t.Error(err)
		}
	})
	fx.tree.broken = func(string) error { closeStore(); return nil }
	_, err := fx.run(t.Context())
	fx.tree.broken = nil
	fx.open()
	if err == nil || !strings.Contains(err.Error(), "closed") {
		t.Fatal(err)
	}
	fx.mustRun()
	fx.wantOnce()
}
