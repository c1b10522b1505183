package state

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// searched returns the keys of all pages of a query, and the number of pages.
func (r *fixture) searched(q DocumentQuery) (keys []string, pages int) {
	r.t.Helper()
	q.SyncID = r.sync.ID
	for {
		page, err := r.s.Documents.Search(r.ctx(), q)
		r.must(err)
		pages++
		if len(page.Documents) > q.Limit {
			r.t.Fatalf("a page of %d documents", len(page.Documents))
		}
		for _, d := range page.Documents {
			keys = append(keys, d.Key)
		}
		if page.Next == "" {
			return keys, pages
		}
		if page.Next <= q.From {
			r.t.Fatalf("the page after %q begins at %q", q.From, page.Next)
		}
		q.From = page.Next
	}
}

// Every page has the next documents in byte order, whatever the way on which they are found.
func TestSearchPages(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		var all []string
		for i := range 60 {
			all = append(all, fmt.Sprintf("dir-%d/Page %02d.md", i%3, i))
		}
		all = append(all, "\xff\xfe.md", "dir-1/é.md", "z%_.md")
		slices.Sort(all)
		r.put(all...)
		contents := map[string]string{}
		for _, key := range all[:40] {
			contents[key] = key
		}
		docs, _ := r.resolve(contents, Sharing{})
		docs = slices.DeleteFunc(docs, func(d HashedDocument) bool { return contents[d.Key] == "" })
		ids := r.accept(r.seal(docs), len(docs))
		var polls []Poll
		for _, id := range ids[:7] {
			polls = append(polls, Poll{SourceID: id, Outcome: TrainingFailed, Errors: "no text"})
		}
		r.must(r.s.Inventory.RecordPolls(r.ctx(), r.sync.Destination.ID, polls))
		states := map[DocumentState][]string{}
		for d, err := range r.s.Documents.All(r.ctx(), r.sync.ID) {
			r.must(err)
			states[d.State] = append(states[d.State], d.Key)
		}
		if len(states[Failed]) != 7 || len(states[Training]) != 33 {
			t.Fatalf("%d failed, %d in training", len(states[Failed]), len(states[Training]))
		}
		var in []string
		for _, key := range all {
			if key > "dir-1/" && key < "dir-10" {
				in = append(in, key)
			}
		}
		for _, c := range []struct {
			q    DocumentQuery
			want []string
		}{
			{DocumentQuery{Limit: 10}, all},
			{DocumentQuery{Limit: 63}, all},
			{DocumentQuery{Limit: 1000}, all},
			{DocumentQuery{Limit: 4, Prefix: "dir-1/"}, in},
			{DocumentQuery{Limit: 1, Contains: "pAGE 07"}, []string{"dir-1/Page 07.md"}},
			{DocumentQuery{Limit: 1, Contains: "%_"}, []string{"z%_.md"}},
			{DocumentQuery{Limit: 1, Contains: "none"}, nil},
			{DocumentQuery{Limit: 1, Prefix: "dir-2", Contains: "page 07"}, nil},
			{DocumentQuery{Limit: 2, State: Failed}, states[Failed]},
			{DocumentQuery{Limit: 2, State: Training}, states[Training]},
			{DocumentQuery{Limit: 7, State: Uploading}, states[Uploading]},
			{DocumentQuery{Limit: 7, State: Pending}, states[Pending]},
			{DocumentQuery{Limit: 7, State: Completed}, nil},
			{DocumentQuery{Limit: 7, State: Skipped}, nil},
		} {
			got, pages := r.searched(c.q)
			if !slices.Equal(got, c.want) {
				t.Errorf("%+v: got %q, want %q", c.q, got, c.want)
			}
			if want := max((len(c.want)+c.q.Limit-1)/c.q.Limit, 1); pages != want {
				t.Errorf("%+v: %d pages, want %d", c.q, pages, want)
			}
		}
	})
}

// A selection by states or keys, which does not read all documents, selects what the other way does.
func TestSelectionsAgree(t *testing.T) {
	onBoth(t, testSelections)
}

func testSelections(t *testing.T, newFixture fixtureMaker) {
	r := newFixture(t)
	r.put("a.md", "b.md")
	r.upload(map[string]string{"a.md": "A", "b.md": "B"})
	r.put("training.md")
	docs, _ := r.resolve(map[string]string{"training.md": "T"}, Sharing{})
	r.accept(r.seal(docs), 1)
	r.put("sealed.md")
	docs, _ = r.resolve(map[string]string{"sealed.md": "S"}, Sharing{})
	r.seal(docs)
	r.put("c.md", "removed.md")
	r.vanish("removed.md")
	r.must(r.scanOf(Change{Op: Skip, Key: "skipped.md", Reason: "it is empty"}))
	for _, c := range []struct {
		sel  Selection
		want int
	}{
		{Selection{}, 4},
		{Selection{Match: func(string) bool { return true }}, 4},
		{Selection{OlderThan: time.Now().Add(time.Hour)}, 4},
		{Selection{OlderThan: time.Now().Add(-time.Hour)}, 0},
		{Selection{Keys: []string{"a.md", "no.md"}}, 1},
		{Selection{Keys: []string{"a.md"}, States: []DocumentState{Pending}}, 0},
		{Selection{States: []DocumentState{Pending}}, 1},
		{Selection{States: []DocumentState{Pending, Completed}}, 3},
		{Selection{States: []DocumentState{Failed, Stuck, Uncertain}}, 0},
	} {
		documents, bytes, err := r.s.Queue.CountSelected(r.ctx(), r.sync.ID, c.sel)
		r.must(err)
		marked, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{States: c.sel.States, Keys: c.sel.Keys, Match: func(string) bool { return false }})
		r.must(err)
		if documents != c.want || marked != 0 || (bytes > 0) != (c.want > 0) {
			t.Errorf("%+v: %d documents with %d bytes, want %d", c.sel, documents, bytes, c.want)
		}
	}
	for _, c := range []struct {
		sel  Selection
		want int
	}{{Selection{OlderThan: time.Now().Add(-time.Hour)}, 0}, {Selection{}, 4}} {
		marked, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, c.sel)
		r.must(err)
		if marked != c.want {
			t.Errorf("%+v: %d documents are marked, want %d", c.sel, marked, c.want)
		}
	}
	r.want("a.md=pending b.md=pending c.md=pending removed.md=removed sealed.md=uploading skipped.md=skipped training.md=pending")
}
