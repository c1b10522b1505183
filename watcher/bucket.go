package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// BucketOptions of a Bucket.
type BucketOptions struct {
	Filter *Filter // nil: that of the zero FilterOptions
	// PageSize is how many objects are asked for at a time; zero for the cloud's own number, 1,000 to 5,000.
	PageSize int
}

// A Bucket is a root in an object store. It may be used by several goroutines.
//
// A document's key is the object's key below the prefix, byte for byte: none is escaped, and no two objects share one. An object
// is whole when it is listed, and Open reads the listed version alone. Of a versioned bucket only the current versions count.
//
// Of ignore files a bucket has one: a .kbsyncignore object at the root. It costs a request a listing to look for it, but that single
// documents are listed by what was found in the last ten seconds.
type Bucket struct {
	url     string
	prefix  string // of the objects' keys: empty, or with a slash at its end
	filter  *Filter
	service service
	persistence

	ignoring chan struct{} // of size one: has a value while the ignore file is looked at
	ignored  *ignoreFile
	lookedAt time.Time // when; zero for never
}

// ignoresAge is how long the ignore file that was seen last is good for the listing of single documents.
const ignoresAge = 10 * time.Second

var _ Root = (*Bucket)(nil)

// A service is a bucket in its cloud.
type service struct {
	objects
	// identity names the bucket and where it is, without the prefix.
	identity string
	// unordered says that its listings need not be in byte order of the key.
	unordered bool
}

// objects are what a Bucket needs of a cloud. Errors are *fault where they say more than that something failed.
type objects interface {
	// page lists some of the objects whose keys begin with prefix, from where token leads to; "" for the beginning. An empty
	// next one ends the listing.
	page(ctx context.Context, prefix, token string) (page []object, next string, err error)
	// open reads the version fp of an object from an offset on.
	open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error)
	close() error
}

// An object is what a page has of one.
type object struct {
	key         string
	fingerprint state.Fingerprint
	unreadable  string // why it can't be read; empty if it can
}

// A fault is an error of a cloud that something follows from.
type fault struct {
	kind faultKind
	err  error
}

func (f *fault) Error() string { return f.err.Error() }

func (f *fault) Unwrap() error { return f.err }

type faultKind uint8

const (
	faultPassing  faultKind = iota // it may be over at the next try
	faultLasting                   // it is not: no permission, say
	faultNoBucket                  // the cloud says that there is no such bucket
	faultNoObject                  // there is no such object
	faultChanged                   // the object is another version
)

func faultOf(err error) faultKind {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.kind
	}
	return faultPassing
}

// An UnavailableError says that a bucket could not be asked. It says nothing about what is in it.
type UnavailableError struct {
	Root string // its URL
	Err  error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("%s is unavailable: %v", e.Root, e.Err) }

func (e *UnavailableError) Unwrap() error { return e.Err }

// A persistence bounds what is waited for.
type persistence struct {
	tries int           // requests for one page, or for a body from one place on, beside those of the cloud's own client
	delay time.Duration // before the second try; it doubles with each
	page  time.Duration // for one page
	stall time.Duration // without a byte of a body
}

var usualPersistence = persistence{tries: 3, delay: time.Second, page: 2 * time.Minute, stall: time.Minute}

// OpenBucket returns the bucket at an s3://, gs://, azblob:// or mem:// URL. The parameters are those of gocloud.dev/blob, any other is
// an error. The prefix parameter names a folder: one without a slash at its end means the same as one with it. Credentials are
// found by the cloud's own means, and refused in the URL. The bucket is not asked for anything yet.
//
// An *UnavailableError says that no credentials could be had; any other error, that the URL or the cloud's own configuration
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
		if _, lasting := errors.AsType[*fault](err); lasting {
			return nil, &UnavailableError{Root: address, Err: err}
		}
		return nil, fmt.Errorf("open root %s: %w", address, err)
	}
	return newBucket(address, prefix, service, opts), nil
}

