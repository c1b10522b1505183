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

// rangeBody checks that a body belongs to an object of this size, and skips to the offset.
func rangeBody(body io.ReadCloser, length *int64, contentRange, encoding *string, size, offset int64) (io.ReadCloser, error) {
	fail := func(err error) (io.ReadCloser, error) {
		body.Close()
		return nil, err
	}
	if err := checkEncoding(aws.ToString(encoding)); err != nil {
		return fail(err)
	}
	begin := int64(0)
	if r := aws.ToString(contentRange); r != "" {
		first, _, _ := strings.Cut(strings.TrimPrefix(r, "bytes "), "-")
		var err error
		if begin, err = strconv.ParseInt(first, 10, 64); err != nil {
			return fail(fmt.Errorf("the response has the invalid Content-Range %q", r))
		}
		if _, whole, ok := strings.Cut(r, "/"); ok && whole != "*" && whole != strconv.FormatInt(size, 10) {
			return fail(changed())
		}
	}
	if length != nil && begin+*length != size {
		return fail(changed())
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
