package state

import (
	"testing"
	"time"
)

// Times that were written while the clock was ten years ahead, or that a caller asks for, hold nothing back for long.
func TestTimesTooFarAheadAreDue(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		tenYears := int64(10 * 365 * 24 * time.Hour / time.Millisecond)
		ahead := func(r *fixture, query string, args ...any) {
			r.t.Helper()
			r.must(r.s.update(r.ctx(), func(t *tx) error {
				_, err := t.exec(query, append([]any{now() + tenYears}, args...)...)
				return err
			}))
		}
		due := func(r *fixture) {
			r.t.Helper()
			at, err := r.s.Queue.NextDue(r.ctx(), r.sync.ID, time.Minute)
			r.must(err)
			if at.IsZero() || time.Until(at) > 0 {
				r.t.Errorf("the queue is due at %v", at)
			}
		}

		t.Run("pause", func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md")
			ahead(r, `UPDATE destinations SET paused_until = $1`)
			due(r)
			if _, until, err := r.s.Journal.Breaker(t.Context(), r.sync.Destination.ID); err != nil || !until.IsZero() {
				t.Errorf("paused until %v, %v", until, err)
			}
			if docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10); err != nil || len(docs) != 1 {
				t.Errorf("claimed %v, %v", docs, err)
			}
			r.must(r.s.Journal.Pause(t.Context(), r.sync.Destination.ID, time.Now().Add(time.Hour)))
			if _, until, err := r.s.Journal.Breaker(t.Context(), r.sync.Destination.ID); err != nil || until.IsZero() {
				t.Errorf("a real pause is not recorded: %v, %v", until, err)
			}
			r.must(r.s.Journal.Pause(t.Context(), r.sync.Destination.ID, time.Now().Add(100*24*time.Hour)))
			if _, until, err := r.s.Journal.Breaker(t.Context(), r.sync.Destination.ID); err != nil || until.IsZero() || time.Until(until) > maxWait {
				t.Errorf("a pause of 100 days ends at %v, %v", until, err)
			}
		})
		t.Run("next attempt", func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md")
			ahead(r, `UPDATE documents SET next_attempt = $1`)
			due(r)
			docs, err := r.s.Queue.ClaimSmallest(t.Context(), r.sync.ID, time.Minute)
			if err != nil || len(docs) != 1 {
				t.Fatalf("claimed %v, %v", docs, err)
			}
			r.must(r.s.Queue.Release(t.Context(), docs, time.Now().Add(100*24*time.Hour), true))
			at, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, -1)
			if err != nil || time.Until(at) > maxWait {
				t.Errorf("a delay of 100 days ends at %v, %v", at, err)
			}
		})
		t.Run("rest of a changed document", func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md", "b.md")
			r.upload(map[string]string{"a.md": "A", "b.md": "B"})
			scan, err := r.s.Scans.Begin(t.Context(), r.sync.ID, "")
			r.must(err)
			scan.Rest = 7 * 24 * time.Hour
			r.must(r.s.Scans.Record(t.Context(), scan, []Change{{Op: Put, Key: "a.md"}, {Op: Put, Key: "b.md"}}))
			if docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10); err != nil || len(docs) != 0 {
				t.Fatalf("claimed %v although they rest for a week, %v", docs, err)
			}
			ahead(r, `UPDATE documents SET changed_at = $1, next_attempt = $1 WHERE key = $2`, []byte("a.md"))
			due(r)
			if docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10); err != nil || len(docs) != 1 || docs[0].Key != "a.md" {
				t.Fatalf("claimed %v, %v", docs, err)
			}
		})
		t.Run("uncertain since", func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
			_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs), 502, "bad gateway")
			r.must(err)
			ahead(r, `UPDATE contents SET since = $1`)
			if at, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, time.Minute); err != nil || time.Until(at) > 0 {
				t.Errorf("to be sent again at %v, %v", at, err)
			}
			if docs, err := r.s.Queue.ClaimResends(t.Context(), r.sync.ID, time.Minute, 10); err != nil || len(docs) != 1 {
				t.Errorf("claimed %v, %v", docs, err)
			}
		})
		t.Run("next poll", func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md", "b.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
			ids := r.accept(r.seal(docs), 2)
			later := time.Now().Add(time.Minute)
			r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{
				{SourceID: ids[0], NextPoll: later}, {SourceID: ids[1], NextPoll: later},
			}))
			ahead(r, `UPDATE contents SET next_poll = $1 WHERE source_id = (SELECT max(source_id) FROM contents)`)
			if at, err := r.s.Inventory.NextPoll(t.Context(), r.sync.Destination.ID); err != nil || at.IsZero() || time.Until(at) > 0 {
				t.Errorf("next poll at %v, %v", at, err)
			}
			due, err := r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, 0, 10)
			if err != nil || len(due) != 1 || due[0].ID != ids[1] {
				t.Errorf("due %v, %v", due, err)
			}
			r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{{SourceID: ids[1], Polls: 1, NextPoll: time.Now().Add(100 * 24 * time.Hour)}}))
			due, err = r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, 0, 10)
			if err != nil || len(due) != 0 {
				t.Errorf("a source that was just polled is due again: %v, %v", due, err)
			}
		})
		t.Run("message", func(t *testing.T) {
			r := newFixture(t)
			_, err := r.enqueue("failure", nil, "a")
			r.must(err)
			ahead(r, `UPDATE outbox SET next_attempt = $1`)
			if at, err := r.s.Outbox.NextDue(t.Context(), r.sync.ID); err != nil || at.IsZero() || time.Until(at) > 0 {
				t.Errorf("next message at %v, %v", at, err)
			}
			if due, err := r.s.Outbox.Due(t.Context(), r.sync.ID, 10); err != nil || len(due) != 1 {
				t.Errorf("due %v, %v", due, err)
			}
		})
	})
}
