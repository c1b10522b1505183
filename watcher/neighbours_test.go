package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/kbsync/kbsync/state"
)

// An opener of neighbours opens the same versions, and refuses the same ones, as Open does for each document alone.
func TestNeighboursAreOpenedAsAlone(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"nothing": func(*testing.T, string) {},
		"a directory is replaced by an equal one": func(t *testing.T, dir string) {
			rename(t, filepath.Join(dir, "b"), filepath.Join(dir, "old"))
			put(t, dir, "b/one.md", "b/two.md")
		},
		"a directory is replaced by a link to it": func(t *testing.T, dir string) {
			rename(t, filepath.Join(dir, "b"), filepath.Join(dir, "old"))
			link(t, "old", filepath.Join(dir, "b"))
		},
		"a document is replaced": func(t *testing.T, dir string) {
			if err := replace(filepath.Join(dir, "b", "two.md"), "other"); err != nil {
				t.Fatal(err)
			}
		},
		"a document is longer": func(t *testing.T, dir string) {
			if err := appendTo(filepath.Join(dir, "b", "two.md"), "more"); err != nil {
				t.Fatal(err)
			}
		},
		"a directory is gone": func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "b")); err != nil {
				t.Fatal(err)
			}
		},
		"the root is gone": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			put(t, dir, "a.md", "b/one.md", "b/two.md", "b/c/three.md", "z.md")
			link(t, "../z.md", filepath.Join(dir, "b", "linked.md"))
			d := NewDirectory(dir, DirectoryOptions{CopyLinks: true})
			var entries []Entry
			for e, err := range d.List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				entries = append(entries, e)
			}
			if len(entries) != 6 {
				t.Fatalf("%d entries", len(entries))
			}
			open, end := d.Neighbours()
			defer end()
			before := descriptors(t)
			change(t, dir)
			for _, e := range entries {
				alone, together := outcome(t.Context(), d.Open, e), outcome(t.Context(), open, e)
				if alone != together {
					t.Errorf("%s: %q alone, %q together", e.Key, alone, together)
				}
				if name == "nothing" && alone == "" {
					t.Errorf("%s was not read", e.Key)
				}
			}
			end()
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

func TestNeighboursDoNotLeaveTheRoot(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret.md")
	dir := t.TempDir()
	put(t, dir, "a/b.md")
	d := NewDirectory(dir, DirectoryOptions{CopyLinks: true})
	link(t, outside, filepath.Join(dir, "out"))
	open, end := d.Neighbours()
	defer end()
	for _, key := range []string{"out/secret.md", "../secret.md", "a/../../secret.md", "/etc/passwd", "a//b.md", ""} {
		if r, err := open(t.Context(), key, state.Fingerprint{}); err == nil {
			t.Errorf("%q was opened", key)
			r.Close()
		}
	}
}

// outcome returns the content that is read, or the kind of the error.
func outcome(ctx context.Context, open func(context.Context, string, state.Fingerprint) (io.ReadCloser, error), e Entry) string {
	r, err := open(ctx, e.Key, e.Fingerprint)
	var content []byte
	if err == nil {
		content, err = io.ReadAll(r)
		r.Close()
	}
	if err != nil {
		return fmt.Sprint(errors.Is(err, state.ErrChanged), errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrRootMissing))
	}
	return string(content)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
