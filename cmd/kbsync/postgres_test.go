package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/state"
)

// The tests in this file run several kbsync processes on one PostgreSQL database, one bucket and one API. POSTGRES_OBJECTS sets
// the number of objects.

// testLease is the lease of processes whose end or pause a test waits out.
const testLease = 3 * time.Second

// withLease returns the URL of a database with another lease.
func withLease(database string, lease time.Duration) string {
	return database + "&kbsync_lease=" + lease.String()
}

// newPostgresFixture is newSharedFixture with a bucket of POSTGRES_OBJECTS objects. Each process needs seconds for its part, so
// that all of them work at once.
func newPostgresFixture(tb testing.TB, database string) (f *sharedFixture, objects int) {
	tb.Helper()
	objects = envInt(tb, "POSTGRES_OBJECTS", 1000)
	f = newSharedFixture(tb, sharedSetup{database: database, delay: 200 * time.Millisecond, documents: min(max(objects/400, 2), 20)})
	f.bucket.fill("first", objects)
	return f, objects
}

// patience is how long a test waits for all uploads. A document whose answer was lost is sent again after a minute.
func patience(objects int) time.Duration {
	return 2*time.Minute + time.Duration(objects)*20*time.Millisecond
}

func TestPostgresProcessesSendEachObjectOnce(t *testing.T) {
	t.Parallel()
	direct := func(t *testing.T) string { return pgtest.Start(t).Database(t) }
	for _, c := range []struct {
		name      string
		database  func(*testing.T) string
		processes []string
	}{
		{"a watch and three workers", direct, []string{"watch", "worker", "worker", "worker"}},
		{"four watches", direct, []string{"watch", "watch", "watch", "watch"}},
		{
			"through PgBouncer", func(t *testing.T) string { return pgtest.PgBouncer(t, pgtest.Start(t).Database(t)) },
			[]string{"watch", "watch", "worker", "worker"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, objects := newPostgresFixture(t, c.database(t))
			processes := f.startAll(c.processes...)
			f.waitUntilUploaded(patience(objects))
			stopAll(processes)
			f.checkUploads(1)
			sharers := 0 // a process that a busy machine starts late may find nothing left
			for _, p := range processes {
				n := p.uploads().accepted
				t.Logf("%s sent %d uploads", p.name, n)
				sharers += min(n, 1)
			}
			if sharers < 2 {
				t.Error("one process sent all uploads")
			}
		})
	}
}

// TestPostgresKilledProcessesLoseNothing kills one of four processes every two seconds, and starts it again, except the last one: the
// others must do its work. Only a content whose batch was sealed and got no answer may be uploaded twice. POSTGRES_KILLS sets the
// number of kills.
func TestPostgresKilledProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	f, objects := newPostgresFixture(t, withLease(pgtest.Start(t).Database(t), testLease))
	processes := f.startAll("watch", "watch", "worker", "worker")
	f.wait("the first upload", time.Minute, func() bool { return len(f.emulator.Accepted()) > 0 })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kills, unanswered := envInt(t, "POSTGRES_KILLS", 4), 0
	for i := range kills {
		at := random.IntN(len(processes))
		p := processes[at]
		unanswered += p.uploads().unanswered
		p.kill()
		if i == kills-1 {
			processes = slices.Delete(processes, at, at+1)
			break
		}
		p.start()
		time.Sleep(2 * time.Second)
	}
	t.Logf("%d kills, %d uploads accepted without an answer", kills, unanswered)
	if unanswered == 0 {
		t.Error("no kill lost an answer")
	}
	most := 2
	if f.finish(processes[0], patience(objects)) {
		most = 3
	}
	stopAll(processes)
	f.checkUploads(most)
}

// finish waits until every object is a completed document. A document whose answer was lost twice waits for a person, so finish
// then runs kbsync retry, and reports that.
func (f *sharedFixture) finish(p *process, patience time.Duration) (retried bool) {
	f.Helper()
	store, want := f.openState(), len(f.bucket.all())
	// A document is sent again after a minute. Held ones do not change in twice that time.
	var uncertain int
	since := time.Now()
	f.wait("the end of all uploads", patience, func() bool {
		counts, err := f.documentStates(store)
		f.must(err)
		if n := counts[state.Uncertain]; n != uncertain || counts[state.Completed]+n != want {
			uncertain, since = n, time.Now()
		}
		return counts[state.Completed] == want || time.Since(since) > 2*time.Minute
	})
	if uncertain > 0 {
		f.Logf("%d documents were uncertain twice", uncertain)
		retry := f.kbsync("retry", p.state, "retry", "docs", "--wait=false")
		out, _ := retry.CombinedOutput() // a watch leads, so it cannot make a pass
		f.Logf("retry: %s", out)
	}
	f.waitUntilUploaded(patience)
	return uncertain > 0
}

