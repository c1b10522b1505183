package state

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestLifeOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		r.want("a.md=pending b.md=pending")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		r.want("a.md=uploading b.md=uploading")
		batch := r.seal(docs)
		r.want("a.md=uploading b.md=uploading")
		ids := r.accept(batch, 2)
		r.want("a.md=training b.md=training")
		r.trained(TrainingCompleted, ids[0])
		r.trained(TrainingFailed, ids[1])
		r.want("a.md=completed b.md=failed")
		due, err := r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, 0, 10)
		r.must(err)
		if len(due) != 0 {
			t.Fatalf("sources in a final state are due: %v", due)
		}
		d, err := r.s.Documents.Get(t.Context(), r.sync.ID, "b.md")
		r.must(err)
		if d.Reason == "" || d.SHA256 != hash("B") {
			t.Fatalf("document is %+v", d)
		}
		n, err := r.s.Documents.Outstanding(t.Context(), r.sync.ID)
		r.must(err)
		if fmt.Sprint(n) != "map[failed:1]" {
			t.Fatalf("outstanding: %v", n)
		}
	})
}

func TestContentsAreShared(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		ids := r.upload(map[string]string{"a.md": "A"})

		// A copy, a touch: nothing is uploaded.
		r.put("a.md", "copy.md")
		up, _ := r.resolve(map[string]string{"a.md": "A", "copy.md": "A"}, Sharing{})
		if len(up) != 0 {
			t.Fatalf("uploads %v", up)
		}
		r.want("a.md=completed copy.md=completed")

		// The original goes; the copy keeps the source alive.
		r.vanish("a.md")
		r.wantStanding(ids[0], Live)
		r.vanish("copy.md")
		r.wantStanding(ids[0], Orphaned)

		// It comes back, after an edit and a revert elsewhere: only a source that a status answer has just shown is shared.
		r.put("c.md")
		_, verdicts := r.resolve(map[string]string{"c.md": "A"}, Sharing{})
		if verdicts["c.md"] != ActionVerify {
			t.Fatalf("verdict %v, want verify", verdicts)
		}
		r.must(func() error { _, err := r.s.Journal.Recover(t.Context(), r.sync.ID); return err }())
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		vs, err := r.s.Queue.Resolve(t.Context(), r.sync.ID, []HashedDocument{{ClaimedDocument: docs[0], SHA256: hash("A"), Verified: true}}, Sharing{})
		r.must(err)
		if vs[0].Action != ActionShare {
			t.Fatalf("verdict %v, want share", vs)
		}
		r.wantStanding(ids[0], Live)

		// It was deleted by hand: the document is pending again.
		n, err := r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids)
		r.must(err)
		if n != 1 {
			t.Fatalf("%d pending, want 1", n)
		}
		r.want("a.md=removed c.md=pending copy.md=removed")
		up, _ = r.resolve(map[string]string{"c.md": "A"}, Sharing{})
		if len(up) != 1 {
			t.Fatal("the gone content is not uploaded again")
		}
	})
}

func TestGoneLeftBehindSourceIsNotShared(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		ids := r.upload(map[string]string{"a.md": "A"})
		r.vanish("a.md")
		_, err := r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids)
		r.must(err)
		r.put("b.md")
		up, _ := r.resolve(map[string]string{"b.md": "A"}, Sharing{})
		if len(up) != 1 {
			t.Fatal("b.md is not uploaded")
		}
		ids = r.accept(r.seal(up), 1)
		r.wantStanding(ids[0], Live)
	})
}

func TestEditSupersedes(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		first := r.upload(map[string]string{"a.md": "A"})
		r.put("a.md")
		r.wantStanding(first[0], Live)
		second := r.upload(map[string]string{"a.md": "A2"})
		r.wantStanding(first[0], Superseded)
		r.wantStanding(second[0], Live)
		sup, orph, err := r.s.Inventory.CountLeftBehind(t.Context(), r.sync.ID)
		r.must(err)
		if sup != 1 || orph != 0 {
			t.Fatalf("left %d, %d", sup, orph)
		}
		events, err := r.s.Documents.History(t.Context(), 1)
		r.must(err)
		if len(events) != 9 {
			t.Fatalf("history: %v", events)
		}
		r.vanish("a.md")
		r.wantStanding(first[0], Orphaned)
	})
}

