package main

import (
	"fmt"
	"testing"
)

func TestProblemsAreGroupedByStateAndReason(t *testing.T) {
	t.Parallel()
	var groups []problemGroup
	for i := range 7 {
		groups = addProblem(groups, troubledView{fmt.Sprintf("%d.md", i), "failed", "too odd"})
	}
	groups = addProblem(groups, troubledView{"x.md", "stuck", "too odd"})
	got := fmt.Sprint(groups)
	if want := "[failed: 0.md, 1.md, 2.md, 3.md, 4.md, 2 more: too odd stuck: x.md: too odd]"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
