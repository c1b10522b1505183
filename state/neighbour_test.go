package state

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A sync with its own destination shares nothing with another one in the same state, although both have the same keys, contents and numbers of
// sources.
func TestSyncsOfOneStateShareNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		recordLife(r, life)
		r.leaveOneOfEach()
		lock, err := r.s.Lock(t.Context(), r.sync.Name, 0) // a process works on the sync
		r.must(err)
		defer func() { r.must(lock.Unlock()) }()
		r.beginOneOfEach()
		rows := r.allRows()
		n := r.neighbour("neighbour")
		for _, method := range n.showsNothing() {
			t.Errorf("%s has something of the other sync", method)
		}
		r.wantRows(rows, "a look from a new sync")
		if news, err := n.enqueue("failed", nil, "failed.md"); err != nil || news != 1 {
			t.Errorf("%d items of the new sync are news, want 1: %v", news, err)
		}
		r.neighbour("loser").loseSources(r)
		r.wantRows(rows, "the loss of sources with the same numbers")
		for _, step := range slices.Concat(life, wholeLife) {
			step.run(n)
			r.wantRows(rows, step.methods)
		}
	})
}

// neighbour returns a new sync of the same state, which has its own destination and the same numbers of sources.
func (r *fixture) neighbour(name string) *fixture {
	r.t.Helper()
	n := *r
	to := testDestination
	to.Account = "of " + name
	var err error
	n.sync, err = n.s.Syncs.Ensure(r.ctx(), name, r.sync.Root, to, false)
	r.must(err)
	n.next = 330000
	return &n
}

// loseSources uploads documents that get the numbers of the sources of another sync, whose sources are then gone.
func (r *fixture) loseSources(other *fixture) {
	r.t.Helper()
	sources, err := list(r.s.Inventory.Sources(r.ctx(), SourceFilter{SyncID: other.sync.ID}))
	r.must(err)
	for i, source := range sources {
		if source.ID <= 0 {
			continue
		}
		key := fmt.Sprintf("source %d.md", i)
		r.put(key)
		docs, _ := r.resolve(map[string]string{key: key}, Sharing{})
		r.next = source.ID
		_, err := r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, r.accept(r.seal(docs), 1))
		r.must(err)
		claimed, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 1) // or it would be uploaded with the next one
		r.must(err)
		r.must(r.s.Queue.Block(r.ctx(), claimed, []string{"its source is gone"}))
	}
}

// leaveOneOfEach leaves at least one document in each state that needs no process, with the messages and marks that go with it.
func (r *fixture) leaveOneOfEach() {
	r.t.Helper()
	r.closeBreaker()
	r.put("pending.md", "late.md", "failed.md", "blocked.pdf", "training.md", "stuck.md", "lost.md", "trained.md", "pair.md", "removed.md")
	docs, _ := r.resolve(map[string]string{
		"pending.md": "1", "late.md": "2", "failed.md": "3", "blocked.pdf": "4", "training.md": "5", "stuck.md": "6", "lost.md": "7", "trained.md": "8", "pair.md": "9",
	}, Sharing{})
	of := map[string][]HashedDocument{}
	for _, d := range docs {
		of[d.Key] = append(of[d.Key], d)
	}
	claim := func(key string) []ClaimedDocument { return []ClaimedDocument{of[key][0].ClaimedDocument} }
	r.must(r.s.Queue.Release(r.ctx(), claim("late.md"), time.Now().Add(time.Hour), true))
	r.must(r.s.Queue.Release(r.ctx(), claim("pending.md"), time.Time{}, false))
	r.must(r.s.Queue.Block(r.ctx(), claim("blocked.pdf"), []string{"it is not a PDF"}))
	r.must(r.s.Journal.Refuse(r.ctx(), r.seal(of["failed.md"]), Refusal{StatusCode: 422, Disposition: Fail}))
	r.accept(r.seal(of["training.md"]), 1)
	stuck := r.accept(r.seal(of["stuck.md"]), 1)[0]
	u := r.seal(of["pair.md"])
	pair := [][]SourceAnswer{{{ID: r.next}, {ID: r.next + 1}}}
	r.next += 2
	_, err := r.s.Journal.Accept(r.ctx(), u, Answer{StatusCode: 200, NextPoll: time.Now(), Sources: pair})
	r.must(err)
	r.must(r.s.Inventory.RecordPolls(r.ctx(), r.sync.Destination.ID, []Poll{
		{SourceID: stuck, Outcome: TrainingStuck, NextPoll: time.Now().Add(time.Hour)},
		{SourceID: pair[0][1].ID, Outcome: TrainingStuck, NextPoll: time.Now().Add(time.Hour)},
	}))
	r.trained(TrainingCompleted, r.accept(r.seal(of["trained.md"]), 1)...)
	_, err = r.s.Journal.MarkUncertain(r.ctx(), r.seal(of["lost.md"]), 502, "lost")
	r.must(err)
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	r.must(r.s.Scans.Record(r.ctx(), scan, []Change{
		{Op: Vanish, Key: "removed.md"}, {Op: Skip, Key: "skipped.md", Reason: "it is empty"}, {Op: Put, Key: "large.md", Fingerprint: Fingerprint{Size: 2 * HashAhead}},
	}))
	_, err = r.s.Scans.Finish(r.ctx(), scan, "1:2")
	r.must(err)
	scan, err = r.s.Scans.Begin(r.ctx(), r.sync.ID, "") // a scan that breaks off
	r.must(err)
	r.must(r.s.Scans.Record(r.ctx(), scan, []Change{{Op: Vanish, Key: "trained.md"}}))
	_, err = r.enqueue("failed", nil, "failed.md")
	r.must(err)
	_, err = r.s.Journal.Recover(r.ctx(), r.sync.ID)
	r.must(err)
	states := r.states()
	for _, st := range []DocumentState{Pending, Training, Completed, Failed, Stuck, Uncertain, Skipped, Removed} {
		if !slices.Contains(slices.Collect(maps.Values(states)), st) {
			r.t.Fatalf("no document is %s: %v", st, states)
		}
	}
}

