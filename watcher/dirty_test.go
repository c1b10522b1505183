package watcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestOutermost(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"a a/ a/b a-b a/b/ a a0": "a a-b a/ a0",
		"a/b/ a/b/c a/ b":        "a/ b",
		"a/b a/b/c/ a/b/":        "a/b a/b/",
	} {
		if got := strings.Join(Outermost(strings.Fields(in)), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := Outermost([]string{"a/", "", "b"}); !slices.Equal(got, []string{""}) {
		t.Errorf("got %q", got)
	}
}

// The taken prefixes cover every added key, and the set stays small.
func TestDirtySetCoversEveryAddedKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d dirtySet
		deep := rapid.IntRange(1, 6).Draw(t, "depth")
		wide := rapid.SampledFrom([]int{2, 10, 100}).Draw(t, "width")
		var added []string
		for range rapid.IntRange(0, 3000).Draw(t, "number") {
			key := ""
			for i := range rapid.IntRange(1, deep).Draw(t, "parts") {
				if i > 0 {
					key += "/"
				}
				key += fmt.Sprint(rapid.IntRange(0, wide).Draw(t, "name"))
			}
			if rapid.Bool().Draw(t, "directory") {
				key += "/"
			}
			d.add(key)
			added = append(added, key)
		}
		taken := d.take()
		if len(taken) > dirtyTotal || d.whole || d.names != nil {
			t.Fatalf("%d prefixes, %v", len(taken), d)
		}
		if !slices.Equal(taken, Outermost(slices.Clone(taken))) {
			t.Fatalf("the prefixes are not the outermost ones: %q", taken)
		}
		for _, key := range added {
			if !slices.ContainsFunc(taken, func(p string) bool { return covers(p, key) }) {
				t.Fatalf("%q is not covered by %q", key, taken)
			}
		}
	})
}

func TestFullDirtySetWidensToDirectories(t *testing.T) {
	var d dirtySet
	for i := range dirtyNames {
		d.add(fmt.Sprintf("a/b/%d", i))
	}
	if got := d.take(); len(got) != dirtyNames {
		t.Errorf("%d prefixes", len(got))
	}
	for i := range dirtyNames + 1 {
		d.add(fmt.Sprintf("a/b/%d", i))
	}
	if got := d.take(); !slices.Equal(got, []string{"a/b/"}) {
		t.Errorf("got %q", got)
	}
	for i := range dirtyNames + 1 {
		d.add(fmt.Sprint(i))
	}
	if got := d.take(); !slices.Equal(got, []string{""}) {
		t.Errorf("got %q", got)
	}
	for i := range dirtyTotal + 1 {
		d.add(fmt.Sprintf("%d/x", i))
	}
	if got := d.take(); !slices.Equal(got, []string{""}) {
		t.Errorf("got %q", got)
	}
}
