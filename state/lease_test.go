package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// processes are fixtures of two processes that share a PostgreSQL state.
func processes(t *testing.T) (a, b *fixture) {
	t.Helper()
	a = fixtureIn(t, inPostgres)
	b = &fixture{t: t, next: 900000, make: a.make, opts: a.opts, sync: a.sync}
	b.s = b.open(a.opts)
	return a, b
}

// Leases of several syncs are independent: to give one up, or to lose it, changes no other one.
func TestLeasesOfSyncsAreIndependent(t *testing.T) {
	a, b := processes(t)
	lock := func(r *fixture, name string) *Lock {
		t.Helper()
		l, err := r.s.Lock(t.Context(), name, 0)
		r.must(err)
		return l
	}
	change := []Change{{Op: Put, Key: "a.md", Fingerprint: Fingerprint{Size: 1}}}
	record := func(r *fixture, name string) {
		t.Helper()
		sync, err := r.s.Syncs.Ensure(t.Context(), name, "/"+name, testDestination, false)
		r.must(err)
		scan, err := r.s.Scans.Begin(t.Context(), sync.ID, "")
		r.must(err)
		if err := r.s.Scans.Record(t.Context(), scan, change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"first", "second", "third"} {
		_, err := a.s.Syncs.Ensure(t.Context(), name, "/"+name, testDestination, false)
		a.must(err)
	}
	first, second, third := lock(a, "first"), lock(b, "second"), lock(a, "third")
	record(a, "first")
	record(b, "second")
	record(a, "third")
	if _, err := a.s.Lock(t.Context(), "second", 0); !errors.Is(err, ErrLocked) {
		t.Errorf("the lock of another process: %v", err)
	}
	a.must(first.Unlock())
	if _, err := b.s.Lock(t.Context(), "third", 0); !errors.Is(err, ErrLocked) {
		t.Errorf("the third lock after the first one was given up: %v", err)
	}
	record(a, "third")
	a.must(lock(b, "first").Unlock())
	a.must(second.Unlock())
	a.must(third.Unlock())
}

// Owners are the living processes, each with its claims in all syncs.
func TestOwners(t *testing.T) {
	a, b := processes(t)
	a.put("1.md", "2.md", "3.md", "4.md", "5.md", "6.md")
	contents := map[string]string{"1.md": "1", "2.md": "2", "3.md": "3"}
	claim := func(r *fixture, n int) []ClaimedDocument {
		t.Helper()
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, n)
		r.must(err)
		return docs
	}
	docs, _ := a.resolveClaimed(claim(a, 3), contents, Sharing{})
	a.accept(a.seal(docs[:1]), 1) // is claimed no more
	claim(b, 1)
	other, err := a.s.Syncs.Ensure(t.Context(), "other", "/other", testDestination, false)
	a.must(err)
	second := &fixture{t: t, s: a.s, sync: other}
	second.put("1.md", "2.md")
	claim(second, 2)
	claims := func() (claims []int) {
		t.Helper()
		owners, err := b.s.Syncs.Owners(t.Context())
		b.must(err)
		for _, o := range owners {
			claims = append(claims, o.Claims)
		}
		return claims
	}
	if got := claims(); !slices.Equal(got, []int{4, 1}) {
		t.Errorf("claims %v, want 4 of the first process and 1 of the second", got)
	}
	a.expireLease()
	if got := claims(); !slices.Equal(got, []int{1}) {
		t.Errorf("claims %v, want those of the living process", got)
	}
}

// ownerOf returns the number of a process in the shared state.
func ownerOf(r *fixture) int64 {
	r.t.Helper()
	id, err := r.s.owner(r.ctx())
	r.must(err)
	return id
}

