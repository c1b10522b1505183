package state

import (
	"testing"
	"time"
)

// The next due time is one at which a claim of the same sync returns a document. Else a loop that waits for it would not wait.
func TestNextDueIsOfADocumentThatCanBeClaimed(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		n := r.neighbour()
		n.put("due.md", "wrong.md")
		r.put("claimed.md", "wrong.md", "later.md")
		docs, _ := r.resolve(nil, Sharing{})
		later := docs[2].ClaimedDocument
		if later.Key != "later.md" {
			t.Fatalf("claimed %+v", docs)
		}
		r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{later}, time.Now().Add(time.Hour), true))
		// A clock that was wrong for a moment set the next attempts of a claimed document, and of a document of another sync.
		r.must(r.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`UPDATE documents SET attempts = 1, next_attempt = $1 WHERE key = $2`,
				time.Now().AddDate(1, 0, 0).UnixMilli(), []byte("wrong.md"))
			return err
		}))
		due, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, -1)
		r.must(err)
		if d := time.Until(due); d < 50*time.Minute || d > time.Hour {
			t.Errorf("due in %v, want an hour", d)
		}
	})
}

// A resend takes one batch at a time, as a part of another one may still be answered.
func TestResendTakesTheDocumentsOfOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		first, second := r.seal(docs[:1]), r.seal(docs[1:])
		for _, u := range []*Upload{first, second} {
			_, err := r.s.Journal.MarkUncertain(t.Context(), u, 502, "bad gateway")
			r.must(err)
		}
		for _, lost := range []*Upload{first, second} {
			again, err := r.s.Queue.ClaimResends(t.Context(), r.sync.ID, 0, 10)
			r.must(err)
			if len(again) != 1 || again[0].ResendOf != lost.ID() || again[0].Key != lost.spec.Members[0].Key {
				t.Errorf("%+v are sent again, want the document of batch %d", again, lost.ID())
			}
		}
	})
}
