package state

import (
	"strings"
	"testing"
)

// Holding has the live sources of a document's content, and the number of documents that a new version of it would not change.
func TestHolding(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "twin.md", "new.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "twin.md": "A", "new.md": "N"}, Sharing{})
		var first []HashedDocument
		for _, d := range docs {
			if d.Key == "a.md" {
				first = append(first, d)
			}
		}
		ids := r.accept(r.seal(first), 1)
		r.trained(TrainingCompleted, ids...)
		h, err := r.s.Inventory.Holding(r.ctx(), r.sync.ID, "a.md")
		r.must(err)
		if h.DocumentID == 0 || h.ContentID == 0 || h.SHA256 != hash("A") || h.Documents < 1 || len(h.Sources) != 1 || h.Sources[0] != ids[0] {
			t.Errorf("a.md: %+v, want the source %v", h, ids)
		}
		if h, err := r.s.Inventory.Holding(r.ctx(), r.sync.ID, "new.md"); err != nil || h.DocumentID == 0 || h.ContentID != 0 || h.Sources != nil {
			t.Errorf("new.md: %+v, %v", h, err)
		}
		if h, err := r.s.Inventory.Holding(r.ctx(), r.sync.ID, "unknown.md"); err != nil || h.DocumentID != 0 {
			t.Errorf("unknown.md: %+v, %v", h, err)
		}
	})
}

// An inventory keeps its ID through an export and an import. Its generation grows with each upload.
func TestIdentity(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		before, err := r.s.Identity(r.ctx())
		r.must(err)
		if len(before.ID) != 32 || before.Generation != 0 {
			t.Errorf("a new state: %+v", before)
		}
		populated(r)
		after, err := r.s.Identity(r.ctx())
		r.must(err)
		if after.ID != before.ID || after.Generation <= before.Generation {
			t.Errorf("after uploads: %+v, was %+v", after, before)
		}
		to := r.open(r.make(t))
		other, err := to.Identity(r.ctx())
		r.must(err)
		if other.ID == before.ID && !r.s.Shared() { // the databases of tests are copies of one
			t.Error("two states have one ID")
		}
		r.must(to.Import(r.ctx(), strings.NewReader(export(t, r.s))))
		if imported, err := to.Identity(r.ctx()); err != nil || imported != after {
			t.Errorf("imported: %+v, %v; want %+v", imported, err, after)
		}
	})
}
