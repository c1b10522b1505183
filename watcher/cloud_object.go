//go:build !nocloud

package watcher

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kbsync/kbsync/state"
)

func changed() error { return &cloudFault{faultChanged, state.ErrChanged} }

// errNoVersion reports a response without the version of its object. A gateway may have sent it: it proves neither that the object
// has changed nor that the bytes are of the listed version.
var errNoVersion = errors.New("the response does not name the version of the object; check gateways between kbsync and the bucket")

// errOtherSize reports a response with the listed version of an object and another size.
var errOtherSize = errors.New("the response has another size than the listing; check gateways between kbsync and the bucket")

// checkObject compares the version and the size in a response with the listed ones. Only another version shows that an object has changed,
// or another size if the store lists no versions.
func checkObject(version string, size int64, listed state.Fingerprint) error {
	switch {
	case listed.ETag == "" && size != listed.Size:
		return changed()
	case listed.ETag == "":
		return nil
	case version == "":
		return errNoVersion
	case version != listed.ETag:
		return changed()
	case size != listed.Size:
		return errOtherSize
	}
	return nil
}

// rangeBody checks that a body belongs to the listed version of an object, and skips to the offset.
func rangeBody(
	body io.ReadCloser, version string, length *int64, contentRange, encoding *string, listed state.Fingerprint, offset int64,
) (io.ReadCloser, error) {
	fail := func(err error) (io.ReadCloser, error) {
		body.Close()
		return nil, err
	}
	if err := checkEncoding(aws.ToString(encoding)); err != nil {
		return fail(err)
	}
	begin, size := int64(0), listed.Size // a response may name no size
	if r := aws.ToString(contentRange); r != "" {
		first, _, _ := strings.Cut(strings.TrimPrefix(r, "bytes "), "-")
		var err error
		if begin, err = strconv.ParseInt(first, 10, 64); err != nil {
			return fail(fmt.Errorf("the response has the invalid Content-Range %q", r))
		}
		if _, whole, ok := strings.Cut(r, "/"); ok && whole != "*" {
			if size, err = strconv.ParseInt(whole, 10, 64); err != nil {
				return fail(fmt.Errorf("the response has the invalid Content-Range %q", r))
			}
		}
	}
	if length != nil && size == listed.Size {
		size = begin + *length
	}
	if err := checkObject(version, size, listed); err != nil {
		return fail(err)
	}
	if begin > offset {
		return fail(fmt.Errorf("the response begins at byte %d instead of %d", begin, offset))
	}
	if _, err := io.CopyN(io.Discard, body, offset-begin); err != nil { // the store does not support ranges
		return fail(err)
	}
	return body, nil
}

// checkEncoding returns an error if the content is stored compressed: the listing has the compressed size, and ReplyCX could not
// read the compressed content.
func checkEncoding(encoding string) error {
	switch strings.ToLower(encoding) {
	case "", "identity", "utf-8", "aws-chunked":
		return nil
	}
	return &cloudFault{faultPermanent, fmt.Errorf("it is stored with Content-Encoding %q, which kbsync does not decode; store it without", encoding)}
}

// withoutQuery removes the query from the URL in a network error, because it may contain a signature.
func withoutQuery(err error) error {
	e, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	shown := e.URL
	if u, err := url.Parse(e.URL); err == nil {
		shown = u.Scheme + "://" + u.Host + u.Path
	}
	return &cloudError{fmt.Sprintf("%s %s: %v", e.Op, shown, e.Err), e.Err}
}