// TestPostgresNextProcessLeadsAfterAKill kills the process that lists the bucket. Another one must list it within the
// lease, and no two may do so at once.
func TestPostgresNextProcessLeadsAfterAKill(t *testing.T) {
	t.Parallel()
	// Other tests run beside this one, so a process may wait for a processor. It must not lose a lease by that.
	const lease = 3 * testLease
	f := newSharedFixture(t, sharedSetup{database: withLease(pgtest.Start(t).Database(t), lease)})
	f.bucket.fill("first", 50)
	processes := f.startAll("watch", "watch", "watch")
	f.waitUntilUploaded(time.Minute)
	for len(processes) > 1 {
		leader := f.leader(processes)
		t.Logf("%s leads", leader.name)
		leader.kill()
		killed := time.Now()
		var others []*process
		for _, p := range processes {
			if p != leader {
				others = append(others, p)
			}
		}
		processes = others
		f.bucket.put("after "+leader.name+".md", []byte("this document came after the kill of "+leader.name))
		f.waitUntilUploaded(time.Minute)
		took := time.Since(killed)
		t.Logf("the next process had found and uploaded a new object after %v", took.Round(time.Millisecond))
		// Beyond the lease: the new leader's polls for the lease, its scan, the upload and the training, on a busy machine.
		if most := 3 * lease; took > most {
			t.Errorf("it took %v, want at most %v", took, most)
		}
	}
	f.leader(processes)
	stopAll(processes)
	f.checkUploads(1)
}

// leader returns the process that lists the bucket. It fails if several processes do.
func (f *sharedFixture) leader(processes []*process) (leader *process) {
	f.Helper()
	before := map[*process]int{}
	for _, p := range processes {
		before[p] = p.listings()
	}
	f.wait("three listings by one process", time.Minute, func() bool {
		for _, p := range processes {
			if p.listings() >= before[p]+3 {
				leader = p
			}
		}
		return leader != nil
	})
	for _, p := range processes {
		if n := p.listings() - before[p]; p != leader && n > 0 {
			f.Errorf("%s listed the bucket %d times, although %s leads", p.name, n, leader.name)
		}
	}
	shown := f.shownProcesses()
	for _, p := range shown {
		leads := strings.HasPrefix(p.Name, fmt.Sprintf("process %d on ", leader.cmd.Process.Pid))
		if leads != slices.Contains(p.Scans, "docs") {
			f.Errorf("status shows that %s scans %q; %s leads, process %d", p.Name, p.Scans, leader.name, leader.cmd.Process.Pid)
		}
	}
	if len(shown) != len(processes) {
		f.Errorf("status shows %d processes, want %d", len(shown), len(processes))
	}
	return leader
}

// shownProcesses returns the processes that kbsync status shows.
func (f *sharedFixture) shownProcesses() []processView {
	f.Helper()
	var status struct {
		Processes []processView `json:"processes"`
	}
	f.must(json.Unmarshal(f.output(exitDone, f.database, "status", "--json"), &status))
	return status.Processes
}

// TestPostgresRestartLosesNothing restarts the database between uploads. An answer that comes meanwhile must be recorded
// afterwards.
func TestPostgresRestartLosesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"fast", "immediate"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := pgtest.New(t, pgtest.Options{Durable: true})
			f, objects := newPostgresFixture(t, server.Database(t))
			processes := f.startAll("watch", "worker", "worker")
			f.wait("a quarter of the uploads", patience(objects), func() bool { return len(f.emulator.Accepted()) > objects/4 })
			open := 0
			for _, p := range processes {
				open += p.uploads().unanswered
			}
			server.Restart(t, mode)
			t.Logf("%d uploads waited for their answer when the server stopped", open)
			if open == 0 {
				t.Error("no upload was open")
			}
			f.waitUntilUploaded(patience(objects))
			stopAll(processes)
			f.checkUploads(1)
		})
	}
}

// TestPostgresCutOffProcessStopsSending cuts the connections of one worker. Its requests in flight end, and it must begin
// none until it reaches the database again.
func TestPostgresCutOffProcessStopsSending(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cut  func(*pgtest.Proxy)
	}{
		{"connections are closed", (*pgtest.Proxy).Cut},
		{"no byte passes", (*pgtest.Proxy).Silence},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Start(t).Database(t)
			proxy, through := pgtest.NewProxy(t, database)
			f, objects := newPostgresFixture(t, withLease(database, testLease))
			watch := f.start("watch", f.database, "watch")
			worker := f.start("worker", withLease(through, testLease), "worker")
			f.wait("an upload of the worker", time.Minute, func() bool { return worker.uploads().accepted > 0 })
			c.cut(proxy)
			f.wait("the answers to the worker", time.Minute, func() bool { return worker.uploads().open == 0 })
			before, others := worker.uploads().accepted, watch.uploads().accepted
			end := time.Now().Add(2 * testLease)
			f.wait("uploads of the watch", time.Minute, func() bool { return time.Now().After(end) && watch.uploads().accepted > others })
			if n := worker.uploads().accepted - before; n > 0 {
				t.Errorf("the worker sent %d uploads while it could not reach the database", n)
			}
			proxy.Restore()
			f.bucket.fill("later", 800) // the watch may have uploaded everything meanwhile
			f.wait("an upload of the worker", time.Minute, func() bool { return worker.uploads().accepted > before })
			f.waitUntilUploaded(patience(objects))
			stopAll([]*process{watch, worker})
			f.checkUploads(2)
		})
	}
}
