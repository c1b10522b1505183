package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
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
// A .kbsyncignore object holds for its folder and everything below it, as in a directory. A listing in byte order shows most of them
// before the documents of their folder. For a folder with names that come before ".kbsyncignore", and for the folders above a
// listed part, the listing asks with one request each. Listings of single documents use answers that are at most ten seconds old.
type Bucket struct {
	url     string
	prefix  string // of the objects' keys; empty, or with a slash at its end
	filter  *Filter
	service service
	limits  requestLimits

	ignores ignoreCache
	// misordered is true once a listing was not in byte order, although the cloud promises it.
	misordered atomic.Bool
	// flat is true if the store was found not to list single levels or parts of a folder. Its listings are not split.
	flat atomic.Bool
}

// unordered reports whether a listing may not be in byte order.
func (b *Bucket) unordered() bool { return b.service.unordered || b.misordered.Load() }

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
	b := &Bucket{url: address, prefix: prefix, filter: opts.Filter, service: s, limits: defaultLimits}
	b.flat.Store(s.whole)
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

// List yields the documents below prefix; see Root. It sends up to eight requests at a time, see pagesInParts, and holds about 32,000 objects
// and at most eight pages more in memory; a listing that is not in byte order is sorted, see inOrder. A failed page is requested again. If the first page fails, the error is an *UnavailableError or
// ErrRootMissing; if a later page does, it is a *ListError, because the documents before it were listed.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return b.listBelow(ctx, prefix, nil)
}

// Survey lists all documents and counts what it leaves out; see Surveyor. The number of objects in a folder that is left out is not
// counted, as in a directory.
func (b *Bucket) Survey(ctx context.Context, left *LeftOut) iter.Seq2[Entry, error] {
	return b.listBelow(ctx, "", left)
}

func (b *Bucket) listBelow(ctx context.Context, prefix string, left *LeftOut) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the requests for pages that were read ahead
		page := &listedPage{}
		entries := b.entries(ctx, prefix, page)
		if b.unordered() {
			page, entries = nil, inOrder(b.entries(ctx, prefix, page))
		}
		for e, err := range readAhead(b.documents(ctx, prefix, page, entries, left)) {
			if !yield(e, err) {
				cancel()
				return
			}
		}
	}
}

// A listedPage is the page of a listing in byte order that is being yielded.
type listedPage struct {
	page
	next int // the index of the object after the yielded one
}

// find looks for an object after the yielded one. known is false if it may be on a later page.
func (p *listedPage) find(key string) (o *object, known bool) {
	if p == nil {
		return nil, false
	}
	rest := p.objects[p.next:]
	i, found := slices.BinarySearchFunc(rest, key, func(o object, key string) int { return strings.Compare(o.key, key) })
	if found {
		return &rest[i], true
	}
	return nil, p.last && strings.HasPrefix(key, p.prefix) || i < len(rest)
}

// entries yields all objects below prefix in the cloud's order.
func (b *Bucket) entries(ctx context.Context, prefix string, at *listedPage) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		first, last := true, ""
		single := prefix != "" && !strings.HasSuffix(prefix, "/")
		pages := b.pagesInParts
		if single {
			pages = b.pages
		}
		for page, err := range pages(ctx, b.prefix+prefix) {
			if err != nil {
				if !first && ctx.Err() == nil {
					err = &ListError{Path: prefix, Err: fmt.Errorf("the listing broke off: %w", err)}
				}
				yield(Entry{}, err)
				return
			}
			at.page = page
			for i := range page.objects {
				o := &page.objects[i]
				at.next = i + 1
				key, ok := strings.CutPrefix(o.key, b.prefix)
				if !ok || !covers(prefix, key) || isMarker(key, o.fingerprint.Size) {
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
			if single && len(page.objects) > 0 && !b.unordered() {
				return
			}
			first = false
		}
	}
}

// documents yields those of the entries, which are in order, that are documents.
func (b *Bucket) documents(ctx context.Context, prefix string, page *listedPage, entries iter.Seq2[Entry, error], left *LeftOut) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		filter := keyFilter{filter: b.filter, left: left}
		if left != nil {
			left.begin(b.filter)
		}
		search := ignoreSearch{prefix: prefix, page: page}
		filter.load = func(dir string, parent *ignoreFile) (*ignoreFile, error) {
			return b.ignoresAt(ctx, dir, parent, &search)
		}
		partial := false
		for e, err := range entries {
			if err != nil {
				partial = true
				if !yield(e, err) {
					return
				}
				continue
			}
			if e.Key < search.first.Key {
				// An ignore file may come after the documents of its folder. The next listing is sorted first.
				b.misordered.Store(true)
				yield(Entry{}, &OrderError{Stream: streamListing, Previous: search.first.Key, Key: e.Key})
				return
			}
			search.first = e
			v, err := filter.document(e.Key)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !v.out && !yield(e, nil) {
				return
			}
		}
		filter.leave(0)
		if left != nil {
			left.end(b.filter, !partial)
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