// A process that lives keeps its lease alone, and one that ends gives up its own lease alone.
func TestLeaseIsOfAProcess(t *testing.T) {
	t.Parallel()
	short := inPostgres(t)
	short.Path += "&kbsync_lease=5s"
	living := fixtureIn(t, func(testing.TB) Options { return short })
	lost, err := living.s.LeaseLost(t.Context())
	living.must(err)
	owners := func() int {
		t.Helper()
		all, err := living.s.Syncs.Owners(t.Context())
		living.must(err)
		return len(all)
	}
	for _, name := range []string{"killed", "ended"} {
		s, err := Open(t.Context(), short)
		living.must(err)
		_, err = s.owner(t.Context())
		living.must(err)
		if n := owners(); n != 2 {
			t.Errorf("%d processes, want 2", n)
		}
		if name == "killed" {
			s.backend.(*postgresDB).leases.cancel() // renews no more
			time.Sleep(6 * time.Second)
		} else {
			living.must(s.Close())
		}
		if n := owners(); n != 1 {
			t.Errorf("one process is %s: %d are left, want 1", name, n)
		}
		select {
		case <-lost:
			t.Errorf("one process is %s: the other one lost its lease", name)
		default:
		}
		if name == "killed" {
			living.must(s.Close())
		}
	}
}

// A process that loses one of its leases scans that root no more, and the others as before.
func TestLeaseIsOfASync(t *testing.T) {
	a, b := processes(t)
	first, second := ownerOf(a), ownerOf(b)
	a.must(b.s.update(t.Context(), func(x *tx) error {
		_, err := x.exec(`UPDATE owners SET name = CASE WHEN id = $1 THEN 'the first' ELSE 'the second' END`, first)
		return err
	}))
	syncs := []string{"1", "2", "3"}
	for _, name := range syncs {
		lock, err := a.s.Lock(t.Context(), name, 0)
		a.must(err)
		defer func() { a.must(lock.Unlock()) }()
	}
	for _, taken := range syncs {
		a.must(b.s.update(t.Context(), func(x *tx) error {
			_, err := x.exec(`UPDATE leases SET owner_id = CASE WHEN name = $1 THEN $2 ELSE $3 END`, taken, second, first)
			return err
		}))
		for _, name := range syncs {
			sync, err := a.s.Syncs.Ensure(t.Context(), name, "/"+name, testDestination, false)
			a.must(err)
			if _, err := a.s.Scans.Begin(t.Context(), sync.ID, ""); errors.Is(err, ErrLeaseLost) != (name == taken) {
				t.Errorf("the lease of %s is taken: the scan of %s begins with %v", taken, name, err)
			}
			holder := map[bool]string{true: "the second", false: "the first"}[name == taken]
			third := a.open(a.opts)
			if _, err := third.Lock(t.Context(), name, 0); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), holder) {
				t.Errorf("the lease of %s is taken: the lock of %s: %v", taken, name, err)
			}
		}
	}
}

func TestRecoveryLeavesTheWorkOfALivingProcessAlone(t *testing.T) {
	a, b := processes(t)
	a.put("sealed.md", "claimed.md")
	contents := map[string]string{"sealed.md": "S", "claimed.md": "C"}
	docs, _ := a.resolve(contents, Sharing{})
	i := slices.IndexFunc(docs, func(d HashedDocument) bool { return d.Key == "sealed.md" })
	sealed := a.seal(docs[i : i+1])

	n, err := b.s.Journal.Recover(t.Context(), b.sync.ID)
	a.must(err)
	if all, err := b.s.Journal.RecoverUnowned(t.Context()); n != 0 || len(all) != 0 || err != nil {
		t.Errorf("recovered %d, %v, %v", n, all, err)
	}
	if more, _ := b.resolve(contents, Sharing{}); len(more) != 0 {
		t.Errorf("the other process claimed %v", more)
	}
	a.accept(sealed, 1)
	a.want("claimed.md=uploading sealed.md=training")

	// The first process is killed.
	a.expireLease()
	_, err = b.s.Journal.Recover(t.Context(), b.sync.ID)
	a.must(err)
	b.want("claimed.md=pending sealed.md=training")
}

