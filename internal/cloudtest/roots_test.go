package cloudtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/internal/roottest"
	"github.com/kbsync/kbsync/watcher"
)

// TestRoots runs the suite of all roots with a bucket of each cloud.
func TestRoots(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		roottest.Run(t, roottest.Options{Odd: c.odd, Markers: []string{"folder/"}}, func(t *testing.T) roottest.Place {
			bucket, w := newBucket(t, c)
			return &place{t, c.url(c.addr, bucket), c.url(c.addr, "kbsync-no-such-bucket"), w}
		})
	})
}

// A listing that is split by its folders yields all objects in order.
func TestListingInParts(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		bucket, w := newBucket(t, c)
		keys := []string{"docs-.md", "docs.md", "docs0/x.md", "docs0.md"}
		for i := range 40 {
			keys = append(keys, fmt.Sprintf("docs/a b+%d%%/é %d.md", i%7, i), fmt.Sprintf("docs/é&<%d>/%d.md", i%5, i))
		}
		for _, key := range keys {
			if err := w.Put(t.Context(), key, strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(keys)
		p := newProxy(t, c)
		if c.bucketProxy != nil {
			c.bucketProxy.buckets.Store(bucket, p.handler)
		}
		root, err := watcher.OpenBucket(t.Context(), c.url(p.addr, bucket), watcher.BucketOptions{PageSize: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var got []string
		for e, err := range root.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Key)
		}
		if !slices.Equal(got, keys) {
			t.Errorf("%q is listed, want %q", got, keys)
		}
		if p.narrow == 0 {
			t.Error("the listing was not split")
		}
	})
}

// A place is a folder of a bucket.
type place struct {
	t            *testing.T
	url, missing string
	writer
}

// folder is the prefix of the root in the bucket.
const folder = "docs/"

func (p *place) Root(filter *watcher.Filter) (roottest.Root, error) {
	return watcher.OpenBucket(p.t.Context(), withPrefix(p.url, folder), watcher.BucketOptions{Filter: filter, PageSize: 7})
}

func (p *place) Missing() (roottest.Root, error) {
	return watcher.OpenBucket(p.t.Context(), p.missing, watcher.BucketOptions{})
}

func (p *place) Put(ctx context.Context, key string, content []byte) error {
	return p.writer.Put(ctx, folder+key, bytes.NewReader(content))
}

func (p *place) Delete(ctx context.Context, key string) error {
	return p.writer.Delete(ctx, folder+key)
}
