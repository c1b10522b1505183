//go:build !nocloud

package snapshot

import (
	"fmt"
	"io"
	"testing"

	"gocloud.dev/blob/memblob"
)

func TestKeysOfABucketOfManyPages(t *testing.T) {
	t.Parallel()
	c := &cloudObjects{memblob.OpenBucket(nil)}
	defer c.close()
	const n = 2001
	for i := range n {
		if err := c.put(t.Context(), fmt.Sprintf("state/%05d", i), func(io.Writer) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := c.keys(t.Context(), "state/")
	if err != nil || len(keys) != n || keys[n-1] != "state/02000" {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}