func TestPausedProcessSealsNothingAndItsAnswerIsRecorded(t *testing.T) {
	a, b := processes(t)
	a.put("sealed.md", "open.md")
	docs, _ := a.resolve(map[string]string{"sealed.md": "S", "open.md": "O"}, Sharing{})
	sealed := a.seal(docs[:1])
	s, seals := spec(a, docs[1:])
	open, err := a.s.Journal.Begin(t.Context(), s)
	a.must(err)

	a.expireLease()
	if err := a.s.Journal.Seal(t.Context(), open, seals); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the seal without a lease returns %v", err)
	}
	n, err := b.s.Journal.Recover(t.Context(), b.sync.ID)
	a.must(err)
	if n != 1 {
		t.Errorf("%d uncertain batches, want 1", n)
	}
	if err := a.s.Journal.Seal(t.Context(), open, seals); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the seal after the recovery returns %v", err)
	}
	a.must(a.s.Queue.Release(t.Context(), s.Members, time.Now().Add(time.Hour), true)) // the claim is lost
	b.want(docs[1].Key + "=pending " + docs[0].Key + "=uncertain")
	a.accept(sealed, 1)
	b.want(docs[1].Key + "=pending " + docs[0].Key + "=training")
	claimed, err := b.s.Queue.Claim(t.Context(), b.sync.ID, 10)
	a.must(err)
	if len(claimed) != 1 || claimed[0].Attempts != 0 {
		t.Errorf("the other process claims %+v", claimed)
	}
}

func TestOneProcessScansARoot(t *testing.T) {
	a, b := processes(t)
	lock, err := a.s.Lock(t.Context(), a.sync.Name, 0)
	a.must(err)
	if _, err := b.s.Lock(t.Context(), b.sync.Name, 10*time.Millisecond); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("the second lock: %v", err)
	}
	if _, err := a.s.Lock(t.Context(), a.sync.Name, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("the second lock of one process: %v", err)
	}
	owners, err := b.s.Syncs.Owners(t.Context())
	a.must(err)
	scans := fmt.Sprint(owners[0].Scans)
	if len(owners) > 1 {
		scans += fmt.Sprint(owners[1].Scans)
	}
	if !strings.Contains(scans, a.sync.Name) {
		t.Errorf("owners %+v", owners)
	}
	scan, err := a.s.Scans.Begin(t.Context(), a.sync.ID, "")
	a.must(err)
	change := []Change{{Op: Put, Key: "a.md", Fingerprint: Fingerprint{Size: 1}}}
	a.must(a.s.Scans.Record(t.Context(), scan, change))

	// The first process is paused, and the other one leads.
	a.expireLease()
	taken, err := b.s.Lock(t.Context(), b.sync.Name, 0)
	a.must(err)
	if err := a.s.Scans.Record(t.Context(), scan, change); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("record returns %v", err)
	}
	if _, err := a.s.Scans.Finish(t.Context(), scan, "x"); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("finish returns %v", err)
	}
	if err := a.s.Scans.SetGate(t.Context(), a.sync.ID, false); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the gate returns %v", err)
	}
	a.must(lock.Unlock())
	if _, err := a.s.Lock(t.Context(), a.sync.Name, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("the unlock of a lost lease gave the other one up: %v", err)
	}
	b.put("b.md")
	a.must(taken.Unlock())
	lock, err = a.s.Lock(t.Context(), a.sync.Name, 0)
	a.must(err)
	a.must(lock.Unlock())
}

func TestNoProcessClaimsThroughAShutGate(t *testing.T) {
	a, b := processes(t)
	a.put("a.md")
	a.must(a.s.Scans.SetGate(t.Context(), a.sync.ID, true))
	if docs, err := b.s.Queue.Claim(t.Context(), b.sync.ID, 10); len(docs) != 0 || err != nil {
		t.Errorf("claimed %v, %v", docs, err)
	}
	if due, err := b.s.Queue.NextDue(t.Context(), b.sync.ID, -1); !due.IsZero() || err != nil {
		t.Errorf("due at %v, %v", due, err)
	}
	a.must(a.s.Scans.SetGate(t.Context(), a.sync.ID, false))
	if docs, err := b.s.Queue.Claim(t.Context(), b.sync.ID, 10); len(docs) != 1 || err != nil {
		t.Errorf("claimed %v, %v", docs, err)
	}
}

