package state

import (
	"testing"
	"time"
)

func TestLimitsEndWithAnAcceptedRequestOfTheRefusedSize(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		batch := func(keys ...string) *Upload {
			r.put(keys...)
			contents := map[string]string{}
			for _, k := range keys {
				contents[k] = k
			}
			docs, _ := r.resolve(contents, Sharing{})
			return r.seal(docs)
		}
		want := func(accepted, refused int64) {
			t.Helper()
			l, err := r.s.Journal.Limits(t.Context(), r.sync.Destination.ID)
			r.must(err)
			known := !l.RefusedAt.IsZero() && time.Since(l.RefusedAt) < time.Minute
			if l.LargestAccepted != accepted || l.SmallestRefused != refused || known != (refused > 0) {
				t.Fatalf("got %+v, want %d accepted and %d refused", l, accepted, refused)
			}
		}
		refuse := func(batch *Upload) {
			r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{StatusCode: 413, Disposition: Fail}))
		}
		want(0, 0)
		refuse(batch("a", "b")) // each of 10 bytes
		want(0, 20)
		refuse(batch("c", "d", "e"))
		want(0, 20)
		r.accept(batch("f"), 1)
		want(10, 20)
		r.accept(batch("g", "h", "i"), 3)
		want(30, 0)
		refuse(batch("j", "k"))
		want(30, 20)
	})
}

// The time of a refusal as too large is that of this destination, and not of another refusal.
func TestTimeOfTheLastRefusalAsTooLarge(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		refuse := func(r *fixture, status int) {
			t.Helper()
			r.put("a.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
			r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs), Refusal{Disposition: Requeue, StatusCode: status}))
		}
		n := r.neighbour("neighbour")
		refuse(r, 413)
		want := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		r.must(r.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`UPDATE batches SET ended_at = $1`, want.UnixMilli())
			return err
		}))
		refuse(n, 413)
		refuse(r, 429)
		l, err := r.s.Journal.Limits(t.Context(), r.sync.Destination.ID)
		r.must(err)
		if !l.RefusedAt.Equal(want) || l.SmallestRefused != 10 {
			t.Errorf("limits %+v, want a refusal at %v", l, want)
		}
	})
}
