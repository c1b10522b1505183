package main

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/watcher"
)

// A rumour is a source of hints that notes what it is told.
type rumour struct{ left [][]string }

func (*rumour) Wake() <-chan struct{}             { return nil }
func (*rumour) Take() []string                    { return nil }
func (r *rumour) Recorded(left []string)          { r.left = append(r.left, slices.Clone(left)) }
func (*rumour) Missed(int)                        {}
func (*rumour) Count(*statuspage.Metrics, string) {}
func (*rumour) Close() error                      { return nil }

// What was not listed is not told as recorded, and is scanned again soon, later each time.
func TestRoundTellsWhatIsRecorded(t *testing.T) {
	var told rumour
	r := &round{hints: &told, insist: true, again: []string{"young.md"}}
	whole := watcher.Result{Prefixes: []string{"a.md", "b/"}}
	broken := watcher.Result{Prefixes: []string{"a.md", "b/"}, IncompleteCount: 1, Incomplete: []error{errors.New("cut")}}
	r.recorded(whole)
	if want := [][]string{{"young.md"}}; !reflect.DeepEqual(told.left, want) || !r.againAt.IsZero() {
		t.Fatalf("%q", told.left)
	}
	r.again = nil
	var pauses []time.Duration
	for range 10 {
		told.left, r.again, r.againAt = nil, nil, time.Time{}
		r.recorded(broken)
		if want := [][]string{{"a.md", "b/"}}; !reflect.DeepEqual(told.left, want) || !slices.Equal(r.again, want[0]) {
			t.Fatalf("left %q, again %q", told.left, r.again)
		}
		pauses = append(pauses, time.Until(r.againAt))
	}
	if pauses[0] > 2*time.Second || pauses[9] < mostPause/2 || pauses[9] > mostPause || !slices.IsSorted(pauses[:6]) {
		t.Errorf("scanned again after %v", pauses)
	}
	told.left, r.again, r.againAt = nil, nil, time.Time{}
	r.recorded(whole)
	if r.recorded(broken); time.Until(r.againAt) > 2*time.Second {
		t.Error("a scan that went well did not count")
	}

	// A directory tells by itself, or is scanned as a whole.
	told.left, r.again, r.againAt, r.insist = nil, nil, time.Time{}, false
	if r.recorded(broken); r.again != nil || !r.againAt.IsZero() {
		t.Errorf("again %q", r.again)
	}
}
