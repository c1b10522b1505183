package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
)

const (
	// bufferSize is the size of a hasher's buffer.
	bufferSize = 64 << 10
	// Contents up to keepSize stay in memory from their hashing to their upload, up to keepTotal bytes in all. Reading small
	// files twice would cost more than anything else.
	keepSize  = 32 << 10
	keepTotal = 8 << 20
	// hashAtOnce bounds the bytes that the planner hashes before it hands documents on.
	hashAtOnce = 32 << 20
)

// A contentCache keeps small contents in memory between hashing and upload.
type contentCache struct {
	bytes atomic.Int64
}

// keep copies the content into the document if there is room.
func (c *contentCache) keep(d *document, content []byte) {
	if c.bytes.Add(int64(len(content))) > keepTotal {
		c.bytes.Add(-int64(len(content)))
		return
	}
	d.content = append(make([]byte, 0, len(content)), content...)
}

// drop frees the document's content.
func (c *contentCache) drop(d *document) {
	c.bytes.Add(-int64(len(d.content)))
	d.content = nil
}

// An openFunc opens a document as Root.Open does.
type openFunc = func(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error)

// neighboursOf returns a function that opens documents of a root that mostly lie in the directory of the one before.
func neighboursOf(root Root) (open openFunc, end func()) {
	if r, ok := root.(interface{ Neighbours() (openFunc, func()) }); ok {
		return r.Neighbours()
	}
	return root.Open, func() {}
}

// A hasher hashes documents and looks at them, one at a time.
type hasher struct {
	root   Root
	open   openFunc // for the documents of one readAll
	cache  *contentCache
	opts   *Options
	buffer []byte
	sha    hash.Hash
	large  *largeBuffer
}

// A largeBuffer holds the content of one large document at a time, for all hashers.
type largeBuffer struct {
	mu   sync.Mutex
	data []byte
}

func newHashers(opts *Options, root Root, cache *contentCache) []hasher {
	hashers := make([]hasher, opts.Checkers)
	large := &largeBuffer{}
	for i := range hashers {
		hashers[i] = hasher{root: root, cache: cache, opts: opts, buffer: make([]byte, bufferSize), sha: sha256.New(), large: large}
	}
	return hashers
}

// read opens a document, hashes it if toHash is set, and looks at it.
func (h *hasher) read(ctx context.Context, d *document) error {
	f, err := h.open(ctx, d.Key, d.Fingerprint)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	if !d.toHash {
		return h.lookInto(f, d)
	}
	switch size := d.Fingerprint.Size; {
	case size > preflight.Whole && h.opts.hasCore(d):
		h.large.mu.Lock()
		defer h.large.mu.Unlock()
		h.large.data = withRoom(h.large.data, size)
		return h.readWhole(ctx, f, d, h.large.data)
	case size <= preflight.Whole && (h.opts.looks() || h.opts.hasCore(d)):
		h.buffer = withRoom(h.buffer, size)
	}
	return h.readWhole(ctx, f, d, h.buffer)
}

// withRoom returns a buffer for a content of that size, and a byte more.
func withRoom(buffer []byte, size int64) []byte {
	if int64(len(buffer)) > size {
		return buffer
	}
	return make([]byte, size+1)
}

// readWhole hashes a document from f, and looks at it as a whole if that fits into the buffer.
func (h *hasher) readWhole(ctx context.Context, f io.Reader, d *document, buffer []byte) error {
	whole, err := h.hash(ctx, f, d, buffer)
	if err != nil {
		return err
	}
	if whole == nil {
		return h.lookInto(f, d)
	}
	h.lookAt(whole, d)
	if d.charset == "" && len(whole) <= keepSize {
		h.cache.keep(d, whole)
	}
	return nil
}

// hash reads a document from f and sets its hash. It returns the content if that is still in the buffer as a whole.
func (h *hasher) hash(ctx context.Context, f io.Reader, d *document, buffer []byte) (whole []byte, err error) {
	h.sha.Reset()
	var size int64
	for {
		n, err := io.ReadFull(f, buffer)
		size += int64(n)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return nil, err
		}
		if size > d.Fingerprint.Size {
			return nil, state.ErrChanged // a file that keeps growing would be read for ever
		}
		_, _ = h.sha.Write(buffer[:n]) // never fails
		if last && size == int64(n) {
			whole = buffer[:n]
		}
		if last {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if size != d.Fingerprint.Size {
		return nil, state.ErrChanged
	}
	h.sha.Sum(d.sha[:0])
	d.hashed, d.toHash = true, false
	return whole, nil
}

// readAll hashes documents and looks at them, on all hashers at once. It returns an error for each document, or the cause of the context's end.
func readAll(ctx context.Context, hashers []hasher, docs []*document) ([]error, error) {
	failed := make([]error, len(docs))
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range min(len(hashers), len(docs)) {
		group.Go(func() {
			h, end := &hashers[worker], func() {}
			if h.open = h.root.Open; len(docs) > 1 {
				h.open, end = neighboursOf(h.root)
			}
			defer end()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(docs) || ctx.Err() != nil {
					return
				}
				failed[i] = h.read(ctx, docs[i])
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return failed, nil
}

// prepare hashes the documents that need a hash before their upload, and looks at all. It gives back documents that cannot be
// read, and returns the others.
func (p *planner) prepare(ctx context.Context, docs []*document) ([]*document, error) {
	var toRead []*document
	for _, d := range docs {
		var err error
		if d.toHash, err = p.needsHash(ctx, d); err != nil {
			return nil, err
		}
		if d.toHash || p.opts.looks() && !d.looked && d.ResendOf == 0 {
			toRead = append(toRead, d)
		}
	}
	if len(toRead) == 0 {
		return docs, nil
	}
	failed, err := readAll(ctx, p.hashers, toRead)
	if err != nil {
		return nil, err
	}
	unread := make(map[*document]bool)
	for i, err := range failed {
		d := toRead[i]
		if err == nil && d.ResendOf != 0 && d.sha != d.SHA256 {
			err = state.ErrChanged
		}
		if err == nil {
			continue
		}
		unread[d] = true
		if err := p.recordUnread(ctx, d, err); err != nil {
			return nil, err
		}
	}
	if len(unread) == 0 {
		return docs, nil
	}
	rest := make([]*document, 0, len(docs)-len(unread))
	for _, d := range docs {
		if !unread[d] {
			rest = append(rest, d)
		}
	}
	return rest, nil
}

// needsHash reports whether a document must be hashed before its upload: a small one, one whose size another content has, or one
// that may have been saved again with other metadata. A large document that is sent again has the hash of its first upload, which the upload reader compares.
func (p *planner) needsHash(ctx context.Context, d *document) (bool, error) {
	switch {
	case d.hashed:
		return false, nil
	case d.Fingerprint.Size <= state.HashAhead:
		return true, nil
	case d.ResendOf != 0:
		d.sha, d.hashed = d.SHA256, true
		return false, nil
	case p.opts.hasCore(d):
		return true, nil
	}
	return p.queue.SizeTaken(ctx, p.sync.Destination.ID, d.Fingerprint.Size, d.DocumentID)
}
