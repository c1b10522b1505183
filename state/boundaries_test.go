package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/state"
)

// A cost is what a process that is killed at a boundary may cost.
type cost int

const (
	// nothing: each content is accepted as often as without the kill, and no more possible duplicates are listed.
	nothing cost = iota
	// listed: a content is accepted once more at most, and is listed as a possible duplicate whether it is or not.
	listed
)

// A row of the table of boundaries says what a kill before and after a step costs, or why the step is outside of the table. Every
// other step of a life is a boundary, too, of which only a reached one is in the table.
type row struct {
	before, complete, after cost
	// only is the kind of database on which a life takes the step; empty for both.
	only    string
	outside string
}

// boundaries is the table: each method of the state that writes, and each method of the interfaces to the API and the root.
// TestEveryBoundaryHasARow compares it with the code.
var boundaries = map[string]row{
	"Root.Open":                 {},
	"Reader.Read":               {}, // during hashing and in the middle of a body
	"Reader.Close":              {},
	"API.UploadSources":         {complete: listed, after: listed}, // complete: after the last byte, before the answer is read
	"API.SourceStatus":          {},
	"Syncs.Ensure":              {},
	"Journal.Recover":           {},
	"Journal.RecoverUnowned":    {only: "sqlite"}, // PostgreSQL: only the death of another process gives it something to do
	"Scans.SetGate":             {},
	"Scans.Begin":               {},
	"Scans.Record":              {},
	"Scans.Finish":              {},
	"Queue.Claim":               {},
	"Queue.Resolve":             {},
	"Queue.Block":               {},
	"Queue.Release":             {},
	"Queue.MarkVanished":        {},
	"Queue.MarkUnreadable":      {},
	"Queue.Mark":                {},
	"Queue.ClaimSmallest":       {},
	"Queue.ReopenBlocked":       {},
	"Journal.Begin":             {}, // writes a row only for the batch that the breaker lets through
	"Journal.Seal":              {after: listed},
	"Journal.Accept":            {before: listed},
	"Journal.Refuse":            {before: listed},
	"Journal.MarkUncertain":     {}, // its batch is listed in either case
	"Journal.Pause":             {},
	"Inventory.MakeStuckDue":    {},
	"Inventory.DueSources":      {only: "postgres"}, // a file has one tracker, which leases nothing
	"Inventory.RecordPolls":     {},
	"Inventory.MarkSourcesGone": {},
	"Syncs.Forget":              {},
	"Queue.ClaimResends":        {outside: "it is Queue.Claim with another condition"},
	"Queue.Reopen":              {outside: "TestTenSingleRefusalsInARowStopTheRunAndFailNoDocument has its outcome; a kill before it leaves failed documents for a retry"},
	"Scans.Drop":                {outside: "it follows a scan that failed; the next scan clears the same marks"},
	"Inventory.PostponePolls":   {outside: "it moves the time of a poll"},
	"Journal.Turn":              {outside: "it moves the time of a request"},
	"Syncs.AddSample":           {outside: "a picture of the page"},
	"Syncs.SetLastError":        {outside: "a text for people"},
}

func rowOf(point string) (row, cost) {
	method, side, _ := strings.Cut(point, " ")
	r := boundaries[method]
	switch side {
	case "complete":
		return r, r.complete
	case "after":
		return r, r.after
	}
	return r, r.before
}

// failing is what an error at a boundary may cost. After the commit of a seal only the process knows that it sent no last byte, and
// cannot record it, because it does not know of the commit.
func failing(point string) cost {
	if point == "API.UploadSources complete" || point == "API.UploadSources after" || point == "Journal.Seal after" {
		return listed
	}
	return nothing
}

// A database makes states of one kind.
type database struct {
	name string
	// begin returns the path of a new state, and fork the path of a copy of a state that no process has open.
	begin func(testing.TB) string
	fork  func(t testing.TB, path string) string
}

func databases() []database {
	return []database{
		{"sqlite", func(t testing.TB) string { return state.NewFile(t).Path }, forkFile},
		{"postgres", func(t testing.TB) string { return state.NewPostgres(t).Path }, func(t testing.TB, path string) string {
			return pgtest.Start(t).Fork(t, path)
		}},
	}
}

