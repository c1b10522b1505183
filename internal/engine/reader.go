package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
)

// A reader reads documents without sending them.
type reader struct {
	root  *CountingRoot
	look  bool // look at each document
	cores bool // find the core of each document that has one

	large sync.Mutex // one large document at a time is in memory
}

// A reading is what a reader found out about a document.
type reading struct {
	sum    state.SHA256
	core   state.SHA256 // zero if it has none
	report preflight.Report
	err    error
}

// readAll reads documents, several at once. It returns the cause of the context's end.
func (r *reader) readAll(ctx context.Context, checkers int, documents []Candidate) ([]reading, error) {
	readings := make([]reading, len(documents))
	err := inParallel(ctx, checkers, len(documents), func(i int) { readings[i] = r.read(ctx, documents[i]) })
	return readings, err
}

// read hashes a document and looks at it.
func (r *reader) read(ctx context.Context, c Candidate) (x reading) {
	f, err := r.root.Open(ctx, c.Key, c.Fingerprint)
	if err != nil {
		return reading{err: err}
	}
	defer func() { x.err = errors.Join(x.err, f.Close()) }()
	size := c.Fingerprint.Size
	cored := r.cores && preflight.HasCore(c.Key, size)
	if cored && size > preflight.Whole {
		r.large.Lock()
		defer r.large.Unlock()
	}
	if cored || r.look && size <= preflight.Whole {
		content, err := io.ReadAll(f)
		if err != nil {
			return reading{err: err}
		}
		x.sum = sha256.Sum256(content)
		if cored {
			x.core, _ = preflight.Core(c.Key, content)
		}
		if r.look {
			x.report = preflight.LookWhole(c.Key, content)
		}
		return x
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return reading{err: err}
	}
	if content, ok := f.(io.ReaderAt); ok && r.look {
		x.report, x.err = preflight.Look(c.Key, size, content)
	}
	h.Sum(x.sum[:0])
	return x
}
