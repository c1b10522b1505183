package ingest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"

	"golang.org/x/time/rate"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// An opener opens documents for their upload.
type opener struct {
	root    Root
	limiter *rate.Limiter // nil for no limit
	sent    func(bytes int64)
}

func newOpener(root Root, opts Options) *opener {
	return &opener{root: root, limiter: newLimiter(opts.BytesPerSecond), sent: opts.Progress.Sent}
}

// newLimiter limits to so many bytes a second. It returns nil for no limit.
func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond, 1<<10), bufferSize)))
}

// open returns a reader of a document. A document that was hashed before must have the same hash at the reader's end; any
// other document gets its hash there.
func (o *opener) open(ctx context.Context, d *document) (io.ReadCloser, error) {
	r := &uploadReader{opener: o, ctx: ctx, d: d}
	if d.content != nil {
		r.memory = d.content
		return r, nil
	}
	f, err := o.root.Open(ctx, d.Key, d.Fingerprint)
	if err != nil {
		return nil, err
	}
	if d.charset != "" {
		r.memory, err = decodedContent(f, d)
		return r, err
	}
	r.file, r.hash = f, sha256.New()
	return r, nil
}

// An uploadReader reads a document for its upload, from its file or from memory.
type uploadReader struct {
	*opener
	ctx    context.Context
	d      *document
	memory []byte
	file   io.ReadCloser // nil if the content is in memory
	hash   hash.Hash
}

// Read reads as fast as the limiter lets it.
func (r *uploadReader) Read(p []byte) (int, error) {
	if r.limiter != nil {
		p = p[:min(len(p), r.limiter.Burst())]
	}
	var n int
	var err error
	if r.file == nil {
		n = copy(p, r.memory)
		if r.memory = r.memory[n:]; n == 0 && len(p) > 0 {
			return 0, io.EOF
		}
	} else {
		n, err = r.file.Read(p)
		_, _ = r.hash.Write(p[:n]) // never fails
	}
	if n > 0 {
		if r.limiter != nil {
			if err := r.limiter.WaitN(r.ctx, n); err != nil {
				return 0, cmp.Or(context.Cause(r.ctx), err)
			}
		}
		if r.sent != nil {
			r.sent(int64(n))
		}
	}
	if err == io.EOF && r.hash != nil {
		var sum state.SHA256
		r.hash.Sum(sum[:0])
		if r.d.hashed && r.d.sha != sum {
			return n, fmt.Errorf("content differs from the hashed one: %w", state.ErrChanged)
		}
		r.d.sha, r.d.hashed = sum, true
	}
	return n, err
}

// Close closes the file.
func (r *uploadReader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// parts returns the form fields of a batch: d1, d2, and so on, or the name of a text if that is unique. A text that is not known to
// be UTF-8 is sent as a file.
func (o *opener) parts(b *batch, opts Options) []replycx.Part {
	parts := make([]replycx.Part, len(b.docs))
	var taken map[string]bool
	if opts.SendText {
		taken = make(map[string]bool)
	}
	for i, d := range b.docs {
		name := SourceName(d.Key, opts.Names)
		parts[i] = replycx.Part{
			Field:    "d" + strconv.Itoa(i+1),
			Filename: name,
			Size:     d.size(),
			Open:     func(ctx context.Context) (io.ReadCloser, error) { return o.open(ctx, d) },
		}
		if d.isText && usableField(name) && !taken[name] {
			// A text part has no file name, so its field is the source's only name.
			taken[name] = true
			parts[i].Field, parts[i].Filename = name, ""
		}
	}
	return parts
}