// kinds returns the kinds of faults at a boundary. The code above the database is the same for both, so that on PostgreSQL a test without
// CRASH_TABLE tries only the boundaries of an upload and of removals, whose leases and locks are its own.
func (d database) kinds(p point) []faultKind {
	method, _, _ := strings.Cut(p.name, " ")
	switch {
	case d.name == "sqlite" || os.Getenv("CRASH_TABLE") == "all":
		return []faultKind{kills, fails, stalls}
	case method == "Journal.Seal" || method == "Journal.Accept" || method == "API.UploadSources":
		return []faultKind{kills, stalls}
	case strings.HasPrefix(method, "Journal.") || method == "Scans.Finish" || method == "Syncs.Forget" || method == "Inventory.RecordPolls":
		return []faultKind{kills}
	}
	return nil
}

func forkFile(t testing.TB, path string) string {
	data, err := os.ReadFile(path)
	to := filepath.Join(t.TempDir(), "kbsync.db")
	if err = errors.Join(err, os.WriteFile(to, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	return to
}

// inTime runs test in a bubble if the database needs no socket.
func (d database) inTime(t *testing.T, test func(t *testing.T)) {
	if d.name == "sqlite" {
		synctest.Test(t, test)
		return
	}
	test(t)
}

// TestFaultAtEachBoundary lets a process be killed, a step fail and a step stall at each boundary, on both databases. CRASH_TABLE=all
// takes every occurrence of a boundary in place of the first one, and kills processes in place of goroutines.
func TestFaultAtEachBoundary(t *testing.T) {
	if at := os.Getenv(childPoint); at != "" {
		runChild(t, at)
		return
	}
	t.Parallel()
	for _, d := range databases() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			path := d.begin(t)
			var plain *trace
			keep := func() string { return d.fork(t, path) }
			d.inTime(t, func(t *testing.T) { plain = traceOf(t, path, keep) })
			plain.checkReached(t, d.name)
			points := plain.first
			if os.Getenv("CRASH_TABLE") == "all" {
				points = plain.all
			}
			for _, p := range points {
				for _, kind := range d.kinds(p) {
					t.Run(fmt.Sprintf("%s/%s", p, kind), func(t *testing.T) {
						t.Parallel()
						path := d.fork(t, plain.starts[p.phase].path)
						if kind == kills && os.Getenv("CRASH_TABLE") == "all" {
							strike(t, path, plain, p, kind) // with a process, whose requests need sockets
							return
						}
						d.inTime(t, func(t *testing.T) {
							if d.name == "sqlite" {
								time.Sleep(time.Hour) // the state has times of another bubble
							}
							strike(t, path, plain, p, kind)
						})
					})
				}
			}
		})
	}
}

// A point is a boundary of a phase: its name, and its number among the boundaries of that name in the phase.
type point struct {
	phase int
	name  string
	nth   int
}

func (p point) String() string { return fmt.Sprintf("%s/%s/%d", phases[p.phase].name, p.name, p.nth) }

// A trace is what a life without faults does.
type trace struct {
	first, all []point
	starts     []start  // of the phases
	ends       []report // of the phases
}

// A start is what a phase begins with.
type start struct {
	path     string
	emulator []byte // a snapshot
}

// traceOf lives a life without faults. keep returns the path of a copy of the state.
func traceOf(t *testing.T, path string, keep func() string) *trace {
	l := newLife(t, path)
	l.endLeases() // makes the tables
	found := &trace{}
	seen := map[string]bool{}
	for i := range phases {
		s := newStriker(point{}, fails)
		s.reached = func(name string, nth int) {
			p := point{i, name, nth}
			found.all = append(found.all, p)
			if !seen[name] {
				seen[name] = true
				found.first = append(found.first, p)
			}
		}
		var snapshot bytes.Buffer
		if err := l.emulator.Snapshot(&snapshot); err != nil {
			t.Fatal(err)
		}
		found.starts = append(found.starts, start{keep(), snapshot.Bytes()})
		l.begin(i)
		if err := l.run(t.Context(), i, s.at); err != nil {
			t.Fatalf("phase %s: %v", phases[i].name, err)
		}
		found.ends = append(found.ends, l.report())
	}
	return found
}

