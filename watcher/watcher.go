// Package watcher finds the changes of a root since the last scan.
//
// A root lists its documents as a stream in byte order of the key. A Filter decides which keys are documents, and the settle
// time decides which documents are completely written. Diff merges the listing with the known documents of the state. A Scanner
// records the difference in the state, unless a guard finds that the difference is probably an accident.
//
// A Watch (for a directory) and a Feed (for a bucket) report to a long-running process which parts of a root to scan. Both are
// only hints: a scan finds the changes, and the next scan of the whole root finds the changes without an event.
//
// The package uploads nothing and reads no document. A recorded change tells ingest to read and hash the document.
package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/kbsync/kbsync/state"
)

// An Entry is a document in a listing.
type Entry struct {
	// Key is the slash-separated path below the root: any bytes in a bucket, any bytes except NUL in a directory.
	Key         string
	Fingerprint state.Fingerprint
	// Skip is the reason why the document must not be uploaded; empty if it may be.
	Skip string
	// Seen is a time just before the fingerprint was taken, by this machine's clocks: two writes close to it may have equal time
	// stamps. Zero if the root does not know it.
	Seen time.Time
	// Unreadable is true if Skip is about reading: a version that is already known then stays known.
	Unreadable bool
	// Foreign is true if the time stamps may come from another clock than this machine's: that of a file server.
	Foreign bool
	// Placeholder is true for a document of which only a placeholder of a cloud client is there.
	Placeholder bool
}

// A Root is a directory or bucket that can be listed.
type Root interface {
	// Identity identifies the directory or bucket at the root's address now. It is equal for two roots, or one root at two
	// times, if and only if both are the same directory or bucket.
	Identity(ctx context.Context) (string, error)

	// List yields the documents below prefix in byte order of the key. The prefix is "" for all documents, the key of a
	// directory with a slash at its end, or the key of a single document. It yields nothing if the prefix does not exist, and
	// an error if the root is missing.
	//
	// A *ListError stands for a part that could not be listed; the listing continues after that part. Any other error ends the
	// listing. After either, a document that was not listed may still exist.
	List(ctx context.Context, prefix string) iter.Seq2[Entry, error]
}

// ErrRootMissing reports that the root does not exist. It implies nothing about a document, but it also is an fs.ErrNotExist:
// test for ErrRootMissing first.
var ErrRootMissing = fmt.Errorf("the root is missing: %w", fs.ErrNotExist)

// ErrRootChanged reports that the root was another directory or bucket at the end of a scan than at its start.
var ErrRootChanged = errors.New("the root was replaced while it was listed")

// A ListError reports that a part of a root could not be listed.
type ListError struct {
	Path string // the key of the document, or of the directory with a slash at its end; "" for the root itself
	Err  error
}

func (e *ListError) Error() string { return fmt.Sprintf("list %q: %v", e.Path, e.Err) }

func (e *ListError) Unwrap() error { return e.Err }

// The streams that a Diff merges.
const (
	streamListing = "listing"
	streamState   = "state"
)

// An OrderError reports that a stream is not in byte order of the key, so that a key missing from it proves nothing.
type OrderError struct {
	Stream        string // "listing" or "state"
	Previous, Key string
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("the %s is out of order: %q came after %q", e.Stream, e.Key, e.Previous)
}

// covers reports whether a listing below prefix includes key.
func covers(prefix, key string) bool {
	if prefix == "" || prefix == key {
		return true
	}
	return prefix[len(prefix)-1] == '/' && len(key) > len(prefix) && key[:len(prefix)] == prefix
}
