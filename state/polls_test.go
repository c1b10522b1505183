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

// DueSources returns the due source and the source that is due soon. It returns no later source, from either table.
func TestDueSourcesBringNoneThatIsNotDue(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("due.md", "one.md", "several.md")
		docs, _ := r.resolve(map[string]string{"due.md": "D", "one.md": "O", "several.md": "S"}, Sharing{})
		next := func(id int64, at time.Duration) Poll {
			return Poll{SourceID: id, Status: "in-progress", NextPoll: time.Now().Add(at)}
		}
		_, err := r.s.Journal.Accept(t.Context(), r.seal(docs), Answer{
			StatusCode: 200, NextPoll: time.Now(), Sources: [][]SourceAnswer{
				{{ID: 1, Type: "file", Name: usualName("due.md"), Status: "in-progress"}},
				{{ID: 2, Type: "file", Name: usualName("one.md"), Status: "in-progress"}},
				{{ID: 3}, {ID: 4}},
			},
		})
		r.must(err)
		destination := r.sync.Destination.ID
		r.must(r.s.Inventory.RecordPolls(t.Context(), destination, []Poll{next(1, 0), next(2, time.Hour), next(3, time.Hour), next(4, time.Minute)}))
		due, err := r.s.Inventory.DueSources(t.Context(), destination, 2*time.Minute, 10)
		r.must(err)
		if len(due) != 2 || due[0].ID != 1 || due[1].ID != 4 {
			t.Errorf("due: %+v; want 1, and 4, which is due soon", due)
		}
	})
}

// A source that is gone is no proof that the API works.
func TestAnySourceIsOneThatExists(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		ids := r.upload(map[string]string{"a.md": "A", "b.md": "B"})
		_, err := r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids[1:])
		r.must(err)
		if id, err := r.s.Inventory.AnySource(t.Context(), r.sync.Destination.ID); err != nil || id != ids[0] {
			t.Errorf("source %d, %v; want %d", id, err, ids[0])
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
