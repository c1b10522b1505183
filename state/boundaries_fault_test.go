package state_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// A faultKind is what happens at a boundary.
type faultKind string

const (
	kills  faultKind = "kill"
	fails  faultKind = "error"
	stalls faultKind = "stall" // for ten seconds; in a shared state until another process has done the work
)

// A striker strikes at one boundary of a pass.
type striker struct {
	at0     point
	kind    faultKind
	reached func(name string, nth int)

	mu     sync.Mutex
	seen   map[string]int
	hit    chan struct{} // closed when the boundary is reached
	frozen bool
	thaw   chan struct{} // ends a freeze
}

func newStriker(p point, kind faultKind) *striker {
	return &striker{at0: p, kind: kind, seen: map[string]int{}, hit: make(chan struct{}), thaw: make(chan struct{})}
}

func (s *striker) struck() bool {
	select {
	case <-s.hit:
		return true
	default:
		return false
	}
}

// takeover is the kind of stall during which another process does the work.
const takeover faultKind = "takeover"

// at is called at every boundary. After the one at which the process is killed, no goroutine of it passes another boundary.
func (s *striker) at(name string) error {
	s.mu.Lock()
	s.seen[name]++
	nth := s.seen[name]
	if s.reached != nil {
		s.reached(name, nth)
	}
	hit := name == s.at0.name && nth == s.at0.nth
	if hit {
		close(s.hit)
		s.frozen = s.kind == kills
	}
	frozen := s.frozen
	s.mu.Unlock()
	switch {
	case frozen:
		<-s.thaw
		return state.ErrNotFound // no write is tried again after it
	case hit && s.kind == fails:
		return errFault
	case hit && s.kind == stalls:
		time.Sleep(10 * time.Second)
	case hit && s.kind == takeover:
		<-s.thaw
	}
	return nil
}

// newLife begins a life whose state is at path.
func newLife(t *testing.T, path string) *life {
	t.Helper()
	e, err := emulator.New(emulator.Options{Train: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return &life{T: t, path: path, emulator: e, token: e.Token(51)}
}

// begin sets the faults of the API in a phase, and deletes the sources that a person deletes before it.
func (l *life) begin(phase int) {
	l.Helper()
	p := phases[phase]
	err := l.emulator.SetFaults(&emulator.Faults{Rules: p.faults})
	for _, a := range l.emulator.Accepted() {
		if p.gone != "" && a.SHA256 == sha256.Sum256([]byte(p.gone)) {
			err = errors.Join(err, l.emulator.Remove(a.SourceID))
		}
	}
	if err != nil {
		l.Fatal(err)
	}
}

// run makes a pass as a process of its own.
func (l *life) run(ctx context.Context, phase int, at func(string) error) error {
	store, err := l.open(ctx, at)
	if err != nil {
		return err
	}
	return errors.Join(l.pass(ctx, store, &phases[phase], at), store.Close())
}

// freeze makes a pass that ends at a boundary as by a kill: none of its goroutines passes another boundary until the test ends.
func (l *life) freeze(p point) {
	l.Helper()
	l.hold(p, kills, func(_ *striker, end func()) { l.Cleanup(end) })
}

// overtake makes a pass that stalls at a boundary until another process has done the work, and then goes on.
func (l *life) overtake(p point) {
	l.Helper()
	l.hold(p, takeover, func(_ *striker, end func()) {
		l.mustFinish(p.phase)
		end()
	})
}

// hold makes a pass that is held at a boundary. meanwhile gets the function that lets it go on, and waits for its end.
func (l *life) hold(p point, kind faultKind, meanwhile func(s *striker, end func())) {
	l.Helper()
	s := newStriker(p, kind)
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.Context()))
	done := make(chan error, 1)
	go func() { done <- l.run(ctx, p.phase, s.at) }()
	select {
	case <-s.hit:
	case err := <-done:
		cancel()
		l.notReached(p, err)
		return
	}
	time.Sleep(20 * time.Millisecond) // other goroutines come to their boundaries
	l.endLeases()
	meanwhile(s, func() {
		if kind == kills {
			cancel()
		}
		close(s.thaw)
		l.Log("the process that was held ended with: ", <-done)
		cancel()
	})
}

func (l *life) endLeases() {
	l.Helper()
	store, err := state.Open(context.WithoutCancel(l.Context()), state.Options{Path: l.path})
	if err == nil {
		err = errors.Join(state.EndLeases(context.WithoutCancel(l.Context()), store), store.Close())
	}
	if err != nil {
		l.Fatal(err)
	}
}

// The environment of a process that kills itself.
const (
	childPoint = "BOUNDARY_KILL"
	childState = "BOUNDARY_STATE"
	childURL   = "BOUNDARY_URL"
	childToken = "BOUNDARY_TOKEN"
)

