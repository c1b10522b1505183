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

// openGS replaces gocloud's opener, which continues without credentials if it finds none, and prints that to stdout.
func openGS(ctx context.Context, u *url.URL, pageSize int) (service, error) {
	query := u.Query()
	opener := gcsblob.URLOpener{Client: gcp.NewAnonymousHTTPClient(gcp.DefaultTransport())}
	endpoint := "googleapis.com"
	emulator := os.Getenv("STORAGE_EMULATOR_HOST")
	anonymous, _ := strconv.ParseBool(query.Get("anonymous"))
	switch universe := query.Get("universe_domain"); {
	case emulator != "":
		endpoint = emulator
	case anonymous || query.Get("access_id") == "-":
	default:
		if universe != "" {
			endpoint = universe
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
		return service{}, errors.New("gocloud.dev has no client of Google Cloud Storage")
	}
	// By default the client retries without end.
	handle := client.Bucket(u.Host).Retryer(storage.WithMaxAttempts(3))
	return service{objects: &gsBucket{handle, client, cmp.Or(pageSize, 1000)}, identity: "gs://" + u.Host + "@" + strings.TrimRight(endpoint, "/")}, nil
}

func (b *gsBucket) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	objects, _, next, err := b.list(ctx, prefix, "", token)
	return objects, next, err
}

func (b *gsBucket) level(ctx context.Context, prefix, token string) ([]object, []string, string, error) {
	return b.list(ctx, prefix, "/", token)
}

// list requests a page of a listing, with a delimiter or without.
func (b *gsBucket) list(ctx context.Context, prefix, delimiter, token string) (page []object, folders []string, next string, err error) {
	query := &storage.Query{Prefix: prefix, Delimiter: delimiter, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name", "Size", "Generation", "Created", "ContentEncoding", "CustomerKeySHA256"}); err != nil {
		return nil, nil, "", err
	}
	var attrs []*storage.ObjectAttrs
	next, err = iterator.NewPager(b.bucket.Objects(ctx, query), b.pageSize, token).NextPage(&attrs)
	if err != nil {
		return nil, nil, "", gsFault(err, true)
	}
	page = make([]object, 0, len(attrs))
	for _, a := range attrs {
		if a.Prefix != "" {
			folders = append(folders, a.Prefix)
			continue
		}
		// Created is the time of this generation. A change of metadata does not change it.
		o := object{key: a.Name, fingerprint: state.Fingerprint{
			Size: a.Size, MTime: a.Created.UnixNano(), ETag: generationTag(a.Generation),
		}}
		if a.CustomerKeySHA256 != "" {
			o.unreadable = "encrypted with a key of its owner"
		} else if checkEncoding(a.ContentEncoding) != nil {
			o.unreadable = "stored with Content-Encoding " + a.ContentEncoding
		}
		page = append(page, o)
	}
	return page, folders, next, nil
}

func (b *gsBucket) open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error) {
	number, _ := strings.CutPrefix(fp.ETag, "generation:")
	generation, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil, changed() // the fingerprint comes from another service
	}
	// A condition instead of the generation: a versioned bucket would return a generation that was replaced.
	object := b.bucket.Object(key).If(storage.Conditions{GenerationMatch: generation}).ReadCompressed(true)
	r, err := object.NewRangeReader(ctx, offset, -1)
	if err != nil {
		return nil, gsFault(err, false)
	}
	version := ""
	if r.Attrs.Generation > 0 { // the client sets -1 if the response has none
		version = generationTag(r.Attrs.Generation)
	}
	if err := checkObject(version, r.Attrs.Size, fp); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// generationTag is the version of an object with this generation.
func generationTag(generation int64) string { return "generation:" + strconv.FormatInt(generation, 10) }

func (b *gsBucket) close() error { return b.client.Close() }

// gsFault classifies an error of a listing or of a read.
func gsFault(err error, listing bool) error {
	if errors.Is(err, storage.ErrObjectNotExist) {
		return &cloudFault{faultNoObject, err}
	}
	// For a listing the client turns every 404 into ErrBucketNotExist. The body shows whether the API sent it.
	api, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return withoutQuery(err)
	}
	text := api.Message
	if text == "" {
		text = http.StatusText(api.Code)
	}
	described := &cloudError{fmt.Sprintf("%s (HTTP %d)", strings.Join(strings.Fields(text), " "), api.Code), err}
	switch {
	case api.Code == http.StatusNotFound && listing && len(api.Errors) > 0:
		// A 404 of the API lists errors; a 404 of a gateway does not.
		return &cloudFault{faultNoBucket, described}
	case api.Code == http.StatusPreconditionFailed || api.Code == http.StatusRequestedRangeNotSatisfiable:
		return &cloudFault{faultChanged, described}
	case api.Code == http.StatusUnauthorized || api.Code == http.StatusForbidden:
		described.text += "; check the credentials and their permissions (docs/buckets.md)"
		return &cloudFault{faultPermanent, described}
	case api.Code == http.StatusTooManyRequests || api.Code == http.StatusRequestTimeout || api.Code >= 500:
		return described
	}
	return &cloudFault{faultPermanent, described}
}