// The clock stands still, so a training ends in the millisecond in which its source is recorded.
func TestHistoryHasATrainingThatEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFixture(t)
		r.put("a.md")
		r.upload(map[string]string{"a.md": "A"})
		events, err := r.s.Documents.History(t.Context(), 1)
		r.must(err)
		if len(events) != 4 || events[3].What != "training completed" || events[3].At != events[0].At {
			t.Errorf("history: %v", events)
		}
	})
}

func TestEditInFlightIsUploadedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		b, seals := spec(r, docs)
		batch, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.put("a.md") // before the seal: the claim is lost
		var seal *SealError
		if err := r.s.Journal.Seal(t.Context(), batch, seals); !errors.As(err, &seal) || len(seal.Lost) != 1 {
			t.Fatalf("seal: %v", err)
		}
		r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{Disposition: Keep}))
		r.want("a.md=pending")

		docs, _ = r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		batch = r.seal(docs)
		r.put("a.md") // after the seal: the source that comes back is recorded, and left behind
		ids := r.accept(batch, 1)
		r.want("a.md=pending")
		docs, _ = r.resolve(map[string]string{"a.md": "A2"}, Sharing{})
		second := r.accept(r.seal(docs), 1)
		r.wantStanding(ids[0], Superseded)
		r.wantStanding(second[0], Live)
	})
}

func TestTwinIsNotSealedTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "A"}, Sharing{})
		b, seals := spec(r, docs)
		batch, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		var seal *SealError
		if err := r.s.Journal.Seal(t.Context(), batch, seals); !errors.As(err, &seal) || !slices.Equal(seal.Known, []int{1}) {
			t.Fatalf("seal: %v", err)
		}
		r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{Disposition: Keep}))
		first := r.seal(docs[:1])
		_, verdicts := r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, map[string]string{"b.md": "A"}, Sharing{})
		if verdicts["b.md"] != ActionShare {
			t.Fatalf("verdict %v", verdicts)
		}
		ids := r.accept(first, 1)
		r.trained(TrainingCompleted, ids...)
		r.want("a.md=completed b.md=completed")

		// A refusal also ends the wait of documents that share the content.
		r.put("c.md", "d.md")
		docs, _ = r.resolve(map[string]string{"c.md": "C", "d.md": "C"}, Sharing{})
		first = r.seal(docs[:1])
		r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, map[string]string{"d.md": "C"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), first, Refusal{Disposition: Requeue, StatusCode: 429}))
		r.want("a.md=completed b.md=completed c.md=pending d.md=pending")
	})
}

func TestRefusalDisposesOfDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		later := time.Now().Add(time.Hour)
		for _, tt := range []struct {
			name    string
			sealed  bool
			refusal Refusal
			want    string
			due     int
		}{
			{"retry before the seal", false, Refusal{Disposition: Retry, NextAttempt: later}, "a.md=pending", 0},
			{"retry after the seal", true, Refusal{Disposition: Retry, NextAttempt: later, StatusCode: 429}, "a.md=pending", 0},
			{"requeue", true, Refusal{Disposition: Requeue, StatusCode: 401}, "a.md=pending", 1},
			{"requeue before the seal", false, Refusal{Disposition: Requeue}, "a.md=pending", 1},
			{"keep", true, Refusal{Disposition: Keep, StatusCode: 413}, "a.md=uploading", 0},
			{"fail", true, Refusal{Disposition: Fail, StatusCode: 400, Message: "no such type"}, "a.md=failed", 0},
			{"fail before the seal", false, Refusal{Disposition: Fail, StatusCode: 413, Message: "too large"}, "a.md=failed", 0},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := newFixture(t)
				r.put("a.md")
				docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
				b, seals := spec(r, docs)
				batch, err := r.s.Journal.Begin(t.Context(), b)
				r.must(err)
				if tt.sealed {
					r.must(r.s.Journal.Seal(t.Context(), batch, seals))
				}
				r.must(r.s.Journal.Refuse(t.Context(), batch, tt.refusal))
				r.want(tt.want)
				due, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
				r.must(err)
				if len(due) != tt.due {
					t.Fatalf("%d due, want %d", len(due), tt.due)
				}
				d, err := r.s.Documents.Get(t.Context(), r.sync.ID, "a.md")
				r.must(err)
				if tt.refusal.Disposition == Fail && d.Reason != tt.refusal.Message {
					t.Fatalf("reason %q", d.Reason)
				}
				if err := r.s.Journal.Refuse(t.Context(), batch, tt.refusal); !errors.Is(err, ErrBatchEnded) {
					t.Fatalf("a second end: %v", err)
				}
				if tt.refusal.Disposition == Keep {
					r.accept(r.seal(docs), 1)
					r.want("a.md=training")
				}
			})
		}
	})
}