// killProcess makes a pass in a process that kills itself at the boundary. It reports whether the process was waiting for the answer to an
// upload.
func (l *life) killProcess(p point) (unanswered bool) {
	l.Helper()
	url, err := l.emulator.Start("127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestFaultAtEachBoundary$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d/%s/%d", childPoint, p.phase, p.name, p.nth), childState+"="+l.path, childURL+"="+url, childToken+"="+l.token)
	switch out, err := cmd.CombinedOutput(); {
	case strings.Contains(string(out), notKilled+"<nil>"):
		l.notReached(p, nil)
	case err == nil || !strings.Contains(err.Error(), "killed"):
		l.Fatalf("the process was not killed: %v\n%s", err, out)
	}
	l.endLeases()
	ctx := context.WithoutCancel(l.Context())
	store, err := state.Open(ctx, state.Options{Path: l.path, ReadOnly: true})
	if err != nil {
		l.Fatal(err)
	}
	defer store.Close()
	batches, err := store.Journal.Recent(ctx, 1000)
	if err != nil {
		l.Fatal(err)
	}
	return slices.ContainsFunc(batches, func(b state.Batch) bool { return b.State == state.BatchSealed })
}

// notKilled begins the last line of a process that did not reach the boundary.
const notKilled = "not killed: "

func runChild(t *testing.T, at string) {
	parts := strings.Split(at, "/")
	phase, err := strconv.Atoi(parts[0])
	nth, nthErr := strconv.Atoi(parts[2])
	if err = errors.Join(err, nthErr); err != nil {
		t.Fatal(err)
	}
	s := newStriker(point{phase, parts[1], nth}, kills)
	go func() {
		<-s.hit
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
	}()
	l := &life{T: t, path: os.Getenv(childState), url: os.Getenv(childURL), token: os.Getenv(childToken), locks: true}
	t.Logf("%s%v", notKilled, l.run(t.Context(), phase, s.at))
}

// A report is what the API and the state have after a phase.
type report struct {
	accepted map[state.SHA256]int
	listed   map[state.SHA256]int
	waiting  int // documents that are neither completed, skipped, removed nor held
	unknown  int // accepted sources that the inventory lacks, and whose content is not listed
	findings []string
}

func (l *life) report() report {
	l.Helper()
	ctx := context.WithoutCancel(l.Context())
	store, err := state.Open(ctx, state.Options{Path: l.path, ReadOnly: true})
	if err != nil {
		l.Fatal(err)
	}
	defer store.Close()
	r := report{accepted: map[state.SHA256]int{}, listed: map[state.SHA256]int{}}
	r.findings, err = store.Check(ctx)
	known := map[int64]bool{}
	for s, sourceErr := range store.Inventory.Sources(ctx, state.SourceFilter{}) {
		known[s.ID], err = true, errors.Join(err, sourceErr)
	}
	for d, listErr := range store.Inventory.PossibleDuplicates(ctx, 0) {
		r.listed[d.SHA256]++
		err = errors.Join(err, listErr)
	}
	for _, a := range l.emulator.Accepted() {
		r.accepted[a.SHA256]++
		if !known[a.SourceID] && r.listed[a.SHA256] == 0 {
			r.unknown++
		}
	}
	sync, getErr := store.Syncs.Get(ctx, "docs")
	if err = errors.Join(err, getErr); err != nil {
		l.Fatal(err)
	}
	for d, docErr := range store.Documents.All(ctx, sync.ID) {
		err = errors.Join(err, docErr)
		if d.State != state.Completed && d.State != state.Skipped && d.State != state.Removed && (d.State != state.Uncertain || !d.Held) {
			r.waiting++
		}
	}
	if err != nil {
		l.Fatal(err)
	}
	return r
}

// compare compares the outcome of a life with a fault with the one of a life without.
func (l *life) compare(got, plain report, may cost, exactly bool) {
	l.Helper()
	more := 0
	for sum, n := range got.accepted {
		if n > plain.accepted[sum]+int(may) || plain.accepted[sum] == 0 {
			l.Errorf("content %x was accepted %d times; without the fault %d times", sum[:4], n, plain.accepted[sum])
		}
		if n > plain.accepted[sum] && got.listed[sum] == 0 {
			l.Errorf("content %x was accepted %d times and is not listed as a possible duplicate", sum[:4], n)
		}
	}
	for sum := range plain.accepted {
		if got.accepted[sum] == 0 {
			l.Errorf("content %x is lost", sum[:4])
		}
	}
	for sum := range got.listed {
		more += max(got.listed[sum]-plain.listed[sum], 0)
	}
	if may == nothing && more > 0 {
		l.Errorf("%d possible duplicates are listed, although no answer was lost", more)
	}
	if may == listed && exactly && more == 0 && len(plain.listed) == 0 {
		l.Error("no possible duplicate is listed, although an answer was lost: the table of boundaries says more than is true")
	}
	if got.unknown > 0 {
		l.Errorf("%d accepted sources are not in the inventory", got.unknown)
	}
	if len(got.findings) > 0 {
		l.Errorf("the state is not sound: %s", got.findings)
	}
}
