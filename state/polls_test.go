package state

import (
	"testing"
	"time"
)

// A document with several sources has a row for each. One whose training has ended meanwhile is not polled again.
func TestPostponedSourcesOfOneDocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		_, err := r.s.Journal.Accept(t.Context(), r.seal(docs), Answer{
			StatusCode: 200, NextPoll: time.Now(), Sources: [][]SourceAnswer{{{ID: 1, Status: "in-progress"}, {ID: 2, Status: "in-progress"}}},
		})
		r.must(err)
		inventory, destination := r.s.Inventory, r.sync.Destination.ID
		due, err := inventory.DueSources(t.Context(), destination, 0, 10)
		r.must(err)
		r.trained(TrainingCompleted, 1)
		r.must(inventory.PostponePolls(t.Context(), destination, due, time.Now()))
		if due, err := inventory.DueSources(t.Context(), destination, 0, 10); err != nil || len(due) != 1 || due[0].ID != 2 {
			t.Errorf("due: %v, %v; want only 2", due, err)
		}
	})
}

func TestPostponedSourcesAreDueLaterUnlessTheirTrainingHasEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		ids := r.accept(r.seal(docs), 2)
		inventory, destination := r.s.Inventory, r.sync.Destination.ID
		due, err := inventory.DueSources(t.Context(), destination, 0, 10)
		r.must(err)
		if len(due) != 2 {
			t.Fatalf("%d due, want 2", len(due))
		}
		r.must(inventory.RecordPolls(t.Context(), destination, []Poll{{SourceID: ids[0], Polls: due[0].Polls, Status: "completed", Outcome: TrainingCompleted}}))
		until := time.Now().Add(time.Hour)
		r.must(inventory.PostponePolls(t.Context(), destination, due, until))
		if due, err := inventory.DueSources(t.Context(), destination, time.Minute, 10); err != nil || len(due) != 0 {
			t.Errorf("due: %v, %v", due, err)
		}
		if next, err := inventory.NextPoll(t.Context(), destination); err != nil || next.Sub(until).Abs() > time.Second {
			t.Errorf("next poll at %v, %v; want %v", next, err, until)
		}
		later, err := inventory.DueSources(t.Context(), destination, 61*time.Minute, 10)
		r.must(err)
		if len(later) != 0 {
			t.Errorf("nothing is due, so nothing fills a request: %v", later)
		}
		r.must(inventory.PostponePolls(t.Context(), destination, due, time.Now()))
		if due, err := inventory.DueSources(t.Context(), destination, 0, 10); err != nil || len(due) != 1 || due[0].ID != ids[1] {
			t.Errorf("due: %v, %v; want only %d", due, err, ids[1])
		}
	})
}