func TestFailedIsFailedForEveryDocumentUntilRetry(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs), Refusal{Disposition: Fail, StatusCode: 400, Message: "no"}))
		r.put("a.md", "b.md")
		up, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "A"}, Sharing{})
		if len(up) != 0 {
			t.Fatal("a failed content was to be sent again, unasked")
		}
		r.want("a.md=failed b.md=failed")
		n, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{States: []DocumentState{Failed}})
		r.must(err)
		if n != 2 {
			t.Fatalf("%d marked", n)
		}
		docs, _ = r.resolve(map[string]string{"a.md": "A", "b.md": "A"}, Sharing{})
		if len(docs) != 2 {
			t.Fatalf("%d to be uploaded", len(docs))
		}
		batch := r.seal(docs[:1])
		up, _ = r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, map[string]string{"b.md": "A"}, Sharing{})
		if len(up) != 0 {
			t.Fatal("retry uploads the content twice")
		}
		r.trained(TrainingCompleted, r.accept(batch, 1)...)
		r.want("a.md=completed b.md=completed")
	})
}

func TestReindexUploadsEachContentOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "twin.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
		first := r.accept(r.seal(docs[:1]), 1)
		r.trained(TrainingCompleted, first...)
		r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, map[string]string{"twin.md": "A"}, Sharing{})

		again := func() int64 {
			t.Helper()
			_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{Match: func(key string) bool { return true }})
			r.must(err)
			up, _ := r.resolve(map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
			batch := r.seal(up[:1])
			up, _ = r.resolveClaimed([]ClaimedDocument{up[1].ClaimedDocument}, map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
			if len(up) != 0 {
				t.Fatal("the twin is uploaded as well")
			}
			return r.accept(batch, 1)[0]
		}
		second := again()
		r.wantStanding(first[0], Live)
		r.trained(TrainingFailed, second)
		r.want("a.md=failed twin.md=failed")
		r.wantStanding(first[0], Live) // it still answers
		third := again()
		r.trained(TrainingCompleted, third)
		r.want("a.md=completed twin.md=completed")
		r.wantStanding(first[0], Superseded)
		r.wantStanding(second, Superseded)
		r.wantStanding(third, Live)

		// A refused reindex keeps its mark.
		_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
		r.must(err)
		up, _ := r.resolve(map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(up[:1]), Refusal{Disposition: Requeue, StatusCode: 429}))
		r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{up[1].ClaimedDocument}, time.Time{}, false))
		up, _ = r.resolve(map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
		if len(up) == 0 {
			t.Fatal("the mark was lost with the refusal")
		}
	})
}

func TestUncertainIsSentAgainOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		lost := r.seal(docs)
		streak, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "bad gateway")
		r.must(err)
		if streak != 1 {
			t.Fatalf("streak %d", streak)
		}
		r.want("a.md=uncertain b.md=uncertain")
		due, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, time.Minute)
		r.must(err)
		if d := time.Until(due); d < 50*time.Second || d > time.Minute {
			t.Fatalf("due in %v", d)
		}
		resend := func(after time.Duration) []HashedDocument {
			cs, err := r.s.Queue.ClaimResends(t.Context(), r.sync.ID, after, 10)
			r.must(err)
			var hs []HashedDocument
			for _, c := range cs {
				hs = append(hs, HashedDocument{ClaimedDocument: c, SHA256: c.SHA256, Size: 10})
			}
			return hs
		}
		if got := resend(time.Minute); len(got) != 0 {
			t.Fatalf("too early: %v", got)
		}
		hs := resend(0)
		if len(hs) != 2 || hs[0].ResendOf != lost.ID() || hs[0].SHA256 != hash("A") {
			t.Fatalf("resends: %+v", hs)
		}

		// The breaker is open: nothing begins but one probe, and nothing else is sealed.
		b, seals := spec(r, hs[:1])
		if _, err := r.s.Journal.Begin(t.Context(), b); !errors.Is(err, ErrBreakerOpen) {
			t.Fatalf("begin: %v", err)
		}
		b.Probe = true
		probe, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		if _, err := r.s.Journal.Begin(t.Context(), b); !errors.Is(err, ErrBreakerOpen) {
			t.Fatalf("a second probe: %v", err)
		}
		r.must(r.s.Journal.Seal(t.Context(), probe, seals))
		streak, err = r.s.Journal.MarkUncertain(t.Context(), probe, 502, "bad gateway")
		r.must(err)
		if streak != 2 {
			t.Fatalf("streak %d", streak)
		}
		r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{hs[1].ClaimedDocument}, time.Time{}, false))
		r.want("a.md=uncertain b.md=pending")
		up, _ := r.resolve(map[string]string{"b.md": "B"}, Sharing{})
		if len(up) != 0 {
			t.Fatal("an uncertain content is uploaded as if it were new")
		}
		hs = resend(0)
		if len(hs) != 1 || hs[0].Key != "b.md" {
			t.Fatalf("held ones are sent again: %+v", hs)
		}
		r.accept(r.sealProbe(hs), 1)
		if streak, _, err = r.s.Journal.Breaker(t.Context(), r.sync.Destination.ID); err != nil || streak != 0 {
			t.Fatalf("streak %d, %v", streak, err)
		}
		r.want("a.md=uncertain b.md=training")
		d, err := r.s.Documents.Get(t.Context(), r.sync.ID, "a.md")
		r.must(err)
		if !d.Held || d.Reason != "bad gateway" {
			t.Fatalf("document %+v", d)
		}
		got := ""
		for p, err := range r.s.Inventory.PossibleDuplicates(t.Context(), 0) {
			r.must(err)
			got += fmt.Sprintf("%s %s batch %d again %d; ", p.Key, p.Class, p.Batch, p.ResentAs)
		}
		if want := "a.md uncertain batch 1 again 0; b.md uncertain batch 1 again 3; a.md uncertain batch 2 again 0; "; got != want {
			t.Fatalf("possible duplicates: %s", got)
		}
	})
}

func TestBreakerStopsTransfersInFlight(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		b, seals := spec(r, docs[1:])
		inFlight, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		_, err = r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[:1]), 0, "reset")
		r.must(err)
		if err := r.s.Journal.Seal(t.Context(), inFlight, seals); !errors.Is(err, ErrBreakerOpen) {
			t.Fatalf("seal: %v", err)
		}
	})
}

func TestFieldMissingFromTheAnswerIsUncertain(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		batch := r.seal(docs)
		_, err := r.s.Journal.Accept(t.Context(), batch, Answer{
			StatusCode: 200,
			Sources:    [][]SourceAnswer{{{ID: 1, Status: "in-progress"}, {ID: 2, Status: "in-progress"}}, nil},
			Unasked:    []SourceAnswer{{ID: 3, Status: "in-progress"}},
		})
		r.must(err)
		r.want("a.md=training b.md=uncertain")
		r.trained(TrainingCompleted, 1)
		r.want("a.md=training b.md=uncertain")
		r.trained(TrainingCompleted, 2)
		r.want("a.md=completed b.md=uncertain")
		if n := len(r.standings()); n != 3 {
			t.Fatalf("%d sources in the inventory, want 3", n)
		}
	})
}

func TestRecoverEndsWhatAKilledProcessLeft(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("claimed.md", "open.md", "sealed.md")
		docs, _ := r.resolve(map[string]string{"claimed.md": "A", "open.md": "B", "sealed.md": "C"}, Sharing{})
		b, _ := spec(r, docs[1:2])
		_, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.seal(docs[2:])
		n, err := r.s.Journal.Recover(t.Context(), r.sync.ID)
		r.must(err)
		if n != 1 {
			t.Fatalf("%d uncertain", n)
		}
		r.want("claimed.md=pending open.md=pending sealed.md=uncertain")
	})
}

