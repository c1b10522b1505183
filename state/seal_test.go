package state

import (
	"errors"
	"testing"
)

// A connection may be lost while the seal of the batch that the breaker lets through is committed. The process sends no last byte
// then, so it refuses the batch, whose row it knows.
func TestSealOfAProbeWhoseCommitWasNotSeenIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[:1]), 0, "reset")
		r.must(err)
		b, seals := spec(r, docs[1:])
		b.Probe = true
		probe, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.sealUnseen(probe, seals)
		r.must(r.s.Journal.Refuse(t.Context(), probe, Refusal{Disposition: Requeue, Message: "not sent"}))
		r.want("a.md=uncertain b.md=pending")
		if _, err := r.s.Journal.Begin(t.Context(), b); err != nil {
			t.Errorf("another batch cannot be tried: %v", err)
		}
		findings, err := r.s.Check(t.Context())
		if err != nil || len(findings) > 0 {
			t.Errorf("the state is not sound: %v, %v", findings, err)
		}
	})
}

// The same with several documents, which an earlier batch has sent in vain: the process reads which content each has.
func TestRefusalOfASealThatWasNotSeenEndsEachDocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A1", "b.md": "B1"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs), Refusal{Disposition: Requeue, StatusCode: 429}))
		r.put("a.md", "b.md", "lost.md")
		docs, _ = r.resolve(map[string]string{"a.md": "A2", "b.md": "B2", "lost.md": "L"}, Sharing{})
		_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[2:]), 0, "reset")
		r.must(err)
		b, seals := spec(r, docs[:2])
		b.Probe = true
		probe, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.sealUnseen(probe, seals)
		r.must(r.s.Journal.Refuse(t.Context(), probe, Refusal{Disposition: Requeue, Message: "not sent"}))
		r.want("a.md=pending b.md=pending lost.md=uncertain")
	})
}

// sealUnseen seals a batch, and loses the connection during the commit.
func (r *fixture) sealUnseen(u *Upload, seals []Seal) {
	r.t.Helper()
	lost := errors.New("the connection was lost during the commit")
	inner := r.s.backend
	Surround(r.s, func(_ string, transact func() error) error { return errors.Join(transact(), lost) })
	err := r.s.Journal.Seal(r.ctx(), u, seals)
	r.s.backend = inner
	if !errors.Is(err, lost) {
		r.t.Fatalf("seal: %v", err)
	}
}