// Several processes upload the documents of one sync, some of which have the same content.
func TestProcessesUploadEachContentOnce(t *testing.T) {
	a, b := processes(t)
	c := &fixture{t: t, next: 1800000, make: a.make, opts: a.opts, sync: a.sync}
	c.s = c.open(a.opts)
	contents := map[string]string{}
	var keys []string
	for i := range 300 {
		key := fmt.Sprintf("%03d.md", i)
		keys, contents[key] = append(keys, key), fmt.Sprint(i%200)
	}
	a.put(keys...)
	var mu sync.Mutex
	sent := map[string]int{}
	var running sync.WaitGroup
	for _, r := range []*fixture{a, b, c} {
		running.Go(func() { uploadAll(t, r, contents, &mu, sent) })
	}
	running.Wait()
	for content, n := range sent {
		if n != 1 {
			t.Errorf("content %s was sent %d times", content, n)
		}
	}
	if len(sent) != 200 {
		t.Errorf("%d contents were sent", len(sent))
	}
	counts, err := a.s.Documents.Counts(t.Context(), a.sync.ID)
	a.must(err)
	if counts[Training] != 300 {
		t.Errorf("documents %v", counts)
	}
}

// uploadAll uploads until no document of the sync is pending or uploading.
func uploadAll(t *testing.T, r *fixture, contents map[string]string, mu *sync.Mutex, sent map[string]int) {
	ctx := context.Background()
	fail := func(err error) bool {
		if err != nil {
			t.Error(err)
		}
		return err != nil
	}
	for {
		claimed, err := r.s.Queue.Claim(ctx, r.sync.ID, 7)
		if fail(err) {
			return
		}
		if len(claimed) == 0 {
			left, err := r.s.Documents.Outstanding(ctx, r.sync.ID)
			if fail(err) || left[Pending]+left[Uploading] == 0 {
				return
			}
			continue
		}
		var docs []HashedDocument
		for _, d := range claimed {
			docs = append(docs, HashedDocument{ClaimedDocument: d, SHA256: hash(contents[d.Key]), Size: 10})
		}
		verdicts, err := r.s.Queue.Resolve(ctx, r.sync.ID, docs, Sharing{})
		if fail(err) {
			return
		}
		var batch []HashedDocument
		for i, v := range verdicts {
			if v.Action == ActionUpload {
				batch = append(batch, docs[i])
			}
		}
		if len(batch) == 0 {
			continue
		}
		s, seals := spec(r, batch)
		u, err := r.s.Journal.Begin(ctx, s)
		if fail(err) {
			return
		}
		err = r.s.Journal.Seal(ctx, u, seals)
		if _, refused := errors.AsType[*SealError](err); refused {
			if fail(r.s.Journal.Refuse(ctx, u, Refusal{Disposition: Requeue})) {
				return
			}
			continue
		}
		if fail(err) {
			return
		}
		answer := Answer{StatusCode: 200, NextPoll: time.Now().Add(time.Hour)}
		mu.Lock()
		for _, d := range batch {
			sent[contents[d.Key]]++
			r.next++
			answer.Sources = append(answer.Sources, []SourceAnswer{{ID: r.next, Type: "file", Name: usualName(d.Key), Status: "in-progress"}})
		}
		mu.Unlock()
		if _, err := r.s.Journal.Accept(ctx, u, answer); fail(err) {
			return
		}
	}
}

// A second Unlock does not release the lock that was taken after the first one.
func TestUnlockReleasesOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		first, err := r.s.Lock(t.Context(), r.sync.Name, 0)
		r.must(err)
		r.must(first.Unlock())
		r.must(first.Unlock())
		second, err := r.s.Lock(t.Context(), r.sync.Name, 0)
		r.must(err)
		r.must(first.Unlock())
		if _, err := r.open(r.opts).Lock(t.Context(), r.sync.Name, 0); !errors.Is(err, ErrLocked) {
			t.Errorf("another process takes the lock: %v", err)
		}
		r.must(second.Unlock())
	})
}