func TestOtherDestinationNeedsConfirmation(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		ids := r.upload(map[string]string{"a.md": "A"})
		other := testDestination
		other.KnowledgeBase = 877
		_, err := r.s.Syncs.Ensure(t.Context(), "handbook", "/docs", other, false)
		if e, ok := errors.AsType[*DestinationError](err); !ok || e.Have.KnowledgeBase != 876 {
			t.Fatalf("ensure: %v", err)
		}
		r.want("a.md=completed")
		r.sync, err = r.s.Syncs.Ensure(t.Context(), "handbook", "/docs", other, true)
		r.must(err)
		r.want("a.md=pending")
		r.wantStanding(ids[0], Superseded)
		up, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		if len(up) != 1 {
			t.Fatal("another destination's content was taken for known")
		}
	})
}

func TestUnknownAccountIsFilledIn(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		unknown := testDestination
		unknown.Account, unknown.KnowledgeBase = "", 1
		a, err := r.s.Syncs.Ensure(t.Context(), "a", "/a", unknown, false)
		r.must(err)
		other := unknown
		other.KnowledgeBase = 2
		_, err = r.s.Syncs.Ensure(t.Context(), "other", "/other", other, false)
		r.must(err)
		known := unknown
		known.Account = "51"
		b, err := r.s.Syncs.Ensure(t.Context(), "a", "/a", known, false)
		r.must(err)
		if a.Destination.ID != b.Destination.ID || b.Destination.Account != "51" {
			t.Fatalf("%+v, %+v", a, b)
		}
		if o, err := r.s.Syncs.Get(t.Context(), "other"); err != nil || o.Destination.Account != "" {
			t.Errorf("the other knowledge base: %+v, %v", o, err)
		}
		known.Account = "52"
		if _, err = r.s.Syncs.Ensure(t.Context(), "a", "/a", known, false); err == nil {
			t.Fatal("another account is the same destination")
		}
		elsewhere := b.Destination
		elsewhere.Origin = "https://staging.reply.cx"
		if _, err = r.s.Syncs.Ensure(t.Context(), "a", "/a", elsewhere, false); err == nil {
			t.Fatal("another API is the same destination")
		}
	})
}

func TestForgetOrphansSources(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		ids := r.upload(map[string]string{"a.md": "A"})
		r.must(r.s.Syncs.Forget(t.Context(), r.sync.ID))
		r.wantStanding(ids[0], Orphaned)
		if _, err := r.s.Syncs.Get(t.Context(), "handbook"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("sync: %v", err)
		}
		r.sync, _ = r.s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false)
		r.put("a.md")
		_, verdicts := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		if verdicts["a.md"] != ActionVerify {
			t.Fatalf("verdicts %v", verdicts)
		}
	})
}

func TestSharingOptionsUploadKnownContents(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		each := Sharing{Each: true}
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "A"}, each)
		b, seals := spec(r, docs)
		b.Sharing = each
		batch, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Seal(t.Context(), batch, seals))
		r.accept(batch, 2)
		r.want("a.md=training b.md=training")

		r = newFixture(t)
		r.put("a.md")
		r.upload(map[string]string{"a.md": "A"})
		r.vanish("a.md")
		r.put("b.md")
		renamed := Sharing{UploadRenamed: true}
		docs, _ = r.resolve(map[string]string{"b.md": "A"}, renamed)
		if len(docs) != 1 {
			t.Fatal("the renamed document is not uploaded")
		}
		b, seals = spec(r, docs)
		b.Sharing = renamed
		batch, err = r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Seal(t.Context(), batch, seals))
	})
}

func TestScanRemovesVanishedDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a-b", "a/b", "a/c", "a0", "\xff")
		known := func(prefix string) (keys []string) {
			t.Helper()
			for k, err := range r.s.Scans.Known(t.Context(), r.sync.ID, prefix) {
				r.must(err)
				keys = append(keys, k.Key)
			}
			return keys
		}
		for prefix, want := range map[string]string{"": `["a-b" "a/b" "a/c" "a0" "\xff"]`, "a/": `["a/b" "a/c"]`, "a0": `["a0"]`, "a": `[]`} {
			if got := fmt.Sprintf("%q", known(prefix)); got != want {
				t.Errorf("below %q: %s, want %s", prefix, got, want)
			}
		}
		scan, err := r.s.Scans.Begin(t.Context(), r.sync.ID, "")
		r.must(err)
		r.must(r.s.Scans.Record(t.Context(), scan, []Change{
			{Op: Vanish, Key: "a/b"}, {Op: Vanish, Key: "a/c"},
			{Op: Put, Key: "moved", Fingerprint: Fingerprint{Size: 10, MTime: 1, CTime: 9, Inode: 1001}},
			{Op: Skip, Key: "a0", Reason: "empty"},
		}))
		n, err := r.s.Scans.Count(t.Context(), scan)
		r.must(err)
		if n != (ScanCount{Vanished: 2, Renamed: 1, NeverUploaded: 2, NeverUploadedRenamed: 1}) {
			t.Fatalf("counts %+v", n)
		}
		r.must(r.s.Scans.Drop(t.Context(), scan))
		if got := len(known("")); got != 6 {
			t.Fatalf("%d known after a dropped scan", got)
		}
		r.want("a-b=pending a/b=pending a/c=pending a0=skipped moved=pending \xff=pending")
		r.vanish("a/b", "a/c")
		if got := len(known("")); got != 4 {
			t.Fatalf("%d known", got)
		}
		y, err := r.s.Syncs.Get(t.Context(), "handbook")
		r.must(err)
		if y.RootIdentity != "1:2" || y.ScannedAt.IsZero() {
			t.Fatalf("sync %+v", y)
		}
	})
}

func TestUnreadableAndVanishedDocumentsKeepTheirVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("old.md")
		r.upload(map[string]string{"old.md": "A"})
		r.put("new.md", "old.md")
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		for _, d := range docs {
			r.must(r.s.Queue.MarkUnreadable(t.Context(), d, "permission denied"))
		}
		r.want("new.md=skipped old.md=completed")
		for k, err := range r.s.Scans.Known(t.Context(), r.sync.ID, "") {
			r.must(err)
			if k.Fingerprint.MTime != 0 {
				t.Errorf("%s will not be looked at again", k.Key)
			}
		}
		r.put("new.md", "old.md")
		docs, err = r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		for _, d := range docs {
			r.must(r.s.Queue.MarkVanished(t.Context(), d))
		}
		r.want("new.md=removed old.md=completed")
	})
}

func TestPauseHoldsClaimsBack(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		until := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		r.must(r.s.Journal.Pause(t.Context(), r.sync.Destination.ID, until))
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		due, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, -1)
		r.must(err)
		if len(docs) != 0 || !due.Equal(until) {
			t.Fatalf("claimed %v, due %v", docs, due)
		}
	})
}

func TestReopenMakesRefusedDocumentsPending(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs[:1]), Refusal{Disposition: Fail, Message: "quota"}))
		b, _ := spec(r, docs[1:])
		id, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), id, Refusal{Disposition: Fail, Message: "quota"}))
		r.want("a.md=failed b.md=failed")
		r.must(r.s.Queue.Reopen(t.Context(), []int64{docs[0].DocumentID, docs[1].DocumentID}))
		r.want("a.md=pending b.md=pending")
		// A document that was uploaded meanwhile keeps its source.
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 1)
		r.must(err)
		again, _ := r.resolveClaimed(claimed, map[string]string{"a.md": "A"}, Sharing{})
		r.accept(r.seal(again), 1)
		r.must(r.s.Queue.Reopen(t.Context(), []int64{docs[0].DocumentID, docs[1].DocumentID}))
		r.want("a.md=training b.md=pending")
	})
}

func TestLockAdmitsOneHolder(t *testing.T) {
	r := newFixture(t)
	l, err := r.s.Lock(t.Context(), "handbook", 0)
	r.must(err)
	if _, err := r.s.Lock(t.Context(), "handbook", 150*time.Millisecond); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	} else {
		t.Log(err)
	}
	other, err := r.s.Lock(t.Context(), "other/\x00", 0)
	r.must(err)
	r.must(other.Unlock())
	r.must(l.Unlock())
	l, err = r.s.Lock(t.Context(), "handbook", 0)
	r.must(err)
	r.must(l.Unlock())
}

