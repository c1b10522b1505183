package cloudtest

import (
	"bytes"
	"context"
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
