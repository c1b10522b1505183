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
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob/s3blob"

	"github.com/kbsync/kbsync/state"
)

// An s3Bucket is a bucket of S3 or of an S3-compatible store.
type s3Bucket struct {
	name     string
	client   *s3.Client
	pageSize int
}

func openS3(ctx context.Context, u *url.URL, pageSize int) (service, error) {
	query := u.Query()
	client, err := s3Client(ctx, u, query)
	if err != nil {
		return service{}, err
	}
	endpoint := cmp.Or(query.Get("endpoint"), aws.ToString(client.Options().BaseEndpoint))
	if client.Options().Region == "" {
		if endpoint == "" {
			return service{}, errors.New("no region is set; add region= to it, such as s3://bucket?region=eu-west-1, or set AWS_REGION")
		}
		// A signature needs a region. A self-hosted store accepts any.
		query.Set("region", "us-east-1")
		if client, err = s3Client(ctx, u, query); err != nil {
			return service{}, err
		}
	}
	directoryBucket := strings.HasSuffix(u.Host, "--x-s3") // it takes whole folders as prefixes only
	return service{
		objects:   &s3Bucket{u.Host, client, pageSize},
		identity:  "s3://" + u.Host + "@" + strings.TrimRight(cmp.Or(endpoint, "aws"), "/"),
		unordered: directoryBucket, whole: directoryBucket,
	}, nil
}

func s3Client(ctx context.Context, u *url.URL, query url.Values) (*s3.Client, error) {
	at := *u
	at.RawQuery = query.Encode()
	bucket, err := new(s3blob.URLOpener).OpenBucketURL(ctx, &at)
	if err != nil {
		return nil, err
	}
	var client *s3.Client
	if !bucket.As(&client) {
		return nil, errors.New("gocloud.dev has no client of S3")
	}
	return client, nil
}

func (b *s3Bucket) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	out, next, err := b.list(ctx, prefix, "", token)
	if err != nil {
		return nil, "", err
	}
	page, err := s3Objects(out)
	return page, next, err
}

func (b *s3Bucket) level(ctx context.Context, prefix, token string) ([]object, []string, string, error) {
	out, next, err := b.list(ctx, prefix, "/", token)
	if err != nil {
		return nil, nil, "", err
	}
	objects, err := s3Objects(out)
	if err != nil {
		return nil, nil, "", err
	}
	folders := make([]string, 0, len(out.CommonPrefixes))
	for _, p := range out.CommonPrefixes {
		name, err := s3Name(out, p.Prefix)
		if err != nil {
			return nil, nil, "", err
		}
		folders = append(folders, name)
	}
	return objects, folders, next, nil
}

// list requests a page of a listing, with a delimiter or without.
func (b *s3Bucket) list(ctx context.Context, prefix, delimiter, token string) (*s3.ListObjectsV2Output, string, error) {
	in := &s3.ListObjectsV2Input{
		Bucket: &b.name,
		// XML cannot represent control characters.
		EncodingType: types.EncodingTypeUrl,
	}
	if b.pageSize > 0 {
		in.MaxKeys = aws.Int32(int32(b.pageSize))
	}
	if prefix != "" {
		in.Prefix = &prefix
	}
	if delimiter != "" {
		in.Delimiter = &delimiter
	}
	if token != "" {
		in.ContinuationToken = &token
	}
	out, err := b.client.ListObjectsV2(ctx, in, quiet)
	if err != nil {
		return nil, "", s3Fault(err)
	}
	if out.Name == nil && out.IsTruncated == nil {
		// The client parses an HTML page of a gateway as an empty listing.
		return nil, "", errors.New("the response is not a listing; a proxy or gateway may have sent it")
	}
	if !aws.ToBool(out.IsTruncated) {
		return out, "", nil
	}
	next := aws.ToString(out.NextContinuationToken)
	if next == "" {
		return nil, "", errors.New("the listing is truncated but has no continuation token")
	}
	return out, next, nil
}

