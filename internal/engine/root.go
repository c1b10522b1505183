package engine

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

// A Root is a root of either kind: a directory or a bucket.
type Root interface {
	watcher.Root
	watcher.Surveyor
	ingest.Root
	Explain(ctx context.Context, key string) (watcher.Explanation, error)
}

var (
	_ Root = (*watcher.Directory)(nil)
	_ Root = (*watcher.Bucket)(nil)
)

// A CountingRoot is a root that counts the documents of its listings.
type CountingRoot struct {
	Root
	// Listed is called for each document of a listing of the whole root, if it is not nil. It must be quick. A pass lists its root
	// again when files have not settled; those documents were counted, so a listing calls Listed only beyond the longest one before.
	Listed  func()
	longest int
}

// List lists the documents below a prefix, as watcher.Root describes.
func (r *CountingRoot) List(ctx context.Context, prefix string) iter.Seq2[watcher.Entry, error] {
	if prefix != "" {
		return r.Root.List(ctx, prefix)
	}
	return r.counted(r.Root.List(ctx, prefix))
}

// Survey lists all documents, as watcher.Surveyor describes.
func (r *CountingRoot) Survey(ctx context.Context, left *watcher.LeftOut) iter.Seq2[watcher.Entry, error] {
	return r.counted(r.Root.Survey(ctx, left))
}

// Neighbours returns a function that opens documents which mostly lie in the directory of the one before; see watcher.Directory.
func (r *CountingRoot) Neighbours() (open func(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error), end func()) {
	if d, ok := r.Root.(*watcher.Directory); ok {
		return d.Neighbours()
	}
	return r.Open, func() {}
}

func (r *CountingRoot) counted(listed iter.Seq2[watcher.Entry, error]) iter.Seq2[watcher.Entry, error] {
	if r.Listed == nil {
		return listed
	}
	return func(yield func(watcher.Entry, error) bool) {
		n := 0
		for e, err := range listed {
			if err == nil {
				n++
			}
			if n > r.longest {
				r.longest = n
				r.Listed()
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Close closes the connections of a bucket.
func (r *CountingRoot) Close() error {
	if c, ok := r.Root.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// OpenRoot returns the root of a sync with its filter. It reads no document. ownFiles are files of the program that are never
// documents, beside those of the config.
func OpenRoot(ctx context.Context, cfg *config.Config, s config.Sync, ownFiles ...string) (*CountingRoot, error) {
	options := watcher.FilterOptions{
		Exclude: s.Exclude,
		Include: s.Include,
		MaxSize: int64(s.MaxSize),
	}
	if s.Root.Dir != "" {
		options.Own = watcher.OwnKeys(s.Root.Dir, append(cfg.Private(), ownFiles...)...)
		if file := cfg.StateFile(); file != "" {
			options.OwnState = watcher.OwnKeys(s.Root.Dir, file)
		}
	}
	for _, path := range s.FilterFrom {
		rules, err := readRules(path)
		if err != nil {
			return nil, WithClass(ClassUsage, err)
		}
		options.Rules = append(options.Rules, rules...)
	}
	filter, err := watcher.NewFilter(options)
	if err != nil {
		return nil, WithClass(ClassUsage, err)
	}
	if s.Root.URL == "" {
		return &CountingRoot{Root: watcher.NewDirectory(s.Root.Dir, watcher.DirectoryOptions{Filter: filter, CopyLinks: s.CopyLinks, Settle: s.Settle})}, nil
	}
	bucket, err := watcher.OpenBucket(ctx, s.Root.URL, watcher.BucketOptions{Filter: filter})
	if is[*watcher.UnavailableError](err) {
		return nil, err
	}
	if err != nil {
		return nil, WithClass(ClassUsage, err)
	}
	return &CountingRoot{Root: bucket}, nil
}

func readRules(path string) ([]watcher.Rule, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read --filter-from: %w", err)
	}
	defer func() { _ = f.Close() }()
	return watcher.ParseRules(f, path)
}

var _ watcher.DirectoryTree = (*CountingRoot)(nil)

// Vacant reports whether key is a directory without a file. No folder of a bucket is one.
func (r *CountingRoot) Vacant(ctx context.Context, key string) (bool, error) {
	tree, ok := r.Root.(watcher.DirectoryTree)
	if !ok {
		return false, nil
	}
	return tree.Vacant(ctx, key)
}

// Mounts returns the directories on which file systems are mounted.
func (r *CountingRoot) Mounts(ctx context.Context) ([]string, error) {
	tree, ok := r.Root.(watcher.DirectoryTree)
	if !ok {
		return nil, nil
	}
	return tree.Mounts(ctx)
}

// Writers returns a function that reports whether a process has a document open for writing. No process has an object of a bucket open.
func (r *CountingRoot) Writers() (hasWriter func(ctx context.Context, key string) bool, end func()) {
	if tree, ok := r.Root.(watcher.DirectoryTree); ok {
		return tree.Writers()
	}
	return func(context.Context, string) bool { return false }, func() {}
}

// CompareContents lets the content of a document decide which version it is. The objects of a bucket have their ETags.
func (r *CountingRoot) CompareContents(key string) {
	if tree, ok := r.Root.(watcher.DirectoryTree); ok {
		tree.CompareContents(key)
	}
}
