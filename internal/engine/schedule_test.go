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
	if left := s.recorded(start, listed, true); !slices.Equal(left, []string{"young.md"}) || !s.againAt.IsZero() {
		t.Fatalf("left %q, again at %v", left, s.againAt)
	}
	var delays []time.Duration
	for range 10 {
		s.again, s.againAt = nil, time.Time{}
		left := s.recorded(start, broken, true)
		if want := []string{"a.md", "b/"}; !slices.Equal(left, want) || !slices.Equal(s.again, want) {
			t.Fatalf("left %q, again %q", left, s.again)
		}
		delays = append(delays, s.againAt.Sub(start))
	}
	if delays[0] != minDelay || delays[9] != maxDelay || !slices.IsSorted(delays) {
		t.Errorf("scanned again after %v", delays)
	}
	s.again, s.againAt = nil, time.Time{}
	s.recorded(start, listed, true)
	if s.recorded(start, broken, true); s.againAt.Sub(start) != minDelay {
		t.Error("a scan that listed everything did not reset the delay")
	}

	// A directory delivers no event again, and is scanned as a whole.
	s.again, s.againAt = nil, time.Time{}
	if left := s.recorded(start, broken, false); left != nil || !s.againAt.IsZero() {
		t.Errorf("left %q", left)
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
