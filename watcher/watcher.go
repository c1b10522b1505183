// Package watcher finds out what changed on a root since the last scan.
//
// A root lists its documents as a stream in byte order of the key. A Filter decides which of them are documents at all, and
// the settle time which are written completely. Diff merges the listing with what the state knows, and a Scanner records
// the difference there, unless a guard says that the difference is more likely an accident than a wish.
//
// A Watch tells a process that stays which parts of a directory are worth a scan. It is never more than a hint: what changed is what
// a scan finds, and what no event told of is found by the next scan of the whole.
//
// The package uploads nothing and reads no document on its own behalf: a change it records is a reason for somebody else to
// open the document and to look at its content.
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

// An Entry is a document as a listing shows it.
type Entry struct {
	// Key is the slash-separated path below the root. In a directory it may be any bytes but NUL, in a bucket any bytes.
	Key         string
	Fingerprint state.Fingerprint
	// Skip says why the document is not to be uploaded; empty if it is.
	Skip string
	// Seen is a moment just before the fingerprint was taken, by this machine's clock: stamps that are close to it may not tell
	// two writes apart. Zero where the root can't tell.
	Seen time.Time
	// Unreadable says that Skip is about reading: a version that is known already stays as it is, though nobody could read it again.
	Unreadable bool
	// Hold says that the document is there, but may still be being written: Diff leaves it as it is known.
	Hold bool
}

// A Root is a place that can be listed.
type Root interface {
	// Identity names the very directory or bucket that the root leads to at this moment. Two roots, or one root at two
	// times, that lead to the same have equal identities.
	Identity(ctx context.Context) (string, error)

	// List yields what is below prefix in byte order of the key. The prefix is "" for everything, the key of a directory
	// with a slash at its end, or the key of a single document. A prefix at which nothing is yields nothing; a root that is
	// missing yields an error.
	//
	// A *ListError stands for a part that could not be listed, and the listing goes on behind it. Any other error ends it.
	// After either, what was not listed may still be there.
	List(ctx context.Context, prefix string) iter.Seq2[Entry, error]
}

// ErrRootMissing says that there is nothing where the root should be. It is an fs.ErrNotExist, too, but says nothing about
// any document: whoever decides on both asks for this one first.
var ErrRootMissing = fmt.Errorf("the root is missing: %w", fs.ErrNotExist)

// ErrRootChanged says that the root led to one place when a scan began and to another when it ended.
var ErrRootChanged = errors.New("the root was replaced while it was listed")

// A ListError says that a part of a root could not be listed.
type ListError struct {
	Path string // the key of the document, or of the directory with a slash at its end; "" for the root itself
	Err  error
}

func (e *ListError) Error() string { return fmt.Sprintf("list %q: %v", e.Path, e.Err) }

func (e *ListError) Unwrap() error { return e.Err }

// An OrderError says that a stream that is to be in byte order of the key is not, so that nothing can be concluded from
// what is missing in it.
type OrderError struct {
	Stream        string // "listing" or "state"
	Previous, Key string
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("the %s is out of order: %q came after %q", e.Stream, e.Key, e.Previous)
}

// covers says whether a listing below prefix has to show key if it is there.
func covers(prefix, key string) bool {
	if prefix == "" || prefix == key {
		return true
	}
	return prefix[len(prefix)-1] == '/' && len(key) > len(prefix) && key[:len(prefix)] == prefix
}
