package state

import (
	"slices"
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

// The content and the sources of other documents are no part of a holding.
func TestHoldingIsOfOneContent(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "twin.md", "b.md", "c.md")
		contents := map[string]string{"a.md": "A", "twin.md": "A", "b.md": "B", "c.md": "C"}
		docs, _ := r.resolve(contents, Sharing{})
		docs = slices.DeleteFunc(docs, func(d HashedDocument) bool { return d.Key == "twin.md" })
		var sources [][]int64
		of := map[string][]int64{}
		for i, d := range docs {
			ids := []int64{int64(10*i + 1), int64(10*i + 2)}
			sources, of[contents[d.Key]] = append(sources, ids), ids
		}
		r.acceptNamed(r.seal(docs), sources...)
		_, err := r.s.Journal.Recover(r.ctx(), r.sync.ID) // gives the twin back
		r.must(err)
		r.resolve(contents, Sharing{})
		for key, content := range contents {
			h, err := r.s.Inventory.Holding(r.ctx(), r.sync.ID, key)
			r.must(err)
			documents := 1
			if content == "A" {
				documents = 2
			}
			if h.Documents != documents || h.SHA256 != hash(content) || !slices.Equal(h.Sources, of[content]) {
				t.Errorf("%s: %+v, want %d documents and the sources %v", key, h, documents, of[content])
			}
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
