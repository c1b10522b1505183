package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// Open opens the version of a document that was listed with this fingerprint. The reader yields exactly the fingerprint's size
// in bytes, of that version only: after a broken connection it continues at the same offset if the version still exists. One
// goroutine may use the reader, which is an io.ReaderAt too. It fails when ctx ends.
//
// Errors of Open and of the reader: state.ErrChanged, fs.ErrNotExist.
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
	offset   int64 // bytes that Read returned
	failures int   // since the last byte
	err      error
}

// reopen opens the version at the current offset.
func (r *objectReader) reopen() error {
	b := r.bucket
	r.closeBody()
	err := b.limits.retry(r.parent, func() error {
		ctx, cancel := context.WithCancel(r.parent)
		opening := time.AfterFunc(b.limits.stallTimeout, cancel)
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
		r.watchdog.Reset(r.bucket.limits.stallTimeout)
		n, err := r.body.Read(p[:min(int64(len(p)), left)])
		r.watchdog.Stop()
		if n > 0 {
			// An error beside the bytes returns at the next call.
			r.offset += int64(n)
			r.failures = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if r.err = r.resume(err); r.err != nil {
			return 0, r.err
		}
	}
}

// resume reopens the version after a failed read, with a delay, unless no attempts are left.
func (r *objectReader) resume(err error) error {
	if r.failures++; r.parent.Err() != nil {
		return context.Cause(r.parent)
	}
	limits := &r.bucket.limits
	if r.failures >= limits.attempts {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %q: %w", r.key, err)
	}
	backoff := retry.Policy{Min: limits.backoff.Min / 2, Max: limits.backoff.Max}
	if err := retry.Sleep(r.parent, backoff.Delay(r.failures-1, 0)); err != nil {
		return err
	}
	return r.reopen()
}

// ReadAt reads bytes of the version at any offset, by a request of its own. It does not move Read.
func (r *objectReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset >= r.fingerprint.Size {
		return 0, io.EOF
	}
	other := &objectReader{bucket: r.bucket, parent: r.parent, key: r.key, fingerprint: r.fingerprint, offset: offset}
	if err := other.reopen(); err != nil {
		return 0, err
	}
	defer other.Close()
	n, err := io.ReadFull(other, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *objectReader) closeBody() {
	if r.body != nil {
		r.watchdog.Stop()
		r.cancel()
		r.body.Close() // the bytes read so far are checked by size and version
		r.body = nil
	}
}

// Close ends the request if it is still open.
func (r *objectReader) Close() error {
	r.closeBody()
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return nil
}
