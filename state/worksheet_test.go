package state

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// worksheet returns the rows of the worksheet by id.
func (r *fixture) worksheet(standings ...Standing) map[int64]WorksheetRow {
	r.t.Helper()
	rows := map[int64]WorksheetRow{}
	for row, err := range r.s.Inventory.Worksheet(r.ctx(), SourceFilter{Standings: standings}) {
		r.must(err)
		rows[row.ID] = row
	}
	return rows
}

func (r *fixture) wantRow(row WorksheetRow, standing Standing, documents []string, replacedBy ...int64) {
	r.t.Helper()
	var keys []string
	for _, d := range row.Documents {
		keys = append(keys, d.Key)
	}
	if row.Standing != standing || !slices.Equal(keys, documents) || !slices.Equal(row.ReplacedBy, replacedBy) {
		r.t.Errorf("source %d is %s with %v, replaced by %v; want %s with %v, replaced by %v",
			row.ID, row.Standing, keys, row.ReplacedBy, standing, documents, replacedBy)
	}
	left := standing == Superseded || standing == Orphaned
	if left != !row.LeftAt.IsZero() || left && time.Since(row.LeftAt) > time.Hour {
		r.t.Errorf("source %d, which is %s, was left at %v", row.ID, standing, row.LeftAt)
	}
}

func TestWorksheetNamesDocumentsAndReplacements(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("edited.md", "gone.md", "old name.md", "kept.md")
		first := r.upload(map[string]string{"edited.md": "E1", "gone.md": "G", "old name.md": "R", "kept.md": "K"})
		// A rename shares the content, an edit replaces it.
		r.put("edited.md", "new name.md")
		second := r.upload(map[string]string{"edited.md": "E2", "new name.md": "R"})
		r.vanish("gone.md", "old name.md")
		// A reindex makes a second source of the same content.
		_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Match: func(key string) bool { return key == "kept.md" }})
		r.must(err)
		third := r.upload(map[string]string{"kept.md": "K"})
		rows := r.worksheet()
		if len(rows) != 6 {
			t.Fatalf("%d rows", len(rows))
		}
		r.wantRow(rows[first[0]], Superseded, nil, second[0])
		r.wantRow(rows[first[1]], Orphaned, nil)
		r.wantRow(rows[first[2]], Live, []string{"new name.md"})
		r.wantRow(rows[first[3]], Superseded, []string{"kept.md"}, third[0])
		r.wantRow(rows[second[0]], Live, []string{"edited.md"})
		if left := r.worksheet(Superseded, Orphaned); len(left) != 3 {
			t.Errorf("%d rows were left behind", len(left))
		}
		// A replacement whose training failed answers nothing.
		r.put("edited.md")
		docs, _ := r.resolve(map[string]string{"edited.md": "E3"}, Sharing{})
		failed := r.accept(r.seal(docs), 1)
		rows = r.worksheet()
		r.wantRow(rows[second[0]], Superseded, nil, failed[0]) // in training
		r.trained(TrainingFailed, failed...)
		r.wantRow(r.worksheet()[second[0]], Superseded, nil)
		if n, err := r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, []int64{first[0], first[1], first[3], second[0]}); err != nil || n != 0 {
			t.Fatal(n, err)
		}
		if left := r.worksheet(Superseded, Orphaned); len(left) != 0 {
			t.Errorf("%d rows are left behind after their removal", len(left))
		}
	})
}

func TestWorksheetNamesNoMoreThanItMust(t *testing.T) {
	r := newFixture(t)
	contents := map[string]string{}
	var keys []string
	for i := range MaxNamed + 5 {
		keys = append(keys, fmt.Sprintf("%03d.md", i))
		contents[keys[i]] = "same"
	}
	r.put(keys[:1]...)
	ids := r.upload(contents)
	r.put(keys[1:]...)
	for range 2 {
		r.resolve(contents, Sharing{})
	}
	row := r.worksheet()[ids[0]]
	if len(row.Documents) != MaxNamed || !row.MoreDocuments {
		t.Errorf("%d documents, more: %v", len(row.Documents), row.MoreDocuments)
	}
}