func newBucket(address, prefix string, s service, opts BucketOptions) *Bucket {
	b := &Bucket{url: address, prefix: prefix, filter: opts.Filter, service: s, persistence: usualPersistence, ignoring: make(chan struct{}, 1)}
	if b.filter == nil {
		b.filter = &Filter{}
	}
	return b
}

// parseBucketURL takes an address apart. What it returns beside an error is what may be shown of it.
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
		return shown, nil, errors.New("has credentials in it; leave them to the environment or the cloud's own configuration")
	case err != nil:
		return shown, nil, errors.New("has parameters that cannot be read; write name=value pairs with & between them")
	case u.Fragment != "":
		return shown, nil, errors.New("has a # in it; write %23 for the character")
	case u.Path != "" && u.Path != "/":
		folder := strings.TrimPrefix(path.Clean(u.Path), "/") + "/"
		return shown, nil, fmt.Errorf("has a path, which would be passed over; write ?prefix=%s for the folder", url.QueryEscape(folder))
	case u.Host == "" && u.Scheme != "mem":
		return shown, nil, errors.New("names no bucket; write one such as s3://bucket?prefix=docs/")
	}
	u.Path = ""
	for name, values := range query {
		if len(values) > 1 {
			return shown, nil, fmt.Errorf("has the parameter %s twice; write it once", name)
		}
		if place, err := url.Parse(values[0]); err == nil && place.User != nil {
			return shown, nil, fmt.Errorf("has credentials in its parameter %s; leave them to the environment or the cloud's own configuration", name)
		}
	}
	if query.Has("key") {
		return shown, nil, errors.New("names a single object; name the folder it is in by prefix, and take the object by an include")
	}
	return u, query, nil
}

// Identity returns the bucket, where it is, and the prefix.
func (b *Bucket) Identity(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return b.service.identity + "/" + b.prefix, nil
}

// Close gives up the connections that are kept open.
func (b *Bucket) Close() error { return b.service.close() }

// try calls do until it succeeds, fails for good, or there were enough tries.
func (p *persistence) try(ctx context.Context, do func() error) error {
	delay := p.delay
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := do()
		if err == nil || n >= p.tries || ctx.Err() != nil || faultOf(err) != faultPassing {
			return err
		}
		if err := rest(ctx, delay/2+rand.N(delay/2+1)); err != nil {
			return err
		}
		delay *= 2
	}
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fetch returns a page, trying again where that may help.
func (b *Bucket) fetch(ctx context.Context, prefix, token string) (page []object, next string, err error) {
	err = b.try(ctx, func() error {
		limited, cancel := context.WithTimeout(ctx, b.page)
		defer cancel()
		page, next, err = b.service.page(limited, prefix, token)
		if err == nil && next != "" && next == token {
			err = &fault{faultLasting, errors.New("the listing turns in a circle")}
		}
		return err
	})
	switch {
	case err == nil:
		return page, next, nil
	case ctx.Err() != nil:
		return nil, "", context.Cause(ctx)
	case faultOf(err) == faultNoBucket:
		return nil, "", fmt.Errorf("%s: %w: %w", b.url, ErrRootMissing, err)
	}
	return nil, "", &UnavailableError{Root: b.url, Err: err}
}

// List yields the documents below prefix, as Root says. It holds a page or two in memory; of clouds that list in another order
// than that of the bytes, see inOrder. A page that fails is asked for again. A bucket that can't be asked at all is an
// *UnavailableError or ErrRootMissing; one that fails later a *ListError, for what was listed is there.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // of what is fetched ahead
		ignores, err := b.ignoresFor(ctx, prefix)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		entries := b.entries(ctx, prefix, ignores)
		if b.service.unordered {
			entries = inOrder(entries)
		}
		for e, err := range ahead(entries) {
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
		sieve := sieve{filter: b.filter, ignores: ignores}
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
				if !ok || !covers(prefix, key) || isMarker(key, o.fingerprint.Size) || sieve.document(key).out {
					continue
				}
				if key == last {
					continue // on two pages, for something was written in between
				}
				last = key
				if !yield(b.entry(key, o), nil) {
					return
				}
			}
			// An object's own key comes before those that it is the beginning of, if anything is in order.
			single := prefix != "" && !strings.HasSuffix(prefix, "/")
			if next == "" || single && len(page) > 0 && !b.service.unordered {
				return
			}
			token, first = next, false
		}
	}
}