func TestDueSourcesFillsTheRequest(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		// One source is due, and the other one in a second. In a shared state DueSources takes the sources.
		start := func() (*fixture, []int64) {
			r := newFixture(t)
			r.put("a.md", "b.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
			ids := r.accept(r.seal(docs), 2)
			r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{{SourceID: ids[1], Status: "in-progress", NextPoll: time.Now().Add(time.Second)}}))
			return r, ids
		}
		for slack, want := range map[time.Duration]int{0: 1, time.Minute: 2} {
			r, _ := start()
			due, err := r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, slack, 10)
			r.must(err)
			if len(due) != want {
				t.Errorf("slack %v: %d due, want %d", slack, len(due), want)
			}
		}
		r, ids := start()
		r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{{SourceID: ids[0], Status: "in-progress", NextPoll: time.Now().Add(time.Second)}}))
		due, err := r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, time.Minute, 10)
		r.must(err)
		if len(due) != 0 {
			t.Errorf("asked for before anything is due: %v", due)
		}
	})
}

func TestAcknowledgedSourceIsNotPolledAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		ids := r.accept(r.seal(docs), 1)
		_, err := r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids)
		r.must(err)
		r.trained(InTraining, ids...) // its answer was on the way
		if at, err := r.s.Inventory.NextPoll(t.Context(), r.sync.Destination.ID); err != nil || !at.IsZero() {
			t.Fatalf("next poll at %v, %v", at, err)
		}
		r.wantStanding(ids[0], Gone)
	})
}

func TestForgottenSyncWithASourceEachFindsItsContents(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		each := Sharing{Each: true}
		r.put("a.md", "b.md")
		contents := map[string]string{"a.md": "A", "b.md": "A"}
		docs, _ := r.resolve(contents, each)
		b, seals := spec(r, docs)
		b.Sharing = each
		batch, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Seal(t.Context(), batch, seals))
		r.trained(TrainingCompleted, r.accept(batch, 2)...)
		r.must(r.s.Syncs.Forget(t.Context(), r.sync.ID))
		r.sync, err = r.s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false)
		r.must(err)
		r.put("a.md", "b.md")
		_, verdicts := r.resolve(contents, each)
		if verdicts["a.md"] != ActionVerify || verdicts["b.md"] != ActionVerify {
			t.Fatalf("verdicts %v", verdicts)
		}
	})
}

func TestMarkOfAReindexOutlivesAnUnreadableFile(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		contents := map[string]string{"a.md": "A"}
		r.upload(contents)
		for _, end := range []func(doc ClaimedDocument) error{
			func(doc ClaimedDocument) error {
				return r.s.Queue.MarkUnreadable(t.Context(), doc, "permission denied")
			},
			func(doc ClaimedDocument) error { return r.s.Queue.MarkVanished(t.Context(), doc) },
		} {
			_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
			r.must(err)
			docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
			r.must(err)
			r.must(end(docs[0]))
			r.want("a.md=completed")
			r.put("a.md")
			if up, _ := r.resolve(contents, Sharing{}); len(up) != 1 {
				t.Fatal("the document is not uploaded again")
			}
			_, err = r.s.Journal.Recover(t.Context(), r.sync.ID)
			r.must(err)
		}
	})
}

// A sync goes to another knowledge base. Only documents that are to be uploaded become pending there.
func TestMoveToAnotherKnowledgeBaseLeavesSkippedAndRemovedDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("blocked.md", "live.md", "removed.md")
		r.upload(map[string]string{"blocked.md": "B", "live.md": "L", "removed.md": "R"})
		r.vanish("removed.md")
		r.put("blocked.md")
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.Block(t.Context(), claimed, []string{"a web page"}))
		scan, err := r.s.Scans.Begin(t.Context(), r.sync.ID, "")
		r.must(err)
		r.must(r.s.Scans.Record(t.Context(), scan, []Change{{Op: Skip, Key: "skipped.md", Reason: "left out"}}))
		_, err = r.s.Scans.Finish(t.Context(), scan, "1:2")
		r.must(err)
		other := testDestination
		other.KnowledgeBase++
		r.sync, err = r.s.Syncs.Ensure(t.Context(), r.sync.Name, r.sync.Root, other, true)
		r.must(err)
		r.want("blocked.md=skipped live.md=pending removed.md=removed skipped.md=skipped")
	})
}