// checkReached fails if a row of the table is not reached, or a boundary has no row.
func (f *trace) checkReached(t *testing.T, database string) {
	t.Helper()
	reached := map[string]bool{}
	for _, p := range f.first {
		method, _, _ := strings.Cut(p.name, " ")
		reached[method] = true
		if r, ok := boundaries[method]; !ok || r.outside != "" {
			t.Errorf("a life reaches %s, which has no row in the table of boundaries", method)
		}
	}
	for method, r := range boundaries {
		if r.outside == "" && (r.only == "" || r.only == database) && !reached[method] {
			t.Errorf("no phase reaches %s; if one cannot, write the reason into its row", method)
		}
	}
}

// strike lives the phases up to the one of the point, with a fault there, until all its work is done. Then it checks the outcome.
func strike(t *testing.T, path string, plain *trace, p point, kind faultKind) {
	l := newLife(t, path)
	if err := l.emulator.Restore(bytes.NewReader(plain.starts[p.phase].emulator)); err != nil {
		t.Fatal(err)
	}
	l.begin(p.phase)
	_, may := rowOf(p.name)
	first := p.nth == 1
	switch {
	case kind == kills && os.Getenv("CRASH_TABLE") == "all":
		if l.killProcess(p) && may == nothing {
			may, first = listed, false // another goroutine was waiting for an answer
		}
	case kind == kills:
		l.freeze(p)
	case kind == fails:
		may = failing(p.name)
		s := newStriker(p, fails)
		err := l.run(t.Context(), p.phase, s.at)
		if !s.struck() {
			l.notReached(p, err)
		}
	case !l.shared():
		may = nothing
		s := newStriker(p, stalls)
		if err := l.run(t.Context(), p.phase, s.at); err != nil {
			t.Fatal(err)
		}
		if !s.struck() {
			l.notReached(p, nil)
		}
	default:
		first = false // the other process is quicker or slower
		l.overtake(p)
	}
	l.compare(l.mustFinish(p.phase), plain.ends[p.phase], may, first)
}

// notReached fails the test, unless the number of times that a pass reaches the boundary depends on time: documents that wait after a
// lost answer are claimed until they are due.
func (l *life) notReached(p point, err error) {
	l.Helper()
	if !strings.HasPrefix(p.name, "Queue.Claim") || p.nth == 1 || err != nil {
		l.Fatalf("the boundary was not reached: %v", err)
	}
	l.Log("this time the boundary was reached less often")
}

var errFault = errors.New("disk I/O error")

// logWaiting logs the documents that are not at an end.
func (l *life) logWaiting() {
	store, err := state.Open(context.WithoutCancel(l.Context()), state.Options{Path: l.path, ReadOnly: true})
	if err != nil {
		l.Error(err)
		return
	}
	defer store.Close()
	sync, err := store.Syncs.Get(l.Context(), "docs")
	if err != nil {
		l.Error(err)
	}
	for d, err := range store.Documents.All(l.Context(), sync.ID, state.Pending, state.Uploading, state.Training, state.Failed, state.Stuck, state.Uncertain) {
		l.Logf("%+v, %v", d, err)
	}
}

// retryFailed makes the failed documents pending again, as a person does: the API of a phase refuses a whole request, which after an
// error of reading may have one document alone.
func (l *life) retryFailed() {
	l.Helper()
	ctx := context.WithoutCancel(l.Context())
	store, err := state.Open(ctx, state.Options{Path: l.path})
	if err != nil {
		l.Fatal(err)
	}
	sync, err := store.Syncs.Get(ctx, "docs")
	var failed []int64
	for d, listErr := range store.Documents.All(ctx, sync.ID, state.Failed) {
		failed, err = append(failed, d.ID), errors.Join(err, listErr)
	}
	if err == nil && len(failed) > 0 {
		err = store.Queue.Reopen(ctx, failed)
	}
	if err = errors.Join(err, store.Close()); err != nil {
		l.Fatal(err)
	}
}

func (l *life) shared() bool { return strings.Contains(l.path, "://") }

// mustFinish makes passes over a phase until nothing is left to do.
func (l *life) mustFinish(phase int) (r report) {
	l.Helper()
	var err error
	for range 5 {
		if err = l.run(context.WithoutCancel(l.Context()), phase, func(string) error { return nil }); err == nil {
			if r = l.report(); r.waiting == 0 {
				return r
			}
			l.retryFailed()
		}
		time.Sleep(time.Second)
	}
	l.logWaiting()
	l.Fatalf("phase %s does not end: %v, %d documents wait", phases[phase].name, err, r.waiting)
	return r
}