// Two goroutines of one process that take a lease at the same time do not both get it.
func TestOneProcessTakesALeaseOnce(t *testing.T) {
	r := fixtureIn(t, inPostgres)
	_, err := r.s.LeaseLost(t.Context()) // registers the process
	r.must(err)
	for range 20 {
		var taking sync.WaitGroup
		locks := make(chan *Lock, 4)
		for range cap(locks) {
			taking.Go(func() {
				if lock, err := r.s.Lock(t.Context(), r.sync.Name, 0); err == nil {
					locks <- lock
				} else if !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
			})
		}
		taking.Wait()
		close(locks)
		if len(locks) != 1 {
			t.Fatalf("%d goroutines have the lock", len(locks))
		}
		r.must((<-locks).Unlock())
	}
}

func TestProcessThatIsCutOffLosesItsLease(t *testing.T) {
	direct := inPostgres(t)
	proxy, url := pgtest.NewProxy(t, direct.Path)
	r := fixtureIn(t, func(testing.TB) Options { return Options{Path: url + "&kbsync_lease=1s"} })
	lost, err := r.s.LeaseLost(t.Context())
	r.must(err)
	select {
	case <-lost:
		t.Fatal("the lease is lost although it is renewed")
	case <-time.After(3 * time.Second):
	}
	proxy.Silence()
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Fatal("the lease is not lost")
	}
	proxy.Restore()
	again, err := r.s.LeaseLost(t.Context())
	r.must(err)
	select {
	case <-again:
		t.Error("the second lease is lost")
	default:
	}
}

// A lease that has run out by the clock of the database is not renewed: another process may have taken over.
func TestLeaseThatHasRunOutIsNotRenewed(t *testing.T) {
	direct := inPostgres(t)
	r := fixtureIn(t, func(testing.TB) Options { return Options{Path: direct.Path + "&kbsync_lease=3s"} })
	lost, err := r.s.LeaseLost(t.Context())
	r.must(err)
	r.must(EndLeases(t.Context(), r.s))
	select {
	case <-lost:
	case <-time.After(2500 * time.Millisecond): // the next renewal comes after a second
		t.Error("the lease was renewed")
	}
}

// Two trackers ask for each source once, and a status that comes late does not replace a newer one.
func TestProcessesPollASourceOnce(t *testing.T) {
	a, b := processes(t)
	a.put("a.md", "b.md")
	docs, _ := a.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
	ids := a.accept(a.seal(docs), 2)
	due, err := a.s.Inventory.DueSources(t.Context(), a.sync.Destination.ID, time.Hour, 10)
	a.must(err)
	if other, err := b.s.Inventory.DueSources(t.Context(), b.sync.Destination.ID, time.Second, 10); len(due) != 2 || len(other) != 0 || err != nil {
		t.Errorf("due %v, and for the other process %v, %v", due, other, err)
	}
	b.trained(TrainingCompleted, ids...)
	a.must(a.s.Inventory.RecordPolls(t.Context(), a.sync.Destination.ID, []Poll{{SourceID: ids[0], Polls: due[0].Polls, Status: "in-progress", NextPoll: time.Now()}}))
	a.want("a.md=completed b.md=completed")
}

func TestProcessesWakeEachOther(t *testing.T) {
	a, b := processes(t)
	woken := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.s.Listen(ctx, func() { woken <- struct{}{} }) })
	defer running.Wait()
	defer cancel()
	deadline := time.After(20 * time.Second)
	for {
		// The first notification may come before the other process listens.
		a.must(a.s.Scans.SetGate(t.Context(), a.sync.ID, true))
		a.must(a.s.Scans.SetGate(t.Context(), a.sync.ID, false))
		select {
		case <-woken:
			return
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("the other process was not woken")
		}
	}
}

func TestProcessesShareTheRateOfAnAccount(t *testing.T) {
	a, b := processes(t)
	var waits []time.Duration
	for range 3 {
		for _, r := range []*fixture{a, b} {
			wait, err := r.s.Journal.Turn(t.Context(), "51", 10*time.Second, 2)
			r.must(err)
			waits = append(waits, wait.Round(10*time.Second))
		}
	}
	if got := fmt.Sprint(waits); got != "[0s 0s 10s 20s 30s 40s]" {
		t.Errorf("waits %s", got)
	}
	if wait, err := a.s.Journal.Turn(t.Context(), "52", 10*time.Second, 2); wait != 0 || err != nil {
		t.Errorf("another account waits %v, %v", wait, err)
	}
}
