package state

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// age moves everything that the state knows into the past.
func (r *fixture) age(by time.Duration) {
	r.t.Helper()
	r.must(r.s.update(r.ctx(), func(t *tx) error {
		for _, column := range []string{"documents SET changed_at = changed_at", "contents SET since = since", "syncs SET scanned_at = scanned_at", "batches SET ended_at = ended_at"} {
			if _, err := t.exec(`UPDATE `+column+` - $1`, by.Milliseconds()); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (r *fixture) progress() Progress {
	r.t.Helper()
	p, err := r.s.Documents.Progress(r.ctx(), r.sync.ID)
	r.must(err)
	return p
}

// about says whether at lies the given time back, give or take a minute.
func about(at time.Time, ago time.Duration) bool {
	return !at.IsZero() && (time.Since(at)-ago).Abs() < time.Minute
}

func TestProgressCountsFromTheLongestWaitingDocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		if p := r.progress(); p != (Progress{}) {
			t.Fatalf("nothing is known, and progress is %+v", p)
		}
		r.put("a.md")
		r.age(time.Hour)
		r.put("b.md")
		r.age(time.Hour)
		if p := r.progress(); !about(p.PendingSince, 2*time.Hour) || !about(p.UnfinishedSince, 2*time.Hour) || !p.AcceptedAt.IsZero() {
			t.Fatalf("two pending: %+v", p)
		}
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		batch := r.seal(docs)
		if p := r.progress(); !about(p.PendingSince, 2*time.Hour) {
			t.Fatalf("sealed: %+v", p)
		}
		ids := r.accept(batch, 2)
		if p := r.progress(); !p.PendingSince.IsZero() || !about(p.UnfinishedSince, 2*time.Hour) || !about(p.AcceptedAt, 0) {
			t.Fatalf("in training: %+v", p)
		}
		r.trained(TrainingCompleted, ids[0])
		r.trained(TrainingFailed, ids[1])
		if p := r.progress(); !about(p.UnfinishedSince, time.Hour) {
			t.Fatalf("b.md failed: %+v", p)
		}
		r.vanish("b.md")
		if p := r.progress(); !p.UnfinishedSince.IsZero() {
			t.Fatalf("all is completed: %+v", p)
		}

		// A document that a person marked waits since then, not since the file changed.
		r.age(240 * time.Hour)
		n, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
		r.must(err)
		if p := r.progress(); n != 1 || !about(p.PendingSince, 0) || !about(p.AcceptedAt, 240*time.Hour) {
			t.Fatalf("%d marked: %+v", n, p)
		}
		ids = r.upload(map[string]string{"a.md": "A"})
		r.age(240 * time.Hour)
		_, err = r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids)
		r.must(err)
		if p := r.progress(); !about(p.PendingSince, 0) {
			t.Fatalf("its source is gone: %+v", p)
		}
		r.upload(map[string]string{"a.md": "A"})
		r.age(240 * time.Hour)
		other := testDestination
		other.KnowledgeBase++
		r.sync, err = r.s.Syncs.Ensure(t.Context(), r.sync.Name, r.sync.Root, other, true)
		r.must(err)
		if p := r.progress(); !about(p.PendingSince, 0) {
			t.Fatalf("another destination: %+v", p)
		}
	})
}

func TestNeedingAttentionAndRecentBatches(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md", "c.md", "d.md", "e.md")
		contents := map[string]string{"a.md": "A", "b.md": "B", "c.md": "C", "d.md": "D", "e.md": "E"}
		docs, _ := r.resolve(contents, Sharing{})
		refused := r.seal(docs[4:])
		r.must(r.s.Journal.Refuse(t.Context(), refused, Refusal{StatusCode: 422, Message: "too odd", Disposition: Fail}))
		r.age(time.Hour)
		accepted := r.seal(docs[:3])
		ids := r.accept(accepted, 3)
		r.trained(TrainingCompleted, ids[0])
		r.trained(TrainingFailed, ids[1])
		r.age(time.Hour)
		r.trained(TrainingStuck, ids[2])
		r.age(time.Hour)
		lost := r.seal(docs[3:4])
		if _, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "the gateway went away"); err != nil {
			t.Fatal(err)
		}

		var got []string
		all, err := r.s.Documents.NeedingAttention(t.Context(), r.sync.ID, 10)
		r.must(err)
		for _, d := range all {
			got = append(got, fmt.Sprintf("%s %s %s %q", d.Sync, d.Key, d.State, d.Reason))
			if single, err := r.s.Documents.Get(t.Context(), r.sync.ID, d.Key); err != nil || single != d {
				t.Errorf("Document differs: %+v, %v", single, err)
			}
		}
		want := `[handbook d.md uncertain "the gateway went away" handbook c.md stuck "" handbook b.md failed "ReplyCX reported that its training failed" handbook e.md failed "too odd"]`
		if fmt.Sprint(got) != want {
			t.Errorf("documents that need attention: %v\nwant %s", got, want)
		}
		two, err := r.s.Documents.NeedingAttention(t.Context(), r.sync.ID, 2)
		r.must(err)
		if len(two) != 2 || two[0] != all[0] || two[1] != all[1] {
			t.Errorf("limited to two: %v", two)
		}

		got = nil
		batches, err := r.s.Journal.Recent(t.Context(), 10)
		r.must(err)
		for _, b := range batches {
			got = append(got, fmt.Sprintf("%d %s %s %d/%d %d %q", b.ID, b.Sync, b.State, b.Documents, b.Bytes, b.StatusCode, b.Message))
			if b.BegunAt.IsZero() || b.EndedAt.IsZero() {
				t.Errorf("batch without times: %+v", b)
			}
		}
		want = fmt.Sprintf(`[%d handbook uncertain 1/10 502 "the gateway went away" %d handbook accepted 3/30 200 "" %d handbook refused 1/10 422 "too odd"]`, lost.ID(), accepted.ID(), refused.ID())
		if fmt.Sprint(got) != want {
			t.Errorf("batches: %v\nwant %s", got, want)
		}
		if one, err := r.s.Journal.Recent(t.Context(), 1); err != nil || len(one) != 1 || one[0] != batches[0] {
			t.Errorf("limited to one: %v, %v", one, err)
		}
	})
}

