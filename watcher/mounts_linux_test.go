package watcher

import (
	"context"
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
	if want := []string{"nfs/", `with space\/b/`}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, err := mountsBelow(strings.NewReader(info), "/"); err != nil || !slices.Contains(got, "srv/docs/") {
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
}

func (d *mountedDirectory) Mounts(context.Context) ([]string, error) { return d.mounts, nil }

// A file system that is gone below the root is weighed as another root is: also where its mount point is gone, or holds other files.
func TestLostMount(t *testing.T) {
	s := newScanFixture(t)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		put(t, s.dir, name+".md")
	}
	put(t, s.dir, "nfs/1.md", "nfs/2.md", "nfs/3.md")
	root := &mountedDirectory{s.root, []string{"nfs/"}}
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
