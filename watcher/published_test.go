package watcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsnotify/fsnotify"
)

// gitSync publishes a version of a repository in dir, as git-sync does.
func gitSync(t *testing.T, dir string, n int, old bool, files ...string) {
	t.Helper()
	worktree := func(n int) string {
		hash := fmt.Sprintf("%040x", n)
		if old {
			return "rev-" + hash
		}
		return ".worktrees/" + hash
	}
	for _, name := range files {
		write(t, filepath.Join(dir, filepath.FromSlash(worktree(n)), filepath.FromSlash(name)), fmt.Sprint("version ", n))
	}
	link(t, worktree(n), filepath.Join(dir, "tmp-link"))
	if err := os.Rename(filepath.Join(dir, "tmp-link"), filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, filepath.FromSlash(worktree(n-1)))); err != nil {
		t.Fatal(err)
	}
}

// publications are the programs that publish versions by a link, and the keys of the documents in their directory.
var publications = map[string]struct {
	publish func(t *testing.T, dir string, n int)
	keys    []string
	inner   string // a key that must not be listed
}{
	"a ConfigMap": {
		func(t *testing.T, dir string, n int) {
			configMap(t, dir, n, map[string]string{"doc.md": fmt.Sprint("version ", n), "sub/doc.md": fmt.Sprint("version ", n)})
		}, []string{"doc.md", "sub/doc.md"}, "..data/doc.md",
	},
	"git-sync": {
		func(t *testing.T, dir string, n int) { gitSync(t, dir, n, false, "doc.md", "sub/doc.md") },
		[]string{"current/doc.md", "current/sub/doc.md"}, fmt.Sprintf(".worktrees/%040x/doc.md", 3),
	},
	"git-sync before version 4": {
		func(t *testing.T, dir string, n int) { gitSync(t, dir, n, true, "doc.md", "sub/doc.md") },
		[]string{"current/doc.md", "current/sub/doc.md"}, fmt.Sprintf("rev-%040x/doc.md", 3),
	},
}

func below(dir string, keys []string) []string {
	all := slices.Clone(keys)
	for i := range all {
		all[i] = dir + all[i]
	}
	return all
}

// The keys of published documents stay the same when a new version is published, wherever the directory is.
func TestPublishedDocumentsKeepTheirKeys(t *testing.T) {
	for name, p := range publications {
		for _, at := range []string{"", "volume/", "a/b/"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				dir := t.TempDir()
				volume := filepath.Join(dir, filepath.FromSlash(at))
				d := NewDirectory(dir, DirectoryOptions{Filter: everything(t)})
				links := NewDirectory(dir, DirectoryOptions{Filter: everything(t), CopyLinks: true})
				if at != "" {
					link(t, "..", filepath.Join(volume, "up")) // leads to a directory above it
				}
				want := below(at, p.keys)
				for n := 1; n <= 3; n++ {
					p.publish(t, volume, n)
					wantKeys(t, d, "", want...)
					wantKeys(t, d, at, want...)
					wantKeys(t, links, at, want...)
					for _, key := range want {
						if got := read(t, d, one(t, d, key)); got != fmt.Sprint("version ", n) {
							t.Errorf("%q has %q", key, got)
						}
						if x, err := d.Explain(t.Context(), key); err != nil || !x.Taken {
							t.Error(x, err)
						}
					}
				}
				wantKeys(t, d, at+p.inner)
				if x, err := d.Explain(t.Context(), at+p.inner); err != nil || x.Listed || !strings.Contains(x.Reason, "internal to") {
					t.Error(x, err)
				}
				// A new version during the listing makes it incomplete.
				for _, prefix := range []string{"", at, want[0]} {
					var errs []error
					n := 4
					for _, err := range d.List(t.Context(), prefix) {
						if err != nil {
							errs = append(errs, err)
						} else if n++; n == 5 {
							p.publish(t, volume, n)
						}
					}
					if len(errs) != 1 || !errors.Is(errs[0], ErrRootChanged) {
						t.Errorf("below %q: got %v", prefix, errs)
					}
					p.publish(t, volume, 4)
				}
			})
		}
	}
}

// A directory with such names that nothing publishes is a directory like any other.
func TestWorktreeNamesWithoutALink(t *testing.T) {
	dir := t.TempDir()
	revision := fmt.Sprintf("rev-%040x", 1)
	put(t, dir, revision+"/doc.md", "a/..doc.md")
	link(t, revision+"/doc.md", filepath.Join(dir, "link.md"))
	wantKeys(t, NewDirectory(dir, DirectoryOptions{Filter: everything(t)}), "", "a/..doc.md", revision+"/doc.md")
}

// A watch notices each new version, by its event, or by a look where the event was lost, and no document is renamed.
func TestWatchFollowsPublicationsBelowTheRoot(t *testing.T) {
	for name, p := range publications {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " events lost ", lost), func(t *testing.T) {
				f := newWatchFixture(t)
				volume := f.path("a/volume")
				put(t, f.dir, "a/other.md")
				if lost {
					p.publish(t, volume, 1)
				}
				f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * 1e6}, func(w *Watch) {
					if lost {
						w.open = gated(t, func(fsnotify.Event) bool { return false })
					}
				})
				want := append([]string{"a/other.md"}, below("a/volume/", p.keys)...)
				for n := 2; n <= 4; n++ {
					p.publish(t, volume, n)
					f.await("the version", func() bool { return f.covered(want[1]) && f.covered(want[2]) })
					f.scan()
					if !lost {
						f.fence()
						f.scan()
					}
					f.compare()
					for _, key := range want {
						if _, ok := f.store.known[key]; !ok {
							t.Errorf("version %d: %q is not known", n, key)
						}
					}
					if got := len(f.store.known) - f.fences; got != 3 {
						t.Errorf("version %d: %d documents are known: %v", n, got, f.store.known)
					}
				}
				if s := f.watch.Stats(); s.Restarts > 0 || f.whole > 0 {
					t.Errorf("%+v, %d scans of the whole root", s, f.whole)
				}
			})
		}
	}
}
