package engine

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kbsync/kbsync/watcher"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestPartThatWasNotListedIsScannedAgainAndIsNotRecorded(t *testing.T) {
	t.Parallel()
	s := &scanSchedule{again: []string{"young.md"}}
	listed := watcher.Result{Prefixes: []string{"a.md", "b/"}}
	broken := watcher.Result{Prefixes: []string{"a.md", "b/"}, IncompleteCount: 1, Incomplete: []error{errors.New("cut")}}
	if left := s.recorded(start, listed); !slices.Equal(left, []string{"young.md"}) || !s.relistAt.IsZero() {
		t.Fatalf("left %q, again at %v", left, s.relistAt)
	}
	s.again = nil
	var delays []time.Duration
	now := start
	for range 10 {
		if left := s.recorded(now, broken); !slices.Equal(left, []string{"a.md", "b/"}) {
			t.Fatalf("left %q", left)
		}
		delays = append(delays, s.relistAt.Sub(now))
		// Meanwhile another part fails, and a third one is listed. Neither puts the next attempt off.
		at := s.relistAt
		s.recorded(now, watcher.Result{Prefixes: []string{"b/c.md"}, IncompleteCount: 1})
		s.recorded(now, watcher.Result{Prefixes: []string{"b.md"}})
		if got, _ := s.take(at.Add(-1), nil, false); s.relistAt != at || got != nil || s.wait(now) != min(at.Sub(now), livenessEvery) {
			t.Errorf("again at %v, not at %v; took %q", s.relistAt, at, got)
		}
		now = at
		if got, periodic := s.take(now, []string{"x.md"}, false); !slices.Equal(got, []string{"x.md", "a.md", "b/"}) || periodic {
			t.Errorf("took %q, periodic %v", got, periodic)
		}
	}
	if delays[0] != minDelay || delays[9] != maxDelay || !slices.IsSorted(delays) {
		t.Errorf("scanned again after %v", delays)
	}
	s.recorded(now, watcher.Result{Prefixes: []string{"a.md"}})
	if left := s.recorded(now, watcher.Result{Prefixes: []string{"a/", "b/c/"}}); !slices.Equal(left, []string{"b/"}) {
		t.Errorf("left %q", left)
	}
	if left := s.recorded(now, watcher.Result{Prefixes: []string{""}}); len(left) > 0 || !s.relistAt.IsZero() {
		t.Errorf("left %q after a complete scan", left)
	}
	if s.recorded(now, broken); s.relistAt.Sub(now) != minDelay {
		t.Error("a scan that listed everything did not reset the delay")
	}
	if s.failed(now, errors.New("gone")); len(s.unlisted) > 0 || s.wait(now) != minDelay {
		t.Errorf("after a failure %q wait %v", s.unlisted, s.wait(now))
	}
}

// Scans of everything that take long must leave half of the time to uploads, whatever demands them.
func TestScansOfEverythingRestAsLongAsTheyTake(t *testing.T) {
	t.Parallel()
	for name, demand := range map[string]func(s *scanSchedule){
		"a poll":               nil,
		"a short interval":     func(*scanSchedule) {},
		"a part is not listed": func(s *scanSchedule) { s.recorded(start, watcher.Result{Prefixes: []string{""}, IncompleteCount: 1}) },
	} {
		s := &scanSchedule{took: time.Minute, interval: time.Second}
		s.completed(start, watcher.Result{})
		var dirty []string
		if demand == nil {
			dirty = []string{""}
		} else {
			demand(s)
		}
		soon := start.Add(30 * time.Second)
		if got, periodic := s.take(soon, dirty, false); got != nil || periodic {
			t.Errorf("%s: scanned %q, periodic %v", name, got, periodic)
		}
		if wait := s.wait(soon); wait <= 0 || wait > 30*time.Second {
			t.Errorf("%s: waits %v", name, wait)
		}
		if got, periodic := s.take(soon, nil, true); !slices.Equal(got, []string{""}) || periodic {
			t.Errorf("%s: a person's demand is not met: %q", name, got)
		}
		s.completed(start, watcher.Result{})
		s.take(soon, dirty, false)
		if got, periodic := s.take(start.Add(time.Minute), nil, false); !slices.Equal(got, []string{""}) && !periodic {
			t.Errorf("%s: not scanned after the rest: %q, %v", name, got, periodic)
		}
	}
}

func TestScheduleTakesWhatIsDue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		schedule  scanSchedule
		dirty     []string
		triggered bool
		want      string
		periodic  bool
	}{
		{name: "nothing", want: "[]"},
		{name: "an event", dirty: []string{"a/"}, want: "[a/]"},
		{name: "an overflow", dirty: []string{"a/", ""}, want: "[]"},
		{name: "a trigger", triggered: true, want: "[]"},
		{name: "an unsettled file before its time", schedule: scanSchedule{again: []string{"x"}, againAt: start.Add(1)}, want: "[]"},
		{name: "an unsettled file at its time", schedule: scanSchedule{again: []string{"x"}, againAt: start}, dirty: []string{"a/"}, want: "[a/ x]"},
		{name: "a rescan", schedule: scanSchedule{next: start}, want: "[]", periodic: true},
		{name: "a rescan takes unsettled files first", schedule: scanSchedule{next: start, again: []string{"x"}, againAt: start.Add(1)}, want: "[x]", periodic: true},
		{name: "an event after a failure", schedule: scanSchedule{failures: 1, retryAt: start.Add(1)}, dirty: []string{"a/"}, want: "[]"},
		{name: "the retry of a failure", schedule: scanSchedule{failures: 1, retryAt: start}, want: "[]"},
	} {
		got, periodic := test.schedule.take(start, test.dirty, test.triggered)
		if fmt.Sprint(got) != test.want || periodic != test.periodic {
			t.Errorf("%s: %q, periodic %v", test.name, got, periodic)
		}
		whole := test.triggered || slices.Contains(test.dirty, "") || test.schedule.failures > 0 && !start.Before(test.schedule.retryAt)
		if slices.Equal(got, []string{""}) != whole {
			t.Errorf("%s: scans everything: %v", test.name, !whole)
		}
	}
}

func TestDelayAfterAFailedScanDependsOnTheCause(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		err  error
		took time.Duration
		want []time.Duration
	}{
		{"the root is missing", watcher.ErrRootMissing, 0, []time.Duration{minDelay, 2 * time.Second, 4 * time.Second, 8 * time.Second, missingRootDelay}},
		{"a guard", &watcher.GuardError{}, 0, []time.Duration{16 * time.Second, guardDelay, guardDelay}},
		{"a guard after a long scan", &watcher.GuardError{}, time.Minute, []time.Duration{16 * time.Second, 32 * time.Second, 64 * time.Second}},
		{"the state", errors.New("disk full"), 0, []time.Duration{minDelay, 2 * time.Second}},
	} {
		s := scanSchedule{took: test.took}
		for i, want := range test.want {
			if s.failed(start, test.err); s.retryAt.Sub(start) != want {
				t.Errorf("%s: delay %d is %v, want %v", test.name, i, s.retryAt.Sub(start), want)
			}
		}
	}
}