// isMarker says whether an object stands for a folder: consoles make them.
func isMarker(key string, size int64) bool {
	return key == "" || size == 0 && strings.HasSuffix(key, "/")
}

// entry returns what a listing shows of an object.
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

// ignoresFor returns what the ignore file says of what is below prefix.
func (b *Bucket) ignoresFor(ctx context.Context, prefix string) (*ignoreFile, error) {
	select {
	case b.ignoring <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-b.ignoring }()
	if single := prefix != "" && !strings.HasSuffix(prefix, "/"); single && !b.lookedAt.IsZero() && time.Since(b.lookedAt) < ignoresAge {
		return b.ignored, nil
	}
	at := time.Now()
	ignores, err := b.ignores(ctx)
	if err != nil {
		return nil, err
	}
	b.ignored, b.lookedAt = ignores, at
	return ignores, nil
}

// ignores reads the bucket's ignore file. Without it nobody can say what is to be uploaded.
func (b *Bucket) ignores(ctx context.Context) (*ignoreFile, error) {
	key := b.prefix + ignoreName
	token := ""
	for {
		page, next, err := b.fetch(ctx, key, token)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			if o.key == key {
				return b.readIgnores(ctx, &o)
			}
		}
		if next == "" || len(page) > 0 {
			return nil, nil
		}
		token = next
	}
}

func (b *Bucket) readIgnores(ctx context.Context, o *object) (*ignoreFile, error) {
	fail := func(err error) (*ignoreFile, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &UnavailableError{Root: b.url, Err: fmt.Errorf("read %s: %w", ignoreName, err)}
	}
	const limit = 1 << 20
	if o.unreadable != "" {
		return fail(errors.New(o.unreadable))
	}
	if o.fingerprint.Size > limit {
		return nil, fmt.Errorf("%s in %s is larger than 1 MiB", ignoreName, b.url)
	}
	if o.fingerprint.Size == 0 {
		return nil, nil
	}
	r, err := b.Open(ctx, ignoreName, o.fingerprint)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return fail(err)
	}
	return parseIgnore(data, "", nil)
}

// A sieve decides on keys that come in order, or nearly so, and remembers what it made of the last one's directory.
type sieve struct {
	filter  *Filter
	ignores *ignoreFile
	dir     string // with a slash at its end
	verdict verdict
}

func (s *sieve) document(key string) verdict {
	dir := key[:strings.LastIndexByte(key, '/')+1]
	if dir != s.dir {
		s.dir, s.verdict = dir, verdict{}
		for i := range len(dir) {
			// The empty name of a directory is nothing that a rule could mean.
			if dir[i] != '/' || i == 0 || dir[i-1] == '/' {
				continue
			}
			if s.verdict = s.filter.directory(dir[:i], s.ignores); s.verdict.out {
				break
			}
		}
	}
	if s.verdict.out {
		return s.verdict
	}
	return s.filter.document(key, s.ignores)
}

