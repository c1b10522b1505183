//go:build !nocloud

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // its opener is available by its scheme alone
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/blob/s3blob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2/google"
)

// openObjects opens the bucket of a URL without its prefix.
func openObjects(ctx context.Context, u *url.URL) (objects, error) {
	var bucket *blob.Bucket
	var err error
	switch u.Scheme {
	case "s3":
		bucket, err = new(s3blob.URLOpener).OpenBucketURL(ctx, u)
	case "gs":
		bucket, err = openGS(ctx, u)
	case "azblob":
		bucket, err = blob.DefaultURLMux().OpenBucketURL(ctx, u)
	default:
		return nil, fmt.Errorf("a bucket's scheme must be s3, gs, azblob or file, not %s", u.Scheme)
	}
	if err != nil {
		return nil, err
	}
	return &cloudObjects{bucket}, nil
}

// openGS replaces gocloud's opener, which continues without credentials if it finds none, and prints that to stdout.
func openGS(ctx context.Context, u *url.URL) (*blob.Bucket, error) {
	opener := gcsblob.URLOpener{Client: gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())}
	anonymous, _ := strconv.ParseBool(u.Query().Get("anonymous"))
	if os.Getenv("STORAGE_EMULATOR_HOST") == "" && !anonymous {
		credentials, err := gcp.DefaultCredentialsWithParams(ctx, google.CredentialsParams{
			Scopes: []string{storage.ScopeReadWrite}, UniverseDomain: u.Query().Get("universe_domain"),
		})
		if err != nil {
			return nil, fmt.Errorf("no credentials were found: %w", err)
		}
		if opener.Client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(credentials)); err != nil {
			return nil, err
		}
		opener.TokenSource = gcp.CredentialsTokenSource(credentials)
	}
	return opener.OpenBucketURL(ctx, u)
}

type cloudObjects struct{ bucket *blob.Bucket }

func (c *cloudObjects) put(ctx context.Context, key string, write func(io.Writer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := c.bucket.NewWriter(ctx, key, &blob.WriterOptions{ContentType: "application/gzip"})
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		cancel() // Close then writes no object
		_ = w.Close()
		return err
	}
	return w.Close()
}

// maxPages is the number of pages, of a thousand keys each, after which a listing of snapshots is taken for one that never ends.
const maxPages = 1000

func (c *cloudObjects) keys(ctx context.Context, prefix string) (keys []string, err error) {
	token := blob.FirstPageToken
	for range maxPages {
		var page []*blob.ListObject
		if page, token, err = c.bucket.ListPage(ctx, token, 1000, &blob.ListOptions{Prefix: prefix}); err != nil {
			return nil, err
		}
		for _, o := range page {
			keys = append(keys, o.Key)
		}
		if len(token) == 0 {
			return keys, nil
		}
	}
	return nil, errors.New("the listing never ends")
}

func (c *cloudObjects) open(ctx context.Context, key string) (io.ReadCloser, error) {
	return c.bucket.NewReader(ctx, key, nil)
}

func (c *cloudObjects) remove(ctx context.Context, key string) error {
	return c.bucket.Delete(ctx, key)
}

func (c *cloudObjects) close() error { return c.bucket.Close() }
