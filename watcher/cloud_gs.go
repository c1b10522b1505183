//go:build !nocloud

package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/kbsync/kbsync/state"
)

// A gsBucket is a bucket of Google Cloud Storage.
type gsBucket struct {
	bucket   *storage.BucketHandle
	client   *storage.Client
	pageSize int
}

// openGS does what gocloud's own opener does, which prints to stdout where it finds no credentials, and goes on without.
func openGS(ctx context.Context, u *url.URL, pageSize int) (service, error) {
	query := u.Query()
	opener := gcsblob.URLOpener{Client: gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())}
	place := "googleapis.com"
	emulator := os.Getenv("STORAGE_EMULATOR_HOST")
	anonymous, _ := strconv.ParseBool(query.Get("anonymous"))
	switch universe := query.Get("universe_domain"); {
	case emulator != "":
		place = emulator
	case anonymous || query.Get("access_id") == "-":
	default:
		if universe != "" {
			place = universe
		}
		credentials, err := gcp.DefaultCredentialsWithParams(ctx, google.CredentialsParams{
			Scopes: []string{storage.ScopeReadOnly}, UniverseDomain: universe,
		})
		if err != nil {
			return service{}, &cloudFault{faultPermanent, fmt.Errorf("no credentials were found: %w", err)}
		}
		if opener.Client, err = gcp.NewHTTPClient(gcp.DefaultTransport(), gcp.CredentialsTokenSource(credentials)); err != nil {
			return service{}, err
		}
		opener.TokenSource = gcp.CredentialsTokenSource(credentials)
	}
	bucket, err := opener.OpenBucketURL(ctx, u)
	if err != nil {
		return service{}, err
	}
	var client *storage.Client
	if !bucket.As(&client) {
		return service{}, errors.New("gocloud.dev gives no client of Google Cloud Storage")
	}
	// Its own client would try for ever.
	handle := client.Bucket(u.Host).Retryer(storage.WithMaxAttempts(3))
	return service{objects: &gsBucket{handle, client, cmp.Or(pageSize, 1000)}, identity: "gs://" + u.Host + "@" + strings.TrimRight(place, "/")}, nil
}

func (b *gsBucket) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name", "Size", "Generation", "Created", "ContentEncoding", "CustomerKeySHA256"}); err != nil {
		return nil, "", err
	}
	var attrs []*storage.ObjectAttrs
	next, err := iterator.NewPager(b.bucket.Objects(ctx, query), b.pageSize, token).NextPage(&attrs)
	if err != nil {
		return nil, "", gsFault(err, true)
	}
	page := make([]object, 0, len(attrs))
	for _, a := range attrs {
		// Created is the time of this generation: changed metadata leave it alone.
		o := object{key: a.Name, fingerprint: state.Fingerprint{
			Size: a.Size, MTime: a.Created.UnixNano(), ETag: "generation:" + strconv.FormatInt(a.Generation, 10),
		}}
		if a.CustomerKeySHA256 != "" {
			o.unreadable = "encrypted with a key of its owner"
		} else if checkEncoding(a.ContentEncoding) != nil {
			o.unreadable = "stored with Content-Encoding " + a.ContentEncoding
		}
		page = append(page, o)
	}
	return page, next, nil
}

func (b *gsBucket) open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error) {
	number, _ := strings.CutPrefix(fp.ETag, "generation:")
	generation, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil, changed() // listed by something else
	}
	// A condition, not the generation itself: of a versioned bucket that could be read though it was replaced.
	object := b.bucket.Object(key).If(storage.Conditions{GenerationMatch: generation}).ReadCompressed(true)
	r, err := object.NewRangeReader(ctx, offset, -1)
	if err != nil {
		return nil, gsFault(err, false)
	}
	if r.Attrs.Generation != generation && r.Attrs.Generation != 0 || r.Attrs.Size != fp.Size {
		r.Close()
		return nil, changed()
	}
	return r, nil
}

func (b *gsBucket) close() error { return b.client.Close() }

// gsFault tells what follows from an error of a listing, or of a read.
func gsFault(err error, listing bool) error {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return &cloudFault{faultNoObject, err}
	}
	// Of a listing the client calls every 404 ErrBucketNotExist: what answered tells whether it is.
	api, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return withoutQuery(err)
	}
	text := api.Message
	if text == "" {
		text = http.StatusText(api.Code)
	}
	said := &cloudError{fmt.Sprintf("%s (HTTP %d)", strings.Join(strings.Fields(text), " "), api.Code), err}
	switch {
	case api.Code == http.StatusNotFound && listing && len(api.Errors) > 0:
		// In the API's own words; a gateway's 404 has none.
		return &cloudFault{faultNoBucket, said}
	case api.Code == http.StatusPreconditionFailed || api.Code == http.StatusRequestedRangeNotSatisfiable:
		return &cloudFault{faultChanged, said}
	case api.Code == http.StatusUnauthorized || api.Code == http.StatusForbidden:
		said.text += "; look at the credentials and what they permit (docs/buckets.md)"
		return &cloudFault{faultPermanent, said}
	case api.Code == http.StatusTooManyRequests || api.Code == http.StatusRequestTimeout || api.Code >= 500:
		return said
	}
	return &cloudFault{faultPermanent, said}
}