// beginOneOfEach begins an upload, seals another one, and leaves a document claimed.
func (r *fixture) beginOneOfEach() {
	r.t.Helper()
	r.closeBreaker()
	r.put("open.md", "sealed.md", "claimed.md")
	docs, _ := r.resolve(map[string]string{"open.md": "10", "sealed.md": "11", "claimed.md": "12"}, Sharing{})
	for _, d := range docs {
		b, _ := spec(r, []HashedDocument{d})
		switch d.Key {
		case "open.md":
			_, err := r.s.Journal.Begin(r.ctx(), b)
			r.must(err)
		case "sealed.md":
			r.seal([]HashedDocument{d})
		case "claimed.md":
		default:
			r.must(r.s.Queue.Release(r.ctx(), b.Members, time.Time{}, false))
		}
	}
}

// allRows returns the rows of the state, each as text.
func (r *fixture) allRows() []string {
	r.t.Helper()
	var out bytes.Buffer
	r.must(r.s.Export(r.ctx(), &out))
	all := strings.Split(out.String(), "\n")
	all = all[:len(all)-2] // the last line counts the rows
	for _, query := range []string{
		`SELECT 'outbox', sync_id, id, attempts, next_attempt FROM outbox`, `SELECT 'reported ' || event, sync_id, 0, 0, 0 FROM reported`,
		`SELECT 'samples', sync_id, at, completed, trained FROM samples`, `SELECT 'rate of ' || account, next_at, 0, 0, 0 FROM rates`,
	} {
		r.must(r.s.query(r.ctx(), query, nil, func(scan func(...any) error) error {
			var name string
			var n [4]int64
			err := scan(&name, &n[0], &n[1], &n[2], &n[3])
			all = append(all, fmt.Sprint(name, n))
			return err
		}))
	}
	return all
}

// wantRows checks that the state still has these rows. It may have more.
func (r *fixture) wantRows(rows []string, after string) {
	r.t.Helper()
	still := map[string]bool{}
	for _, row := range r.allRows() {
		still[row] = true
	}
	for _, row := range rows {
		if !still[row] {
			r.t.Fatalf("after %s this row has changed: %s", after, row)
		}
	}
}

