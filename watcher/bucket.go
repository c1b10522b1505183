package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path"
	"strings"
	"time"
)

// BucketOptions configure a Bucket.
type BucketOptions struct {
	Filter *Filter // nil for the filter of the zero FilterOptions
	// PageSize is the number of objects in a page of a listing; zero for the cloud's default, 1,000 to 5,000.
	PageSize int
}

// A Bucket is a root in an object store. Several goroutines may use it.
//
// A document's key is the object's key below the prefix, byte for byte: no character is escaped, and no two objects share a key.
// A listed object is complete, and Open reads only the listed version. In a versioned bucket only the current versions count.
//
// A bucket has at most one ignore file: a .kbsyncignore object at the root. Each listing looks for it by one request. Listings
// of single documents use a result that is at most ten seconds old.
type Bucket struct {
	url     string
	prefix  string // of the objects' keys; empty, or with a slash at its end
	filter  *Filter
	service service
	limits  requestLimits

	ignoresLock   chan struct{} // of size one; guards the fields below
	cachedIgnores *ignoreFile
	ignoresReadAt time.Time // zero for never
}

// ignoresAge is the age up to which listings of single documents use the cached ignore file.
const ignoresAge = 10 * time.Second

var _ Root = (*Bucket)(nil)

// OpenBucket returns the bucket at an s3://, gs://, azblob:// or mem:// URL. The parameters are those of gocloud.dev/blob; any other
// parameter is an error. The prefix parameter names a folder, with or without a slash at its end. The cloud's own library finds
// the credentials; credentials in the URL are an error. OpenBucket sends no request to the bucket.
//
// An *UnavailableError means that no credentials were available. Any other error means that the URL or the cloud's configuration
// is wrong.
func OpenBucket(ctx context.Context, address string, opts BucketOptions) (*Bucket, error) {
	u, query, err := parseBucketURL(address)
	if err != nil {
		return nil, fmt.Errorf("root %s %w", u, err)
	}
	prefix := query.Get("prefix")
	query.Del("prefix")
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	u.RawQuery = query.Encode()
	service, err := openService(ctx, u, opts.PageSize)
	if err != nil {
		if _, ok := errors.AsType[*cloudFault](err); ok {
			return nil, &UnavailableError{Root: address, Err: err}
		}
		return nil, fmt.Errorf("open root %s: %w", address, err)
	}
	return newBucket(address, prefix, service, opts), nil
}

func newBucket(address, prefix string, s service, opts BucketOptions) *Bucket {
	b := &Bucket{url: address, prefix: prefix, filter: opts.Filter, service: s, limits: defaultLimits, ignoresLock: make(chan struct{}, 1)}
	if b.filter == nil {
		b.filter = &Filter{}
	}
	return b
}

// parseBucketURL parses an address. Beside an error, the returned URL is the part that a message may show.
func parseBucketURL(address string) (*url.URL, url.Values, error) {
	u, err := url.Parse(address)
	if err != nil {
		scheme, _, _ := strings.Cut(address, ":")
		return &url.URL{Scheme: scheme}, nil, errors.New("is not a URL; write one such as s3://bucket?prefix=docs/")
	}
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.User != nil:
		return shown, nil, errors.New("has credentials in it; put them into the environment or the cloud's own configuration")
	case err != nil:
		return shown, nil, errors.New("has parameters that cannot be read; write name=value pairs with & between them")
	case u.Fragment != "":
		return shown, nil, errors.New("has a # in it; write %23 for the character")
	case u.Path != "" && u.Path != "/":
		folder := strings.TrimPrefix(path.Clean(u.Path), "/") + "/"
		return shown, nil, fmt.Errorf("has a path; write ?prefix=%s for the folder", url.QueryEscape(folder))
	case u.Host == "" && u.Scheme != "mem":
		return shown, nil, errors.New("names no bucket; write one such as s3://bucket?prefix=docs/")
	}
	u.Path = ""
	for name, values := range query {
		if len(values) > 1 {
			return shown, nil, fmt.Errorf("has the parameter %s twice; write it once", name)
		}
		if value, err := url.Parse(values[0]); err == nil && value.User != nil {
			return shown, nil, fmt.Errorf("has credentials in its parameter %s; put them into the environment or the cloud's own configuration", name)
		}
	}
	if query.Has("key") {
		return shown, nil, errors.New("names a single object; write its folder as the prefix, and select the object by an include")
	}
	return u, query, nil
}

// Identity returns the bucket, its endpoint and the prefix.
func (b *Bucket) Identity(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return b.service.identity + "/" + b.prefix, nil
}

// Close closes idle connections.
func (b *Bucket) Close() error { return b.service.close() }

// List yields the documents below prefix; see Root. It holds one or two pages in memory; a listing that is not in byte order is
// sorted, see inOrder. A failed page is requested again. If the first page fails, the error is an *UnavailableError or
// ErrRootMissing; if a later page does, it is a *ListError, because the documents before it were listed.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the requests for pages that were read ahead
		ignores, err := b.ignoresFor(ctx, prefix)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		entries := b.entries(ctx, prefix, ignores)
		if b.service.unordered {
			entries = inOrder(entries)
		}
		for e, err := range readAhead(entries) {
			if !yield(e, err) {
				cancel()
				return
			}
		}
	}
}

// entries yields the documents below prefix in the cloud's order.
func (b *Bucket) entries(ctx context.Context, prefix string, ignores *ignoreFile) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		token, first := "", true
		last := ""
		filter := keyFilter{filter: b.filter, ignores: ignores}
		for {
			page, next, err := b.fetch(ctx, b.prefix+prefix, token)
			if err != nil {
				if !first && ctx.Err() == nil {
					err = &ListError{Path: prefix, Err: fmt.Errorf("the listing broke off: %w", err)}
				}
				yield(Entry{}, err)
				return
			}
			for i := range page {
				o := &page[i]
				key, ok := strings.CutPrefix(o.key, b.prefix)
				if !ok || !covers(prefix, key) || isMarker(key, o.fingerprint.Size) || filter.document(key).out {
					continue
				}
				if key == last {
					continue // it is on two pages: an object was written between them
				}
				last = key
				if !yield(b.entry(key, o), nil) {
					return
				}
			}
			// In an ordered listing an object's key comes before the longer keys that begin with it.
			single := prefix != "" && !strings.HasSuffix(prefix, "/")
			if next == "" || single && len(page) > 0 && !b.service.unordered {
				return
			}
			token, first = next, false
		}
	}
}

// isMarker reports whether an object stands for a folder. Web consoles create such objects.
func isMarker(key string, size int64) bool {
	return key == "" || size == 0 && strings.HasSuffix(key, "/")
}

// entry returns the entry of an object.
func (b *Bucket) entry(key string, o *object) Entry {
	e := Entry{Key: key, Fingerprint: o.fingerprint, Skip: b.filter.skip(o.fingerprint.Size)}
	switch {
	case e.Skip != "":
	case strings.HasSuffix(key, "/"):
		e.Skip = "its key ends in a slash"
	case strings.Contains(key, "\x00"):
		e.Skip = "its key has a NUL byte in it"
	case o.unreadable != "":
		e.Skip, e.Unreadable = o.unreadable, true
	}
	return e
}
