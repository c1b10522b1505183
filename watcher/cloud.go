//go:build !nocloud

package watcher

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"github.com/kbsync/kbsync/state"
)

// openService opens the bucket of a URL without its prefix. A *cloudFault may be temporary.
//
// gocloud.dev opens the bucket, so URLs, parameters and credentials are gocloud.dev's. Listings and reads use the client below it,
// because gocloud.dev escapes keys: two keys of the cloud may get one name, and some keys cannot be read back.
func openService(ctx context.Context, u *url.URL, pageSize int) (service, error) {
	switch u.Scheme {
	case "s3":
		return openS3(ctx, u, pageSize)
	case "gs":
		return openGS(ctx, u, pageSize)
	case "azblob":
		return openAzure(ctx, u, pageSize)
	case memblob.Scheme:
		b, err := new(memblob.URLOpener).OpenBucketURL(ctx, u)
		if err != nil {
			return service{}, err
		}
		return newMemoryBucket(u, b), nil
	}
	return service{}, fmt.Errorf("a bucket's scheme must be s3, gs or azblob, not %s", u.Scheme)
}

// A memoryBucket is a bucket in this process's memory, for tests.
type memoryBucket struct{ bucket *blob.Bucket }

func newMemoryBucket(u *url.URL, b *blob.Bucket) service {
	return service{objects: &memoryBucket{b}, identity: u.Scheme + "://" + u.Host}
}

func (m *memoryBucket) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	objects, _, next, err := m.list(ctx, prefix, "", token)
	return objects, next, err
}

func (m *memoryBucket) level(ctx context.Context, prefix, token string) ([]object, []string, string, error) {
	return m.list(ctx, prefix, "/", token)
}

func (m *memoryBucket) list(ctx context.Context, prefix, delimiter, token string) (page []object, folders []string, _ string, err error) {
	at := blob.FirstPageToken
	if token != "" {
		at = []byte(token)
	}
	listed, next, err := m.bucket.ListPage(ctx, at, 1000, &blob.ListOptions{Prefix: prefix, Delimiter: delimiter})
	if err != nil {
		return nil, nil, "", err
	}
	page = make([]object, 0, len(listed))
	for _, o := range listed {
		if o.IsDir {
			folders = append(folders, o.Key)
			continue
		}
		fp := state.Fingerprint{Size: o.Size, MTime: o.ModTime.UnixNano()}
		if len(o.MD5) > 0 {
			fp.ETag = "md5:" + hex.EncodeToString(o.MD5)
		}
		page = append(page, object{key: o.Key, fingerprint: fp})
	}
	return page, folders, string(next), nil
}

func (m *memoryBucket) open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error) {
	r, err := m.bucket.NewRangeReader(ctx, key, offset, -1, nil)
	if err != nil {
		if gcerrors.Code(err) == gcerrors.NotFound {
			err = &cloudFault{faultNoObject, err}
		}
		return nil, err
	}
	if r.Size() != fp.Size || r.ModTime().UnixNano() != fp.MTime {
		r.Close()
		return nil, changed()
	}
	return r, nil
}

func (m *memoryBucket) close() error { return m.bucket.Close() }
