package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
)

// inOneGroup runs the jobs in one transaction, in order, and returns their results. It needs a synctest bubble.
func (r *fixture) inOneGroup(jobs ...func(*tx) error) []error {
	r.t.Helper()
	release := make(chan struct{})
	results := make([]chan error, len(jobs)+1)
	hold := func(*tx) error { <-release; return nil }
	for i, fn := range append([]func(*tx) error{hold}, jobs...) {
		results[i] = make(chan error, 1)
		go func() { results[i] <- r.s.update(r.ctx(), fn) }()
		synctest.Wait() // the job waits in the queue, after the ones before
	}
	close(release)
	var errs []error
	for _, result := range results {
		errs = append(errs, <-result)
	}
	return errs[1:]
}

// A full disk makes SQLite roll back the whole transaction. A job whose result is nil is on the disk, and no other is.
func TestFullDiskInAGroupFailsEveryJobThatItUndoes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ignored bool // the job ignores the error and goes on
	}{{"reported", false}, {"ignored", true}} {
		path := filepath.Join(t.TempDir(), "kbsync.db")
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := Open(t.Context(), Options{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				r := &fixture{t: t, s: s}
				r.sync, err = s.Syncs.Ensure(t.Context(), "handbook", "/docs", testDestination, false)
				r.must(err)
				insert := func(t *tx, item string) error {
					_, err := t.exec(`INSERT INTO reported (sync_id, event, item) VALUES ($1, 'job', $2)`, r.sync.ID, []byte(item))
					return err
				}
				limit := func(t *tx, pages int64) error {
					return t.one(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages), nil, &pages)
				}
				var jobs []func(*tx) error
				for i := range 5 {
					jobs = append(jobs, func(t *tx) error {
						if i != 2 {
							return insert(t, fmt.Sprint(i))
						}
						var pages int64
						err := errors.Join(t.one(`PRAGMA page_count`, nil, &pages), limit(t, pages+3))
						if err != nil {
							return err
						}
						_, err = t.exec(`INSERT INTO outbox (sync_id, event, body, created_at) VALUES ($1, 'job', zeroblob(1000000), 0)`, r.sync.ID)
						if tt.ignored {
							_ = insert(t, fmt.Sprint(i))
							return nil
						}
						return err
					})
				}
				errs := r.inOneGroup(jobs...)
				r.must(r.s.update(t.Context(), func(t *tx) error { return limit(t, 1<<20) }))
				for i, err := range errs {
					var there bool
					r.must(r.s.queryOne(t.Context(), `SELECT EXISTS (SELECT 1 FROM reported WHERE item = $1)`, []any{[]byte(fmt.Sprint(i))}, &there))
					if there != (err == nil) {
						t.Errorf("job %d is on the disk: %v; its result: %v", i, there, err)
					}
				}
				if errs[2] == nil {
					t.Error("the disk was not full")
				}
				if errs[3] != nil || errs[4] != nil {
					t.Errorf("jobs after the full disk failed: %v", errs[3:])
				}
				r.must(s.Close())
			})
		})
	}
}

// A lazy job does not wait for the disk, and a durable one does, whatever came before it in the queue.
func TestDurableJobsWaitForTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kbsync.db")
	synctest.Test(t, func(t *testing.T) {
		s := openUntilEnd(t, path)
		const normal, full = 1, 2
		levels := make([]int, 5)
		level := func(i int) func(*tx) error {
			// SQLite sets the value when it compiles the text, so each text is another one.
			return func(t *tx) error { return t.one(fmt.Sprintf("PRAGMA synchronous -- %d", i), nil, &levels[i]) }
		}
		release := make(chan struct{})
		ended := make(chan error, len(levels)+1)
		start := func(lazy bool, fn func(*tx) error) {
			go func() {
				if lazy {
					ended <- s.updateLazily(t.Context(), fn)
				} else {
					ended <- s.update(t.Context(), fn)
				}
			}()
			synctest.Wait() // the job waits in the queue, after the ones before
		}
		start(true, func(*tx) error { <-release; return nil })
		for i, lazy := range []bool{true, false, true, false, false} {
			start(lazy, level(i))
		}
		close(release)
		for range len(levels) + 1 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		// The third is lazy, and committed with the second.
		if want := []int{normal, full, full, full, full}; !slices.Equal(levels, want) {
			t.Errorf("the commits have the levels %v, want %v", levels, want)
		}
	})
}