// showsNothing looks at a new sync through the methods that read or claim for a sync or a destination, and returns those whose result is not
// empty.
func (r *fixture) showsNothing() (wrong []string) {
	r.t.Helper()
	for _, looks := range []map[string]func() (any, error){r.looksAtDocuments(), r.looksAtInventory(), r.looksForWork()} {
		for method, look := range looks {
			got, err := look()
			if err != nil {
				r.t.Errorf("%s: %v", method, err)
			}
			if !isEmpty(reflect.ValueOf(got)) {
				wrong = append(wrong, fmt.Sprintf("%s (%+v)", method, got))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func isEmpty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return !v.IsValid() || v.IsZero()
}

// list collects a stream.
func list[T any](stream iter.Seq2[T, error]) (all []T, err error) {
	for x, err := range stream {
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

func (r *fixture) looksAtDocuments() map[string]func() (any, error) {
	ctx, id, to := r.ctx(), r.sync.ID, r.sync.Destination.ID
	return map[string]func() (any, error){
		"Documents.All":           func() (any, error) { return list(r.s.Documents.All(ctx, id)) },
		"Documents.AnyInTraining": func() (any, error) { return r.s.Documents.AnyInTraining(ctx, to) },
		"Documents.Blocked":       func() (any, error) { return list(r.s.Documents.Blocked(ctx, id)) },
		"Documents.Counts":        func() (any, error) { return r.s.Documents.Counts(ctx, id) },
		"Documents.ChangeToken": func() (any, error) {
			token, err := r.s.Documents.ChangeToken(ctx, id)
			return token != "0/0", err
		},
		"Documents.CountBlocked":     func() (any, error) { return r.s.Documents.CountBlocked(ctx, id) },
		"Documents.Get":              func() (any, error) { return orNotFound(r.s.Documents.Get(ctx, id, "a.md")) },
		"Documents.NeedingAttention": func() (any, error) { return r.s.Documents.NeedingAttention(ctx, id, 10) },
		"Documents.Outstanding":      func() (any, error) { return r.s.Documents.Outstanding(ctx, id) },
		"Documents.Progress":         func() (any, error) { return r.s.Documents.Progress(ctx, id) },
		"Documents.Search":           func() (any, error) { return r.s.Documents.Search(ctx, DocumentQuery{SyncID: id, Limit: 10}) },
		"Scans.Known":                func() (any, error) { return list(r.s.Scans.Known(ctx, id, "")) },
		"Syncs.InStepSince":          func() (any, error) { return r.s.Syncs.InStepSince(ctx, id) },
		"Syncs.Samples":              func() (any, error) { return r.s.Syncs.Samples(ctx, id) },
	}
}

func (r *fixture) looksAtInventory() map[string]func() (any, error) {
	ctx, id, to := r.ctx(), r.sync.ID, r.sync.Destination.ID
	return map[string]func() (any, error){
		"Inventory.AnySource":          func() (any, error) { return r.s.Inventory.AnySource(ctx, to) },
		"Inventory.DueSources":         func() (any, error) { return r.s.Inventory.DueSources(ctx, to, time.Hour, 10) },
		"Inventory.Holding":            func() (any, error) { return r.s.Inventory.Holding(ctx, id, "a.md") },
		"Inventory.NextPoll":           func() (any, error) { return r.s.Inventory.NextPoll(ctx, to) },
		"Inventory.PossibleDuplicates": func() (any, error) { return list(r.s.Inventory.PossibleDuplicates(ctx, id)) },
		"Inventory.Sources":            func() (any, error) { return list(r.s.Inventory.Sources(ctx, SourceFilter{SyncID: id})) },
		"Inventory.Worksheet":          func() (any, error) { return list(r.s.Inventory.Worksheet(ctx, SourceFilter{SyncID: id})) },
		"Inventory.CountLeftBehind": func() (any, error) {
			superseded, orphaned, err := r.s.Inventory.CountLeftBehind(ctx, id)
			return superseded + orphaned, err
		},
		"Inventory.Missing": func() (any, error) { // of none is known
			ids := []int64{330000, 330001, 330002, 330003, 330004, 330005}
			missing, err := r.s.Inventory.Missing(ctx, to, ids)
			return len(ids) - len(missing), err
		},
		"Inventory.KnownContents": func() (any, error) {
			states, err := r.s.Inventory.KnownContents(ctx, r.sync.Destination, []SHA256{hash("A")})
			return states[0], err
		},
	}
}

func (r *fixture) looksForWork() map[string]func() (any, error) {
	ctx, id, to := r.ctx(), r.sync.ID, r.sync.Destination.ID
	return map[string]func() (any, error){
		"Journal.Breaker": func() (any, error) {
			streak, until, err := r.s.Journal.Breaker(ctx, to)
			return fmt.Sprint(streak, until) != fmt.Sprint(0, time.Time{}), err
		},
		"Journal.Limits":      func() (any, error) { return r.s.Journal.Limits(ctx, to) },
		"Journal.Recover":     func() (any, error) { return r.s.Journal.Recover(ctx, id) },
		"Outbox.Due":          func() (any, error) { return r.s.Outbox.Due(ctx, id, 10) },
		"Outbox.NextDue":      func() (any, error) { return r.s.Outbox.NextDue(ctx, id) },
		"Queue.Claim":         func() (any, error) { return r.s.Queue.Claim(ctx, id, 10) },
		"Queue.ClaimAll":      func() (any, error) { return r.s.Queue.ClaimAll(ctx, id, 0, 10) },
		"Queue.ClaimResends":  func() (any, error) { return r.s.Queue.ClaimResends(ctx, id, 0, 10) },
		"Queue.ClaimSmallest": func() (any, error) { return r.s.Queue.ClaimSmallest(ctx, id, 0) },
		"Queue.CountSelected": func() (any, error) {
			documents, bytes, err := r.s.Queue.CountSelected(ctx, id, Selection{})
			return int64(documents) + bytes, err
		},
		"Queue.Mark":          func() (any, error) { return r.s.Queue.Mark(ctx, id, Selection{}) },
		"Queue.NextDue":       func() (any, error) { return r.s.Queue.NextDue(ctx, id, 0) },
		"Queue.ReopenBlocked": func() (any, error) { return r.s.Queue.ReopenBlocked(ctx, id) },
		"Queue.SizeTaken":     func() (any, error) { return r.s.Queue.SizeTaken(ctx, to, 2*HashAhead, 0) },
	}
}

// orNotFound turns ErrNotFound into an empty result.
func orNotFound[T any](x T, err error) (T, error) {
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return x, err
}