// s3Objects returns the objects of a page.
func s3Objects(out *s3.ListObjectsV2Output) ([]object, error) {
	page := make([]object, 0, len(out.Contents))
	for i := range out.Contents {
		o := &out.Contents[i]
		key, err := s3Name(out, o.Key)
		if err != nil {
			return nil, err
		}
		fp := state.Fingerprint{Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag)}
		if o.LastModified != nil {
			fp.MTime = o.LastModified.UnixNano()
		}
		listed := object{key: key, fingerprint: fp}
		switch {
		case out.EncodingType != types.EncodingTypeUrl && strings.ContainsRune(key, '\ufffd'):
			listed.unreadable = "its key has bytes in it that the store's listings cannot show"
		case o.StorageClass == types.ObjectStorageClassGlacier || o.StorageClass == types.ObjectStorageClassDeepArchive:
			listed.unreadable = "archived as " + string(o.StorageClass)
		}
		page = append(page, listed)
	}
	return page, nil
}

// s3Name decodes a name in a page.
func s3Name(out *s3.ListObjectsV2Output, name *string) (string, error) {
	if out.EncodingType != types.EncodingTypeUrl {
		return aws.ToString(name), nil
	}
	decoded, err := url.QueryUnescape(aws.ToString(name))
	if err != nil {
		return "", &cloudFault{faultPermanent, fmt.Errorf("the key %q in the listing cannot be decoded: %w", aws.ToString(name), err)}
	}
	return decoded, nil
}

func (b *s3Bucket) open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error) {
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	if fp.ETag != "" {
		in.IfMatch = &fp.ETag
	}
	if offset > 0 {
		in.Range = aws.String("bytes=" + strconv.FormatInt(offset, 10) + "-")
	}
	out, err := b.client.GetObject(ctx, in, quiet)
	if err != nil {
		return nil, s3Fault(err)
	}
	// Some stores ignore the condition.
	return rangeBody(out.Body, aws.ToString(out.ETag), out.ContentLength, out.ContentRange, out.ContentEncoding, fp, offset)
}

// quiet keeps the client from logging on stderr: that an object has no checksum, for example, or that an answer broke off. kbsync logs the
// errors that the client returns.
func quiet(o *s3.Options) { o.Logger = logging.Nop{} }

func (b *s3Bucket) close() error {
	if c, ok := b.client.Options().HTTPClient.(interface{ GetTransport() *http.Transport }); ok {
		c.GetTransport().CloseIdleConnections()
	}
	return nil
}

// s3Fault classifies an error.
func s3Fault(err error) error {
	status := 0
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = r.HTTPStatusCode()
	}
	code, text := "", ""
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code, text = api.ErrorCode(), api.ErrorMessage()
	}
	withHint := func(hint string) error {
		words := strings.TrimSuffix(strings.Join(strings.Fields(code+": "+text), " "), ":")
		if hint != "" {
			words += "; " + hint
		}
		return &cloudError{fmt.Sprintf("%s (HTTP %d)", words, status), err}
	}
	switch code {
	case "NoSuchBucket":
		return &cloudFault{faultNoBucket, withHint("")}
	case "NoSuchKey":
		return &cloudFault{faultNoObject, withHint("")}
	case "PreconditionFailed", "InvalidRange":
		return &cloudFault{faultChanged, withHint("")}
	case "InvalidObjectState", "ObjectNotInActiveTierError":
		return &cloudFault{faultPermanent, withHint("it is archived; restore it or exclude it")}
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "IncorrectEndpoint":
		return &cloudFault{faultPermanent, withHint("the bucket may be in another region: set region= in its URL")}
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AllAccessDisabled":
		return &cloudFault{faultPermanent, withHint("check the credentials and their permissions (docs/buckets.md)")}
	case "InvalidRequest":
		if strings.Contains(text, "Server Side Encryption") {
			return &cloudFault{faultPermanent, withHint("it is encrypted with a customer-provided key (SSE-C), which kbsync does not have; exclude it")}
		}
		return &cloudFault{faultPermanent, withHint("")}
	}
	switch {
	case status == http.StatusPreconditionFailed || status == http.StatusRequestedRangeNotSatisfiable:
		return &cloudFault{faultChanged, err}
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
	case code != "" && status >= 400:
		return &cloudFault{faultPermanent, withHint("")}
	case status >= 400:
		return &cloudFault{faultPermanent, err}
	}
	return withoutQuery(err)
}

// A cloudError is an error with the text of the cloud.
type cloudError struct {
	text string
	err  error
}

func (e *cloudError) Error() string { return e.text }

func (e *cloudError) Unwrap() error { return e.err }