// Explain says what a scan makes of the key of a document, and which rule decides. An error means that a scan could not tell
// either.
func (b *Bucket) Explain(ctx context.Context, key string) (Explanation, error) {
	x := Explanation{Key: key}
	ignores, err := b.ignores(ctx)
	if err != nil {
		return x, err
	}
	sieve := sieve{filter: b.filter, ignores: ignores}
	v := sieve.document(key)
	x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
	if v.out {
		return x, nil
	}
	token := ""
	for {
		page, next, err := b.fetch(ctx, b.prefix+key, token)
		if err != nil {
			return x, err
		}
		for _, o := range page {
			if o.key != b.prefix+key {
				continue
			}
			if isMarker(key, o.fingerprint.Size) {
				x.Reason, x.Rule, x.Place = "it stands for a folder", "", ""
				return x, nil
			}
			x.Listed = true
			if e := b.entry(key, &o); e.Skip != "" {
				x.Reason, x.Rule, x.Place = e.Skip, "", ""
				return x, nil
			}
			x.Taken = true
			return x, nil
		}
		if next == "" || len(page) > 0 && !b.service.unordered {
			x.Reason, x.Rule, x.Place = "there is no such object", "", ""
			return x, nil
		}
		token = next
	}
}

// Open opens the version of a document that was listed with this fingerprint. The reader yields exactly as many bytes as that
// says, of that version and no other: where a connection breaks, it goes on at that place if the version is still there. The
// reader is for one goroutine, and fails when ctx has ended.
//
// Errors, of the reader as well: state.ErrChanged, fs.ErrNotExist.
func (b *Bucket) Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	r := &objectReader{bucket: b, parent: ctx, key: key, fingerprint: fp}
	if err := r.reopen(); err != nil {
		return nil, err
	}
	return r, nil
}

// An objectReader reads one version of an object.
type objectReader struct {
	bucket      *Bucket
	parent      context.Context
	key         string
	fingerprint state.Fingerprint

	body     io.ReadCloser
	cancel   context.CancelFunc
	watchdog *time.Timer
	offset   int64 // of what was given out
	broken   int   // how often reading failed since the last byte
	err      error
}

// reopen opens the version at the place that was reached.
func (r *objectReader) reopen() error {
	b := r.bucket
	r.closeBody()
	err := b.try(r.parent, func() error {
		ctx, cancel := context.WithCancel(r.parent)
		opening := time.AfterFunc(b.stall, cancel)
		body, err := b.service.open(ctx, b.prefix+r.key, r.fingerprint, r.offset)
		opening.Stop()
		if err != nil {
			cancel()
			return err
		}
		r.body, r.cancel = body, cancel
		return nil
	})
	switch {
	case err == nil:
		r.watchdog = time.AfterFunc(time.Hour, r.cancel)
		r.watchdog.Stop()
		return nil
	case r.parent.Err() != nil:
		return context.Cause(r.parent)
	}
	switch faultOf(err) {
	case faultChanged:
		return fmt.Errorf("read %q: %w", r.key, state.ErrChanged)
	case faultNoObject:
		return fmt.Errorf("read %q: %w", r.key, fs.ErrNotExist)
	}
	return fmt.Errorf("read %q: %w", r.key, err)
}

func (r *objectReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	left := r.fingerprint.Size - r.offset
	if left == 0 {
		r.err = io.EOF
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		r.watchdog.Reset(r.bucket.stall)
		n, err := r.body.Read(p[:min(int64(len(p)), left)])
		r.watchdog.Stop()
		if n > 0 {
			// What is wrong beside it will be wrong at the next call.
			r.offset += int64(n)
			r.broken = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if r.broken++; r.parent.Err() != nil {
			r.err = context.Cause(r.parent)
		} else if r.broken >= r.bucket.tries {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			r.err = fmt.Errorf("read %q: %w", r.key, err)
		} else if err = rest(r.parent, r.bucket.delay/4<<r.broken); err != nil {
			r.err = err
		} else {
			r.err = r.reopen()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
}

func (r *objectReader) closeBody() {
	if r.body != nil {
		r.watchdog.Stop()
		r.cancel()
		r.body.Close() // what was read is all that counts
		r.body = nil
	}
}

// Close ends the request, if it still goes on.
func (r *objectReader) Close() error {
	r.closeBody()
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return nil
}
