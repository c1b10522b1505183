package state

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// The tests in this file are of processes that did not see the commit of a lease or a claim, or could not give it up.

// leftLeases are the ways in which a process that lives on is left with the row of a lease that it does not use. The process gets the
// lease again within a time: at once, unless it is just freeing the row.
var leftLeases = map[string]struct {
	within time.Duration
	leave  func(t *testing.T, r *fixture, proxy *pgtest.Proxy, other *Store)
}{
	"it could not be given up": {lockPoll / 2, func(t *testing.T, r *fixture, proxy *pgtest.Proxy, _ *Store) {
		lock, err := r.s.Lock(t.Context(), r.sync.Name, 0)
		r.must(err)
		proxy.Cut()
		if err := lock.Unlock(); err == nil {
			t.Error("the lease was given up without a connection")
		}
	}},
	"its commit was not seen": {lockPoll / 2, func(t *testing.T, r *fixture, proxy *pgtest.Proxy, other *Store) {
		missLease(t, r, proxy, other, 2)
		for rows := 0; rows == 0 && t.Context().Err() == nil; { // until the commit
			r.must(other.backend.queryOne(t.Context(), `SELECT count(*) FROM leases`, nil, &rows))
		}
	}},
	"its commit was not seen and comes late": {10 * lockPoll, func(t *testing.T, r *fixture, proxy *pgtest.Proxy, other *Store) {
		missLease(t, r, proxy, other, 4)
	}},
}

func missLease(t *testing.T, r *fixture, proxy *pgtest.Proxy, other *Store, seconds float64) {
	t.Helper()
	missCommit(t, proxy, other, "INSERT ON leases", "NEW.owner_id <> 0", seconds, func() error {
		_, err := r.s.Lock(t.Context(), r.sync.Name, 0)
		return err
	})
}

// missCommit cuts the connection of a process during the commit of what do does. The commit lasts some seconds, and cannot be canceled. event
// and condition are those of a trigger on a row that do writes.
func missCommit(t *testing.T, proxy *pgtest.Proxy, other *Store, event, condition string, seconds float64, do func() error) {
	t.Helper()
	err := other.backend.update(t.Context(), func(x *tx) error {
		return errors.Join(x.command(fmt.Sprintf(`CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql
				AS 'BEGIN PERFORM pg_sleep(%[1]v); RETURN NULL; EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(%[1]v); RETURN NULL; END'`, seconds)),
			x.command(fmt.Sprintf(`CREATE CONSTRAINT TRIGGER slow_commit AFTER %s DEFERRABLE INITIALLY DEFERRED
				FOR EACH ROW WHEN (%s) EXECUTE FUNCTION slow_commit()`, event, condition)))
	})
	if err != nil {
		t.Fatal(err)
	}
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for committing := 0; committing == 0 && t.Context().Err() == nil; {
			committing = commits(t, other)
		}
		proxy.Cut()
	})
	if err := do(); err == nil {
		t.Error("the commit was seen")
	}
	cutting.Wait()
}

// commits returns the number of slow commits.
func commits(t *testing.T, s *Store) (n int) {
	t.Helper()
	err := s.backend.queryOne(t.Context(), `SELECT count(*)
		FROM pg_stat_activity
		WHERE wait_event = 'PgSleep' AND datname = current_database()`, nil, &n)
	if err != nil {
		t.Error(err)
	}
	return n
}

// cutOff does something with a process behind a proxy, which then works again, and with another process.
func cutOff(t *testing.T, do func(*testing.T, *fixture, *pgtest.Proxy, *Store)) (r *fixture, other *Store) {
	t.Helper()
	direct := inPostgres(t)
	proxy, url := pgtest.NewProxy(t, direct.Path)
	r = fixtureIn(t, func(testing.TB) Options { return Options{Path: url} })
	other = r.open(direct)
	do(t, r, proxy, other)
	proxy.Restore()
	return r, other
}

// A claim whose commit was not seen is given back even if the commit comes after the recovery has begun.
func TestClaimWhoseCommitComesLateIsRecovered(t *testing.T) {
	t.Parallel()
	r, other := cutOff(t, func(t *testing.T, r *fixture, proxy *pgtest.Proxy, other *Store) {
		r.put("a.md")
		missCommit(t, proxy, other, "UPDATE ON documents", "NEW.claim <> 0", 2, func() error {
			_, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
			return err
		})
	})
	_, err := r.s.Journal.Recover(t.Context(), r.sync.ID)
	r.must(err)
	for committing := 1; committing > 0 && t.Context().Err() == nil; {
		committing = commits(t, other)
	}
	r.want("a.md=pending")
}

// onEachLeftLease runs a test of each process that is left with a lease, and of another one.
func onEachLeftLease(t *testing.T, test func(t *testing.T, r *fixture, other *Store, within time.Duration)) {
	t.Helper()
	t.Parallel()
	for name, left := range leftLeases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, other := cutOff(t, left.leave)
			test(t, r, other, left.within)
		})
	}
}

func TestLeaseThatIsLeftIsTakenAgain(t *testing.T) {
	onEachLeftLease(t, func(t *testing.T, r *fixture, other *Store, within time.Duration) {
		lock, err := r.s.Lock(t.Context(), r.sync.Name, within)
		if err != nil {
			t.Fatalf("the process does not get its lease again: %v", err)
		}
		if _, err := r.s.Lock(t.Context(), r.sync.Name, 0); !errors.Is(err, ErrLocked) {
			t.Errorf("the second lock of one process: %v", err)
		}
		// The process uses the lease again, and so keeps it.
		if _, err := other.Lock(t.Context(), r.sync.Name, 3*lockPoll); !errors.Is(err, ErrLocked) {
			t.Errorf("another process takes the lease: %v", err)
		}
		scan, err := r.s.Scans.Begin(t.Context(), r.sync.ID, "")
		r.must(err)
		r.must(r.s.Scans.Record(t.Context(), scan, []Change{{Op: Put, Key: "a.md", Fingerprint: Fingerprint{Size: 1}}}))
		r.must(lock.Unlock())
		lock, err = other.Lock(t.Context(), r.sync.Name, 0)
		r.must(err)
		r.must(lock.Unlock())
	})
}

// A process that lives on, and does not take a lease again that it was left with, keeps no other process from the root.
func TestLeaseThatIsLeftIsGivenUp(t *testing.T) {
	onEachLeftLease(t, func(t *testing.T, r *fixture, other *Store, _ time.Duration) {
		lock, err := other.Lock(t.Context(), r.sync.Name, defaultLease/3)
		if err != nil {
			t.Fatalf("another process does not get the lease: %v", err)
		}
		if _, err := r.s.Lock(t.Context(), r.sync.Name, 3*lockPoll); !errors.Is(err, ErrLocked) {
			t.Errorf("the process takes the lease of the other one: %v", err)
		}
		r.must(lock.Unlock())
	})
}
