package watcher

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// ignoringCase makes up a file system without case and without Unicode form.
func ignoringCase(t *testing.T) func(*folder, string) string {
	return func(f *folder, name string) string {
		again, err := f.child(".")
		if err != nil {
			return name
		}
		defer again.close()
		nodes, err := again.read(make([]byte, 4<<10))
		if err != nil {
			t.Error(err)
		}
		for _, n := range nodes {
			if strings.EqualFold(norm.NFC.String(n.name), norm.NFC.String(name)) {
				return n.name
			}
		}
		return name
	}
}

// On a file system that ignores case, a document is known by the name that a listing shows, and by no other.
func TestRenamesToAnotherCaseAreFound(t *testing.T) {
	f := newWatchFixture(t)
	put(t, f.dir, "Readme.md", "Docs/Guide.md", "Docs/deep/Er.md", "caf\u00e9.md", "123.md")
	f.begin(DirectoryOptions{}, WatchOptions{}, func(w *Watch) { w.dir.finds = ignoringCase(t) })
	keys := func() []string { return slices.Sorted(maps.Keys(f.store.known)) }
	rename := func(from, to string) {
		t.Helper()
		f.try(os.Rename(f.path(from), f.path(to)))
		f.synced()
		known := slices.ContainsFunc(keys(), func(key string) bool { return key == from || strings.HasPrefix(key, from+"/") })
		if reason := f.watch.pollReason(); known || reason != "" {
			t.Errorf("%s was renamed to %s: known are %q, polled because %q", from, to, keys(), reason)
		}
	}
	rename("Readme.md", "README.md")
	rename("README.md", "readme.MD")
	rename("Docs", "docs")
	rename("docs/Guide.md", "docs/guide.md")
	rename("docs/deep/Er.md", "docs/deep/er.md")
	rename("docs/deep", "docs/DEEP")
	rename("caf\u00e9.md", "cafe\u0301.md")
	put(t, f.dir, "docs/DEEP/late.md", "123.md")
	f.synced()
	for _, key := range []string{"Readme.md", "Docs/Guide.md", "DOCS/guide.md", "docs/deep/er.md"} {
		if x, err := f.root.Explain(t.Context(), key); err != nil || x.Listed {
			t.Errorf("%s: %+v, %v", key, x, err)
		}
	}
}

// Hard links whose names differ in case only are two documents.
func TestHardLinksThatDifferInCaseAreBothThere(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md")
	if err := os.Link(dir+"/a.md", dir+"/A.md"); err != nil {
		if errors.Is(err, fs.ErrExist) {
			t.Skipf("this file system ignores case, so it cannot have both names: %v", err)
		}
		t.Fatal(err)
	}
	d := NewDirectory(dir, DirectoryOptions{})
	wantKeys(t, d, "a.md", "a.md")
	wantKeys(t, d, "A.md", "A.md")
}
