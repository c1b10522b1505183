package watcher

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	const info = `36 35 98:0 /mnt1 / rw,noatime master:1 - ext3 /dev/root rw
37 36 0:50 / /srv/docs rw - tmpfs tmpfs rw
38 37 0:51 / /srv/docs/nfs rw - nfs host:/a rw
39 37 0:52 / /srv/docs/with\040space\134/b rw - nfs host:/b rw
40 37 0:53 / /srv/docs/nfs rw - nfs host:/c rw
41 36 0:54 / /srv/docs-other rw - nfs host:/d rw
`
	got, err := mountsBelow(strings.NewReader(info), "/srv/docs")
	want := []mounted{{"nfs/", "38 0:51"}, {"nfs/", "40 0:53"}, {`with space\/b/`, "39 0:52"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, err := mountsBelow(strings.NewReader(info), "/"); err != nil || !slices.Contains(got, mounted{"srv/docs/", "37 0:50"}) {
		t.Errorf("got %q, %v", got, err)
	}
	identity, mounts := splitMounts(withMounts("1:2:3", []string{"a/", "\xff\n/"}))
	if identity != "1:2:3" || !slices.Equal(mounts, []string{"a/", "\xff\n/"}) {
		t.Errorf("%q, %q", identity, mounts)
	}
}

// A mountedDirectory tells that file systems are mounted in it.
type mountedDirectory struct {
	*Directory
	mounts []string
	then   func() // after the first look
}

func (d *mountedDirectory) Mounts(context.Context) ([]string, error) {
	mounts, then := d.mounts, d.then
	if d.then = nil; then != nil {
		then()
	}
	return mounts, nil
}

// A file system that is gone below the root is weighed as another root is: also where its mount point is gone, or holds other files.
func TestLostMount(t *testing.T) {
	s := newScanFixture(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		put(t, s.dir, name+".md")
	}
	put(t, s.dir, "nfs/1.md", "nfs/2.md", "nfs/3.md")
	root := &mountedDirectory{Directory: s.root, mounts: []string{"nfs/"}}
	scan := func() error {
		_, err := NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), "")
		return err
	}
	for range 2 {
		if err := scan(); err != nil {
			t.Fatal(err)
		}
	}
	root.mounts = nil
	if err := scan(); err != nil {
		t.Errorf("no document is gone: %v", err)
	}
	root.mounts = []string{"nfs/"}
	if err := scan(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "nfs")); err != nil {
		t.Fatal(err)
	}
	put(t, s.dir, "nfs/not-mounted.md")
	root.mounts = nil
	for range 2 {
		err := scan()
		if !isGuard(err, GuardLostMount) || !strings.Contains(err.Error(), `"nfs/"`) || !strings.Contains(err.Error(), "3 of its") ||
			!strings.Contains(err.Error(), "--accept-new-root") {
			t.Errorf("got %v", err)
		}
	}
	s.opts.AcceptNewRoot = true
	if err := scan(); err != nil || len(s.store.known) != 9 {
		t.Errorf("%d known, %v", len(s.store.known), err)
	}
}

// Mounting over a directory of the root orphans nothing, and neither do a mount that changes during a scan and a scan of a part.
func TestChangedMountsRemoveNothing(t *testing.T) {
	s := newScanFixture(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		put(t, s.dir, name+".md")
	}
	put(t, s.dir, "nfs/1.md", "nfs/2.md", "nfs/sub/3.md")
	root := &mountedDirectory{Directory: s.root}
	scan := func(prefix string) (Result, error) {
		return NewScanner(root, s.opts).Scan(t.Context(), s.store, s.sync(), prefix)
	}
	if _, err := scan(""); err != nil {
		t.Fatal(err)
	}
	below, away := filepath.Join(s.dir, "nfs"), s.dir+".away"
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	halted := func(prefix string, guard Guard) {
		t.Helper()
		_, err := scan(prefix)
		if !isGuard(err, guard) || !strings.Contains(err.Error(), `"nfs/"`) || !strings.Contains(err.Error(), "3 of ") ||
			!strings.Contains(err.Error(), "--accept-new-root") || len(s.store.known) < 11 {
			t.Errorf("below %q: %v, %d known", prefix, err, len(s.store.known))
		}
	}
	// It is mounted during a scan.
	root.then = func() {
		move(below, away)
		put(t, s.dir, "nfs/")
		root.mounts = []string{"nfs/"}
	}
	if r, err := scan(""); err != nil || r.IncompleteCount != 1 || !errors.Is(r.Incomplete[0], ErrRootChanged) || r.Removed > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, prefix := range []string{"", "nfs/", "nfs/1.md", "nfs/sub/"} {
		halted(prefix, GuardNewMount)
	}
	if _, err := scan("a.md"); err != nil {
		t.Errorf("another part: %v", err)
	}
	if err := os.Remove(below); err != nil {
		t.Fatal(err)
	}
	move(away, below)
	if r, err := scan(""); err != nil || r.Unchanged != 11 {
		t.Errorf("%+v, %v", r, err) // and from now on it is a known mount
	}
	move(below, away)
	root.mounts = nil
	for _, prefix := range []string{"", "nfs/", "nfs/1.md", "nfs/sub/"} {
		halted(prefix, GuardLostMount)
	}
}
