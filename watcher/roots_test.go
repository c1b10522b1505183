//go:build !nocloud

package watcher_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/kbsync/kbsync/internal/roottest"
	"github.com/kbsync/kbsync/watcher"
)

// TestRoots runs the suite of all roots with the roots that need no server. internal/cloudtest has the others.
func TestRoots(t *testing.T) {
	t.Parallel()
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		if runtime.GOOS == "darwin" {
			t.Skip("file systems on macOS ignore case")
		}
		opts := roottest.Options{Odd: []string{"a b+c%20.md", "e\u0301.md", "é.md", "__0x2f__.md", "new\nline.md", "\x01.md"}}
		if runtime.GOOS == "windows" {
			opts.Odd = opts.Odd[:4]
		}
		roottest.Run(t, opts, func(t *testing.T) roottest.Place { return directory(t.TempDir()) })
	})
	t.Run("mem", func(t *testing.T) {
		t.Parallel()
		opts := roottest.Options{
			Odd: []string{
				"a b+c%20.md", "e\u0301.md", "é.md", "__0x2f__.md", "new\nline.md", "\x01.md", "a//b.md", "/leading.md", "../x.md", "./y.md",
				"trailing.md/", "?x=y#z.md", `back\slash.md`, "<&>\"'.md",
			},
			Markers:      []string{"folder/", "a/"},
			NeverMissing: true,
		}
		roottest.Run(t, opts, func(t *testing.T) roottest.Place {
			b := memblob.OpenBucket(nil)
			t.Cleanup(func() { b.Close() })
			return memory{b}
		})
	})
}

// A directory is a roottest.Place.
type directory string

func (d directory) path(key string) string { return filepath.Join(string(d), filepath.FromSlash(key)) }

func (d directory) Root(filter *watcher.Filter) (roottest.Root, error) {
	return watcher.NewDirectory(string(d), watcher.DirectoryOptions{Filter: filter}), nil
}

func (d directory) Missing() (roottest.Root, error) {
	return watcher.NewDirectory(d.path("missing"), watcher.DirectoryOptions{}), nil
}

func (d directory) Put(_ context.Context, key string, content []byte) error {
	path := d.path(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

func (d directory) Delete(_ context.Context, key string) error { return os.Remove(d.path(key)) }

// A memory is a roottest.Place.
type memory struct{ bucket *blob.Bucket }

// below is the prefix of the root in the bucket.
const below = "docs/"

func (m memory) Root(filter *watcher.Filter) (roottest.Root, error) {
	return kept{watcher.NewMemoryBucket(m.bucket, below, filter)}, nil
}

func (m memory) Missing() (roottest.Root, error) { return nil, errors.ErrUnsupported }

func (m memory) Put(ctx context.Context, key string, content []byte) error {
	return m.bucket.WriteAll(ctx, below+key, content, nil)
}

func (m memory) Delete(ctx context.Context, key string) error {
	return m.bucket.Delete(ctx, below+key)
}

// A kept root does not close its shared bucket.
type kept struct{ *watcher.Bucket }

func (kept) Close() error { return nil }