func TestVersionChangesWithEveryWrite(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		version := func() int64 {
			t.Helper()
			v, err := r.s.Version(t.Context())
			r.must(err)
			return v
		}
		first := version()
		for range 3 {
			if _, err := r.s.Documents.Counts(t.Context(), r.sync.ID); err != nil {
				t.Fatal(err)
			}
			// PostgreSQL counts the transactions of all its databases.
			if v := version(); v != first && !r.s.Shared() {
				t.Fatalf("reading made %d of %d", v, first)
			}
		}
		seen := map[int64]bool{first: true}
		changed := func(by string) {
			t.Helper()
			v := version()
			if seen[v] {
				t.Errorf("%s: still %d", by, v)
			}
			seen[v] = true
		}
		r.put("a.md")
		changed("a scan")
		r.must(r.s.Syncs.SetLastError(t.Context(), r.sync.ID, "no root"))
		changed("a note")

		other, err := Open(t.Context(), r.opts)
		r.must(err)
		_, err = other.Queue.Mark(t.Context(), r.sync.ID, Selection{})
		r.must(err)
		changed("another process")
		r.must(other.Close())

		// A cancelled call costs at most one read too many.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.s.Version(ctx); err == nil {
			t.Error("answered although the context had ended")
		}
		version()
		r.put("b.md")
		changed("a scan after that")
	})
}

// A destination has a document in training only while a document waits for it.
func TestAnyInTraining(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		want := func(want bool, when string) {
			t.Helper()
			if got, err := r.s.Documents.AnyInTraining(t.Context(), r.sync.Destination.ID); err != nil || got != want {
				t.Errorf("%s: in training %v, %v", when, got, err)
			}
		}
		r.put("a.md", "lost.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "lost.md": "L"}, Sharing{})
		_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[1:]), 502, "lost")
		r.must(err)
		want(false, "a document is uncertain")
		u := r.sealProbe(docs[:1])
		want(false, "it is uploading")
		ids := r.accept(u, 1)
		want(true, "it is in training")
		r.put("a.md")
		want(false, "it has changed")
		r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		want(true, "it has changed back")
		r.trained(TrainingCompleted, ids...)
		want(false, "it is completed")
	})
}

// What needs the attention of a person is what failed, is stuck or uncertain, and an upload that was lost is no accepted one.
func TestAttentionAndLastUploadOfEachState(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		recordLife(r, nil)
		r.leaveOneOfEach()
		docs, err := r.s.Documents.NeedingAttention(t.Context(), r.sync.ID, 100)
		r.must(err)
		states := map[DocumentState]bool{}
		for _, d := range docs {
			states[d.State] = true
		}
		if len(states) != 3 || !states[Failed] || !states[Stuck] || !states[Uncertain] {
			t.Errorf("these need attention: %v", states)
		}
		r.age(time.Hour)
		r.closeBreaker()
		r.put("lost later.md")
		upload, _ := r.resolve(map[string]string{"lost later.md": "later", "pending.md": "1", "large.md": "L"}, Sharing{})
		_, err = r.s.Journal.MarkUncertain(t.Context(), r.seal(upload), 502, "lost")
		r.must(err)
		if at := r.progress().AcceptedAt; !about(at, time.Hour) {
			t.Errorf("the last upload was accepted at %v, want an hour ago", at)
		}
	})
}
