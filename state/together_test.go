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
