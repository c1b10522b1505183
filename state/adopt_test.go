package state

import (
	"slices"
	"testing"
)

// adopt adopts all pending documents; sources and former are by key.
func (r *fixture) adopt(contents map[string]string, sources, former map[string][]SourceAnswer) (adopted []string) {
	r.t.Helper()
	docs, err := r.s.Queue.ClaimAll(r.ctx(), r.sync.ID, 0, 100)
	r.must(err)
	var adoptions []Adoption
	for _, d := range docs {
		adoptions = append(adoptions, Adoption{
			HashedDocument: HashedDocument{ClaimedDocument: d, SHA256: hash(contents[d.Key]), Size: 10},
			Name:           usualName(d.Key), Sources: sources[d.Key], Former: former[d.Key],
		})
	}
	ok, err := r.s.Journal.Adopt(r.ctx(), r.sync.ID, adoptions, Sharing{})
	r.must(err)
	for i, d := range docs {
		if ok[i] {
			adopted = append(adopted, d.Key)
		}
	}
	slices.Sort(adopted)
	return adopted
}

func trainedSource(id int64, name string) []SourceAnswer {
	return []SourceAnswer{{ID: id, Type: "file", Name: name, Status: "completed", Outcome: TrainingCompleted}}
}

func TestAdoptedDocumentsAreNotUploaded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		contents := map[string]string{"a.md": "A", "b.md": "B", "copy of b.md": "B", "listed.md": "L"}
		r.put("a.md", "b.md", "copy of b.md", "listed.md")
		r.must(r.s.Scans.SetGate(r.ctx(), r.sync.ID, true)) // another process must claim nothing
		adopted := r.adopt(contents, map[string][]SourceAnswer{"listed.md": trainedSource(4711, "listed.md")},
			map[string][]SourceAnswer{"listed.md": trainedSource(4000, "listed.md")})
		if len(adopted) != 4 {
			t.Fatalf("adopted %v", adopted)
		}
		r.must(r.s.Scans.SetGate(r.ctx(), r.sync.ID, false))
		r.want("a.md=completed b.md=completed copy of b.md=completed listed.md=completed")
		rows := r.worksheet()
		if len(rows) != 4 {
			t.Fatalf("the inventory has %v", r.standings())
		}
		r.wantRow(rows[-1], Live, []string{"a.md"})
		r.wantRow(rows[-2], Live, []string{"b.md", "copy of b.md"})
		r.wantRow(rows[4711], Live, []string{"listed.md"})
		r.wantRow(rows[4000], Superseded, nil, 4711)
		if rows[4000].SHA256 != (SHA256{}) {
			t.Error("a source of unknown content has a hash")
		}
		if due, err := r.s.Inventory.DueSources(r.ctx(), r.sync.Destination.ID, 0, 10); err != nil || len(due) > 0 {
			t.Errorf("asks for %v, %v", due, err)
		}
		if again := r.adopt(contents, nil, nil); len(again) > 0 {
			t.Errorf("adopted %v twice", again)
		}
	})
}

// A source of unknown id is left behind like any other: it is found by its name. kbsync cannot ask whether it is still there,
// so a document that returns to its content is uploaded, and the old source is to be removed.
func TestSourceOfUnknownIDIsLeftBehind(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		r.adopt(map[string]string{"a.md": "A1", "b.md": "B"}, nil, nil)
		r.put("a.md")
		second := r.upload(map[string]string{"a.md": "A2"})
		r.wantRow(r.worksheet()[-1], Superseded, nil, second[0])
		r.put("a.md")
		third := r.upload(map[string]string{"a.md": "A1"})
		if len(third) != 1 {
			t.Fatal("a content was shared that may be gone")
		}
		rows := r.worksheet()
		r.wantRow(rows[-1], Superseded, []string{"a.md"}, third[0])
		r.wantRow(rows[second[0]], Superseded, nil, third[0])
		r.vanish("b.md")
		r.wantRow(r.worksheet()[-2], Orphaned, nil)
		_, err := r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, []int64{-1, -2, second[0]})
		r.must(err)
		if left := r.worksheet(Superseded, Orphaned); len(left) > 0 {
			t.Errorf("%d sources are left behind after their removal", len(left))
		}
		// A live one that a person removed is uploaded again.
		r.put("c.md")
		r.adopt(map[string]string{"c.md": "C"}, nil, nil)
		if n, err := r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, []int64{-3}); err != nil || n != 1 {
			t.Errorf("%d pending, %v", n, err)
		}
		r.want("a.md=completed b.md=removed c.md=pending")
	})
}

func TestAdoptionTakesNoSourceTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		r.adopt(map[string]string{"a.md": "A1"}, map[string][]SourceAnswer{"a.md": trainedSource(7, "a.md")}, nil)
		// The edited document is not what source 7 has.
		r.put("a.md")
		if adopted := r.adopt(map[string]string{"a.md": "A2"}, map[string][]SourceAnswer{"a.md": trainedSource(7, "a.md")}, nil); len(adopted) > 0 {
			t.Fatal("adopted with a source of another content")
		}
		r.want("a.md=pending")
		// Copies of one content may have a source each.
		r.put("a.md", "b.md")
		r.adopt(map[string]string{"a.md": "A1", "b.md": "A1"}, map[string][]SourceAnswer{
			"a.md": trainedSource(7, "a.md"), "b.md": trainedSource(8, "b.md"),
		}, nil)
		r.wantStanding(7, Live)
		r.wantStanding(8, Live)
		// A failed content is adopted when a person says that it is there.
		r.put("f.md")
		docs, _ := r.resolve(map[string]string{"f.md": "F"}, Sharing{})
		r.trained(TrainingFailed, r.accept(r.seal(docs), 1)...)
		r.put("g.md")
		r.adopt(map[string]string{"g.md": "F"}, map[string][]SourceAnswer{"g.md": trainedSource(9, "g.md")}, nil)
		r.want("a.md=completed b.md=completed f.md=completed g.md=completed")
		n, err := r.s.Journal.AdoptStrays(r.ctx(), r.sync.ID, slices.Concat(trainedSource(7, "a.md"), trainedSource(10, "x.md")))
		if err != nil || n != 1 {
			t.Fatalf("%d strays, %v", n, err)
		}
		r.wantStanding(10, Orphaned)
		if row := r.worksheet()[10]; row.Name != "x.md" || row.LeftAt.IsZero() {
			t.Errorf("%+v", row)
		}
	})
}

// A number that is taken for an id would be asked for, and may be that of another customer's source.
func TestSourceOfUnknownIDHasANegativeNumberBesideKnownOnes(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("listed.md")
		r.adopt(map[string]string{"listed.md": "L"}, map[string][]SourceAnswer{"listed.md": trainedSource(4711, "listed.md")},
			map[string][]SourceAnswer{"listed.md": trainedSource(4000, "listed.md")})
		r.put("a.md")
		r.adopt(map[string]string{"a.md": "A"}, nil, nil)
		r.put("b.md")
		r.adopt(map[string]string{"b.md": "B"}, nil, nil)
		rows := r.worksheet()
		if len(rows) != 4 {
			t.Errorf("the inventory has %v", r.standings())
		}
		r.wantRow(rows[-1], Live, []string{"a.md"})
		r.wantRow(rows[-2], Live, []string{"b.md"})
	})
}
