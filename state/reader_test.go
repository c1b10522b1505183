package state

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each consumer stops after its first row, and eight of them are in the middle of a stream at once.
func TestSlowReadersStarveNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md", "c.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B", "c.md": "C"}, Sharing{})
		r.accept(r.seal(docs[:1]), 1)
		_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[1:2]), 502, "bad gateway")
		r.must(err)
		open := func(i int) (next func() bool, stop func()) {
			switch i % 4 {
			case 0:
				return pulled(r, r.s.Scans.Known(t.Context(), r.sync.ID, ""))
			case 1:
				return pulled(r, r.s.Documents.All(t.Context(), r.sync.ID))
			case 2:
				return pulled(r, r.s.Inventory.Sources(t.Context(), SourceFilter{}))
			default:
				return pulled(r, r.s.Inventory.PossibleDuplicates(t.Context(), 0))
			}
		}
		for i := range 20 {
			next, stop := open(i)
			defer stop()
			if !next() {
				t.Fatalf("stream %d is empty", i)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := r.s.Documents.Get(ctx, r.sync.ID, "a.md"); err != nil {
			t.Fatalf("a reader starves: %v", err)
		}
	})
}

// pulled turns a stream into a function that reports whether there was a next row.
func pulled[T any](r *fixture, seq iter.Seq2[T, error]) (next func() bool, stop func()) {
	pull, stop := iter.Pull2(seq)
	return func() bool {
		_, err, ok := pull()
		r.must(err)
		return ok
	}, stop
}

// A stream of several pages has every row once, in order, while others write.
func TestStreamsOfSeveralPagesAreWhole(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		const n = 2*pageSize + 1
		contents := map[string]string{}
		var keys []string
		for i := range n {
			k := fmt.Sprintf("dir/%05d", i)
			keys, contents[k] = append(keys, k), k
		}
		r.put(keys...)
		for {
			docs, _ := r.resolve(contents, Sharing{})
			if len(docs) == 0 {
				break
			}
			if len(docs) > 1 {
				r.accept(r.seal(docs[1:]), len(docs)-1)
			}
			lost := r.seal(docs[:1])
			_, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "bad gateway")
			r.must(err)
			r.must(r.s.update(t.Context(), func(t *tx) error { return t.command(`UPDATE destinations SET uncertain_streak = 0`) }))
		}
		r.put("dir", "dir0", "dir/")
		i := 0
		for k, err := range r.s.Scans.Known(t.Context(), r.sync.ID, "dir/") {
			r.must(err)
			if i == 0 {
				if k.Key != "dir/" {
					t.Fatalf("the first key is %q", k.Key)
				}
			} else if k.Key != keys[i-1] {
				t.Fatalf("key %d is %q, want %q", i, k.Key, keys[i-1])
			}
			if i%100 == 0 {
				r.put(k.Key)
			}
			i++
		}
		if i != n+1 {
			t.Errorf("%d known, want %d", i, n+1)
		}
		all := slices.Sorted(slices.Values(append(keys, "dir", "dir0", "dir/")))
		i = 0
		for k, err := range r.s.Scans.Known(t.Context(), r.sync.ID, "") {
			r.must(err)
			if i == len(all) || k.Key != all[i] {
				t.Fatalf("key %d of all is %q", i, k.Key)
			}
			i++
		}
		if i != len(all) {
			t.Errorf("%d known of all, want %d", i, len(all))
		}
		for d, err := range r.s.Documents.All(t.Context(), r.sync.ID, Training) {
			r.must(err)
			delete(contents, d.Key)
		}
		training, last := 0, int64(0)
		for src, err := range r.s.Inventory.Sources(t.Context(), SourceFilter{SyncID: r.sync.ID}) {
			r.must(err)
			if src.ID <= last {
				t.Fatalf("source %d follows %d", src.ID, last)
			}
			last = src.ID
			training++
		}
		uncertain := 0
		for _, err := range r.s.Inventory.PossibleDuplicates(t.Context(), r.sync.ID) {
			r.must(err)
			uncertain++
		}
		if training+uncertain != n || uncertain != (n+99)/100 {
			t.Errorf("%d sources and %d possible duplicates of %d documents", training, uncertain, n)
		}
	})
}

// Each page continues where the one before ended, without reading the rows before it or sorting.
func TestPagesAreReadFromAnIndex(t *testing.T) {
	r := newFixture(t)
	for name, tt := range map[string]struct {
		index, query string
		args         []any
	}{
		"known":      {"(sync_id=? AND key>?)", knownDocuments + ` AND key >= $2 ORDER BY key LIMIT $3`, []any{1, []byte{}, 10}},
		"documents":  {"(sync_id=? AND key>?)", allDocuments, []any{1, []byte{}, []byte{}, 10}},
		"duplicates": {"SEARCH m USING PRIMARY KEY ((batch_id,document_id)>(?,?))", possibleDuplicates, []any{0, 0, 0, 10}},
	} {
		plan := strings.Join(r.plan(tt.query, tt.args...), "; ")
		if !strings.Contains(plan, tt.index) || strings.Contains(plan, "TEMP B-TREE FOR ORDER BY") {
			t.Errorf("%s: %s", name, plan)
		}
	}
	// The two places of sources are read in order, and the rows of one page are sorted.
	plan := strings.Join(r.plan(inventoryPage("", "", 3), 0, []byte{}, 0, 0, 10), "; ")
	for _, index := range []string{
		"SEARCH c USING INDEX contents_source ((destination_id,source_id)>(?,?))",
		"SEARCH o USING PRIMARY KEY ((destination_id,source_id)>(?,?))",
	} {
		if !strings.Contains(plan, index) || strings.Count(plan, "TEMP B-TREE") != 1 {
			t.Errorf("inventory: %s", plan)
		}
	}
}
