//go:build !nocloud

package watcher

import (
	"net/url"

	"gocloud.dev/blob"
)

// NewMemoryBucket returns the root in a bucket in memory.
func NewMemoryBucket(b *blob.Bucket, prefix string, filter *Filter) *Bucket {
	return newBucket("mem://", prefix, newMemoryBucket(&url.URL{Scheme: "mem"}, b), BucketOptions{Filter: filter})
}
