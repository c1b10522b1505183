package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Of two processes that seal the same new contents at the same time, each content is reserved by one.
func TestProcessesThatSealOneContentTogetherReserveItOnce(t *testing.T) {
	a, b := processes(t)
	const rounds, documents = 20, 5
	for round := range rounds {
		contents := map[string]string{}
		for _, p := range []string{"a", "b"} {
			for i := range documents {
				key := fmt.Sprintf("%s/%d-%d.md", p, round, i)
				contents[key] = fmt.Sprint("content ", round, i)
				a.put(key)
			}
		}
		docs, err := a.s.Queue.Claim(t.Context(), a.sync.ID, documents)
		a.must(err)
		mine, _ := a.resolveClaimed(docs, contents, Sharing{})
		docs, err = b.s.Queue.Claim(t.Context(), b.sync.ID, documents)
		b.must(err)
		others, _ := b.resolveClaimed(docs, contents, Sharing{})

		sealed := make([]int, 2)
		var group sync.WaitGroup
		for i, f := range []*fixture{a, b} {
			batch := [][]HashedDocument{mine, others}[i]
			group.Go(func() {
				spec, seals := spec(f, batch)
				u, err := f.s.Journal.Begin(t.Context(), spec)
				if err == nil {
					err = f.s.Journal.Seal(t.Context(), u, seals)
				}
				refusal, known := errors.AsType[*SealError](err)
				switch {
				case err == nil:
					sealed[i] = len(batch)
				case !known || len(refusal.Known) == 0:
					t.Error(err)
				}
			})
		}
		group.Wait()
		var reserved int
		a.must(a.s.queryOne(t.Context(), `SELECT count(*) FROM contents WHERE batch_id > 0`, nil, &reserved))
		if sealed[0]+sealed[1] == 0 || reserved != sealed[0]+sealed[1] {
			t.Fatalf("round %d: %v sealed, %d contents reserved", round, sealed, reserved)
		}
		a.must(a.s.update(t.Context(), func(t *tx) error { // the next round starts with nothing
			for _, table := range []string{"past_contents", "documents", "contents", "batches"} {
				if _, err := t.exec(`DELETE FROM ` + table); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// An API that gives one id to two uploads at the same time completes one document at most.
func TestAnswersThatCrossTogetherKeepAnIDForOneContent(t *testing.T) {
	a, b := processes(t)
	for round := range 20 {
		keys := []string{fmt.Sprintf("%d-a.md", round), fmt.Sprintf("%d-b.md", round)}
		a.put(keys...)
		docs, _ := a.resolve(map[string]string{keys[0]: keys[0], keys[1]: keys[1]}, Sharing{})
		uploads := []*Upload{a.seal(docs[:1]), a.seal(docs[1:])}
		id := int64(5000 + round)
		receipts := make([]Receipt, 2)
		var group sync.WaitGroup
		for i, f := range []*fixture{a, b} {
			group.Go(func() {
				answer := Answer{StatusCode: 200, NextPoll: time.Now(), Sources: [][]SourceAnswer{{{
					ID: id, Type: "file", Name: usualName(uploads[i].spec.Members[0].Key), Status: "in-progress",
				}}}}
				var err error
				if receipts[i], err = f.s.Journal.Accept(t.Context(), uploads[i], answer); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n := len(receipts[0].Uncertain) + len(receipts[1].Uncertain); n != 1 {
			t.Fatalf("round %d: %d uncertain documents, want 1: %+v", round, n, receipts)
		}
		// The next accepted batch closes the breaker that the uncertain one has opened.
		a.must(a.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`UPDATE destinations SET uncertain_streak = 0`)
			return err
		}))
	}
}

// Transactions that share the lock of a destination do not wait for each other, and one that needs it alone waits for them and
// is not overtaken.
func TestSharedLockOfADestination(t *testing.T) {
	a, b := processes(t)
	held, release := make(chan struct{}), make(chan struct{})
	lock := func(f *fixture, mode lockMode, then func()) error {
		return f.s.update(t.Context(), func(t *tx) error {
			if err := t.lockSync(f.sync.ID, mode); err != nil {
				return err
			}
			then()
			return nil
		})
	}
	var group sync.WaitGroup
	group.Go(func() {
		if err := lock(a, together, func() { close(held); <-release }); err != nil {
			t.Error(err)
		}
	})
	<-held
	a.must(lock(b, together, func() {}))

	var order []string
	var mu sync.Mutex
	note := func(name string) func() {
		return func() { mu.Lock(); defer mu.Unlock(); order = append(order, name) }
	}
	group.Go(func() {
		if err := lock(b, alone, note("alone")); err != nil {
			t.Error(err)
		}
	})
	a.awaitWaiters(1)
	group.Go(func() {
		if err := lock(b, together, note("together")); err != nil {
			t.Error(err)
		}
	})
	a.awaitWaiters(2)
	close(release)
	group.Wait()
	if fmt.Sprint(order) != "[alone together]" {
		t.Errorf("the locks were taken in the order %v", order)
	}
}

// awaitWaiters waits until so many transactions wait for an advisory lock of the database.
func (r *fixture) awaitWaiters(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for waiting := 0; waiting < n; {
		r.must(r.s.queryOne(ctx, `SELECT count(*)
			FROM pg_locks
			WHERE locktype = 'advisory'
			  AND NOT granted
			  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, nil, &waiting))
	}
}

// What several processes do most does not wait for a seal of another one: new documents, usual statuses, polls, a look for documents
// to send again. A failed training changes documents, so it waits.
func TestUsualWorkDoesNotWaitForOtherProcesses(t *testing.T) {
	a, b := processes(t)
	contents := map[string]string{"a.md": "A", "b.md": "B"}
	a.put("a.md", "b.md")
	docs, _ := a.resolve(contents, Sharing{})
	ids := a.accept(a.seal(docs), len(docs))
	a.must(b.s.Inventory.MakeStuckDue(t.Context(), b.sync.Destination.ID)) // connects the second process

	var group sync.WaitGroup
	defer group.Wait()
	defer a.hold(&group, together)()
	record := func(id int64, outcome Outcome, polls int) func() error {
		return func() error {
			poll := Poll{SourceID: id, Polls: polls, Status: usualStatus(outcome), Outcome: outcome}
			return b.s.Inventory.RecordPolls(t.Context(), b.sync.Destination.ID, []Poll{poll})
		}
	}
	for name, work := range map[string]func() error{
		"a usual status": record(ids[0], TrainingCompleted, 0),
		"due sources": func() error {
			_, err := b.s.Inventory.DueSources(t.Context(), b.sync.Destination.ID, time.Hour, 10)
			return err
		},
		"a new document": func() error {
			scan, err := b.s.Scans.Begin(t.Context(), b.sync.ID, "new/")
			if err != nil {
				return err
			}
			return b.s.Scans.Record(t.Context(), scan, []Change{{Op: Put, Key: "new/c.md", Fingerprint: Fingerprint{Size: 1, MTime: 1}}})
		},
	} {
		if !endsSoon(t, &group, work) {
			t.Errorf("%s waits for a seal", name)
		}
	}
	failed := make(chan struct{})
	group.Go(func() {
		defer close(failed)
		if err := record(ids[1], TrainingFailed, 0)(); err != nil {
			t.Error(err)
		}
	})
	a.awaitWaiters(1)
	select {
	case <-failed:
		t.Error("a failed training did not wait")
	default:
	}
}

// An empty queue has nothing to lock.
func TestEmptyQueueDoesNotWaitForTheDestination(t *testing.T) {
	a, b := processes(t)
	var group sync.WaitGroup
	defer group.Wait()
	defer a.hold(&group, alone)()
	if !endsSoon(t, &group, func() error {
		docs, err := b.s.Queue.ClaimResends(t.Context(), b.sync.ID, 0, 10)
		if len(docs) > 0 {
			return fmt.Errorf("claimed %v", docs)
		}
		return err
	}) {
		t.Error("a look for documents to send again waits")
	}
}

// hold locks the destination until the returned function is called.
func (r *fixture) hold(group *sync.WaitGroup, mode lockMode) (release func()) {
	r.t.Helper()
	held, end := make(chan struct{}), make(chan struct{})
	group.Go(func() {
		err := r.s.update(r.ctx(), func(t *tx) error {
			err := t.lockSync(r.sync.ID, mode)
			close(held)
			<-end
			return err
		})
		if err != nil {
			r.t.Error(err)
		}
	})
	<-held
	return func() { close(end) }
}

// endsSoon runs work and reports whether it ends within some seconds, although another transaction holds its lock.
func endsSoon(t *testing.T, group *sync.WaitGroup, work func() error) bool {
	t.Helper()
	ended := make(chan error, 1)
	group.Go(func() { ended <- work() })
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
		return true
	case <-time.After(10 * time.Second):
		return false
	}
}
