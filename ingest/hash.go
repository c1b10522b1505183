package ingest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

const (
	// bufferSize is that of a hashing worker's buffer.
	bufferSize = 64 << 10
	// Contents up to keepSize stay in memory from their hashing to their sending, as
	// long as keepTotal is not reached: reading small files twice costs more than
	// anything else about them.
	keepSize  = 32 << 10
	keepTotal = 8 << 20
	// hashAtOnce bounds the bytes that are hashed before what was hashed is handed on.
	hashAtOnce = 32 << 20
)

// A document is a claimed one on its way.
type document struct {
	state.ClaimedDocument
	sha      state.SHA256 // once hashed is set
	hashed   bool
	verified bool // its left-behind sources were seen just now
	carried  bool // counted among the contents on their way
	rounds   int  // how often the state changed its mind about it
	content  []byte
}

// A hasher hashes documents, one at a time.
type hasher struct {
	buffer []byte
	hash   hash.Hash
}

// prepare hashes those documents that need it before they are sent, as many at once
// as there are checkers. Those that cannot be read are settled; it returns the others.
func (r *run) prepare(ctx context.Context, docs []*document) ([]*document, error) {
	var hash []*document
	for _, d := range docs {
		if d.hashed {
			continue
		}
		known := d.Fingerprint.Size <= state.HashAhead
		if !known && d.ResendOf == 0 {
			taken, err := r.in.store.Queue.SizeTaken(ctx, r.in.sync.Destination.ID, d.Fingerprint.Size, d.DocumentID)
			if err != nil {
				return nil, fmt.Errorf("look for contents of a size: %w", err)
			}
			known = taken
		}
		if known {
			hash = append(hash, d)
		} else if d.ResendOf != 0 {
			d.sha, d.hashed = d.SHA256, true // compared with what is read while it is sent
		}
	}
	if len(hash) == 0 {
		return docs, nil
	}
	failed := make([]error, len(hash))
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range min(len(r.hashers), len(hash)) {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(hash) || ctx.Err() != nil {
					return
				}
				failed[i] = r.hash(ctx, hash[i], &r.hashers[worker])
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	settled := make(map[*document]bool)
	for i, err := range failed {
		d := hash[i]
		if err == nil && d.ResendOf != 0 && d.sha != d.SHA256 {
			err = state.ErrChanged
		}
		if err == nil {
			continue
		}
		settled[d] = true
		if err := r.unable(ctx, d, err); err != nil {
			return nil, err
		}
	}
	if len(settled) == 0 {
		return docs, nil
	}
	rest := make([]*document, 0, len(docs)-len(settled))
	for _, d := range docs {
		if !settled[d] {
			rest = append(rest, d)
		}
	}
	return rest, nil
}

// hash reads a document and sets its hash.
func (r *run) hash(ctx context.Context, d *document, h *hasher) error {
	f, err := r.in.root.Open(ctx, d.Key, d.Fingerprint)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written to it
	h.hash.Reset()
	var size int64
	for {
		n, err := io.ReadFull(f, h.buffer)
		size += int64(n)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if size > d.Fingerprint.Size {
			return state.ErrChanged // or a file that grows is read for ever
		}
		_, _ = h.hash.Write(h.buffer[:n]) // never fails
		if last && size == int64(n) && size <= keepSize {
			r.keep(d, h.buffer[:n])
		}
		if r.in.opts.Progress.Hashed != nil {
			r.in.opts.Progress.Hashed(int64(n))
		}
		if last {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if size != d.Fingerprint.Size {
		return state.ErrChanged
	}
	h.hash.Sum(d.sha[:0])
	d.hashed = true
	return nil
}

// keep holds a small content in memory, if there is room.
func (r *run) keep(d *document, content []byte) {
	if r.kept.Add(int64(len(content))) > keepTotal {
		r.kept.Add(-int64(len(content)))
		return
	}
	d.content = append(make([]byte, 0, len(content)), content...)
}

// drop lets the content go.
func (r *run) drop(d *document) {
	r.kept.Add(-int64(len(d.content)))
	d.content = nil
}

// unable settles a claimed document that could not be read.
func (r *run) unable(ctx context.Context, d *document, cause error) error {
	r.leave(d)
	var err error
	switch {
	case d.ResendOf != 0:
		// What was sent stays uncertain; what is there now is for the next scan to see.
		r.note(func(res *Result) { res.Changed++ })
		r.defers("changed after its upload became uncertain")
		err = r.in.store.Queue.Release(ctx, []state.ClaimedDocument{d.ClaimedDocument}, time.Now().Add(maxRetry), false)
	case isChanged(cause):
		r.note(func(res *Result) { res.Changed++ })
		r.defers("changed while it was read")
		err = r.in.store.Queue.Release(ctx, []state.ClaimedDocument{d.ClaimedDocument}, time.Now().Add(maxRetry), false)
	case errors.Is(cause, fs.ErrNotExist):
		r.note(func(res *Result) { res.Vanished++ })
		r.done(1, d.Fingerprint.Size)
		err = r.in.store.Queue.MarkVanished(ctx, d.ClaimedDocument)
	default:
		reason := cause.Error()
		r.note(func(res *Result) {
			res.Unreadable++
			res.Unread = appendFailure(res.Unread, Failure{Key: d.Key, Reason: reason})
		})
		r.done(1, d.Fingerprint.Size)
		err = r.in.store.Queue.MarkUnreadable(ctx, d.ClaimedDocument, reason)
	}
	if err != nil {
		return fmt.Errorf("settle an unread document: %w", err)
	}
	return nil
}

func isChanged(err error) bool {
	return errors.Is(err, state.ErrChanged) || errors.Is(err, replycx.ErrPartShort) || errors.Is(err, replycx.ErrPartLong)
}

// reader returns a reader of a document that is sent. At its end the hash is compared
// with the one known, or becomes known.
func (r *run) reader(ctx context.Context, d *document) (io.ReadCloser, error) {
	out := &sending{run: r, ctx: ctx, d: d}
	if d.content != nil {
		out.memory = d.content
		return out, nil
	}
	f, err := r.in.root.Open(ctx, d.Key, d.Fingerprint)
	if err != nil {
		return nil, err
	}
	out.file, out.hash = f, sha256.New()
	return out, nil
}

// sending reads a document that is sent, from its file or from memory.
type sending struct {
	run    *run
	ctx    context.Context
	d      *document
	memory []byte
	file   io.ReadCloser
	hash   hash.Hash
}

// Read reads as fast as the limit lets it.
func (s *sending) Read(p []byte) (int, error) {
	if s.run.limiter != nil {
		p = p[:min(len(p), s.run.limiter.Burst())]
	}
	var n int
	var err error
	if s.file == nil {
		n = copy(p, s.memory)
		if s.memory = s.memory[n:]; n == 0 && len(p) > 0 {
			return 0, io.EOF
		}
	} else {
		n, err = s.file.Read(p)
		_, _ = s.hash.Write(p[:n]) // never fails
	}
	if n > 0 {
		if s.run.limiter != nil {
			if err := s.run.limiter.WaitN(s.ctx, n); err != nil {
				return 0, cmp.Or(context.Cause(s.ctx), err)
			}
		}
		if sent := s.run.in.opts.Progress.Sent; sent != nil {
			sent(int64(n))
		}
	}
	if err == io.EOF && s.hash != nil {
		var sum state.SHA256
		s.hash.Sum(sum[:0])
		if s.d.hashed && s.d.sha != sum {
			return n, fmt.Errorf("other content than was hashed: %w", state.ErrChanged)
		}
		s.d.sha, s.d.hashed = sum, true
	}
	return n, err
}

// Close closes the file.
func (s *sending) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// newLimiter limits to so many bytes a second; nil for no limit.
func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond, 1<<10), bufferSize)))
}
