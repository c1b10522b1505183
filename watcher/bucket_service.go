package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A service is a bucket in its cloud.
type service struct {
	objects
	// identity names the bucket and its endpoint, without the prefix.
	identity string
	// unordered is true if a listing may not be in byte order of the key.
	unordered bool
	// whole is true if a listing must not be split, because the cloud does not take parts of a name as a prefix.
	whole bool
}

// objects is the part of a cloud's API that a Bucket uses. An error is a *cloudFault if its consequence is known.
type objects interface {
	// page lists some of the objects whose keys begin with prefix, from the position of token; "" for the beginning. An empty
	// next ends the listing.
	page(ctx context.Context, prefix, token string) (page []object, next string, err error)
	// level lists as page does, but of the objects in folders directly below prefix it lists the names of the folders only, each with
	// its slash. A cloud that cannot do so may return a *cloudFault, or the objects in the folders.
	level(ctx context.Context, prefix, token string) (objects []object, folders []string, next string, err error)
	// open reads the version fp of an object from an offset on.
	open(ctx context.Context, key string, fp state.Fingerprint, offset int64) (io.ReadCloser, error)
	close() error
}

// An object is an entry of a page.
type object struct {
	key         string
	fingerprint state.Fingerprint
	unreadable  string // the reason why it cannot be read; empty if it can
}

// A cloudFault is an error of a cloud with a known consequence.
type cloudFault struct {
	kind faultKind
	err  error
}

func (f *cloudFault) Error() string { return f.err.Error() }

func (f *cloudFault) Unwrap() error { return f.err }

type faultKind uint8

const (
	faultTemporary faultKind = iota // another attempt may succeed
	faultPermanent                  // no attempt will succeed; a missing permission, for example
	faultNoBucket                   // the cloud reports that the bucket does not exist
	faultNoObject                   // the object does not exist
	faultChanged                    // the object has another version
)

func faultOf(err error) faultKind {
	if f, ok := errors.AsType[*cloudFault](err); ok {
		return f.kind
	}
	return faultTemporary
}

// An UnavailableError reports that a bucket did not answer a request, or that an ignore file of a directory could not be read. It
// implies nothing about the documents.
type UnavailableError struct {
	Root string // the bucket's URL, or the path of the ignore file
	Err  error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("%s is unavailable: %v", e.Root, e.Err) }

func (e *UnavailableError) Unwrap() error { return e.Err }

// requestLimits bound the attempts and the time of requests.
type requestLimits struct {
	attempts     int           // for a page, or for a body from one offset on, in addition to the retries of the cloud's client
	backoff      retry.Policy  // between attempts
	pageTimeout  time.Duration // for one page
	stallTimeout time.Duration // without a byte of a body
}

var defaultLimits = requestLimits{
	attempts: 3, backoff: retry.EqualJitter(time.Second, time.Minute), pageTimeout: 2 * time.Minute, stallTimeout: time.Minute,
}

// retry calls do until it succeeds, fails permanently, or has no attempts left.
func (l *requestLimits) retry(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := do()
		if err == nil || n >= l.attempts || ctx.Err() != nil || faultOf(err) != faultTemporary {
			return err
		}
		if err := retry.Sleep(ctx, l.backoff.Delay(n-1, rand.Float64())); err != nil {
			return err
		}
	}
}

// fetch returns a page, with retries. Errors: *UnavailableError, ErrRootMissing.
func (b *Bucket) fetch(ctx context.Context, prefix, token string) (page []object, next string, err error) {
	err = b.request(ctx, func(ctx context.Context) (err error) {
		page, next, err = b.service.page(ctx, prefix, token)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// request requests a page, with retries.
func (b *Bucket) request(ctx context.Context, do func(context.Context) error) error {
	err := b.limits.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, b.limits.pageTimeout)
		defer cancel()
		return do(ctx)
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case faultOf(err) == faultNoBucket:
		return fmt.Errorf("%s: %w: %w", b.url, ErrRootMissing, err)
	}
	return &UnavailableError{Root: b.url, Err: err}
}
