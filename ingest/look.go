package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
)

// A look is what a document looked like before its upload.
type look struct {
	toHash   bool // the hasher is to hash the document
	looked   bool
	core     state.SHA256 // zero if it has none, or if it was not asked for
	blocked  string       // why it must not be sent; empty if it may be
	warnings []string     // to be logged when it is sent
	// charset is the encoding from which the document is decoded for its upload, and decoded its size in UTF-8. Empty if it is sent
	// as it is. Its hash is always that of the file.
	charset string
	decoded int64
	isText  bool // it is sent as a text field
}

// looks reports whether documents must be looked at before their upload.
func (o *Options) looks() bool { return o.Preflight.Looks() || o.SendText || o.Transcode }

// hasCore reports whether a document may have a core that the run needs.
func (o *Options) hasCore(d *document) bool {
	return o.Cores && preflight.HasCore(d.Key, d.Fingerprint.Size)
}

// lookAt looks at a content in memory.
func (h *hasher) lookAt(content []byte, d *document) {
	if h.opts.hasCore(d) {
		d.core, _ = preflight.Core(d.Key, content)
	}
	if !h.opts.looks() || d.looked {
		return
	}
	report := preflight.LookWhole(d.Key, content)
	toText := h.opts.SendText && textFormat(d.Key)
	policy := h.opts.Preflight
	if report.Charset != "" && (toText || h.opts.Transcode) {
		if text, err := preflight.Decode(report.Charset, content); err == nil {
			policy.Transcoded = true
			d.charset, d.decoded = report.Charset, int64(len(text))
			if len(text) <= keepSize {
				h.cache.keep(d, text)
			}
		}
	}
	d.isText = toText && (d.charset != "" || utf8.Valid(content))
	d.blocked, d.warnings = policy.Judge(report)
	d.looked = true
}

// lookInto looks at a few parts of a document that is not in memory.
func (h *hasher) lookInto(f io.Reader, d *document) error {
	content, ok := f.(io.ReaderAt)
	if !ok || !h.opts.looks() || d.looked {
		return nil
	}
	report, err := preflight.Look(d.Key, d.Fingerprint.Size, content)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", state.ErrChanged, err)
	}
	if err != nil {
		return err
	}
	d.blocked, d.warnings = h.opts.Preflight.Judge(report)
	d.looked = true
	return nil
}

// decodedContent reads a document as UTF-8, and closes it.
func decodedContent(f io.ReadCloser, d *document) ([]byte, error) {
	defer f.Close() // only read
	content, err := io.ReadAll(io.LimitReader(f, d.Fingerprint.Size+1))
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(content) != d.sha {
		return nil, fmt.Errorf("content differs from the hashed one: %w", state.ErrChanged)
	}
	return preflight.Decode(d.charset, content)
}

// recordBlocked ends the claims of the documents that must not be sent.
func (p *planner) recordBlocked(ctx context.Context) error {
	docs := p.blocked
	p.blocked = nil
	if len(docs) == 0 {
		return nil
	}
	reasons := make([]string, len(docs))
	var bytes int64
	for i, d := range docs {
		reasons[i] = d.blocked
		bytes += d.Fingerprint.Size
		p.opts.Logger.Warn("a document is not sent", "sync", p.sync.Name, "key", d.Key, "reason", d.blocked)
	}
	p.inFlight.remove(docs...)
	if err := p.queue.Block(ctx, unwrap(docs), reasons); err != nil {
		return err
	}
	p.report.update(func(res *Result) { res.Blocked += len(docs) })
	p.report.done(len(docs), bytes)
	return nil
}

// warn logs what is odd about a document that is to be sent, once.
func (p *planner) warn(d *document) {
	if len(d.warnings) == 0 {
		return
	}
	for _, w := range d.warnings {
		p.opts.Logger.Warn("a document may train badly", "sync", p.sync.Name, "key", d.Key, "reason", w)
	}
	d.warnings = nil
	p.report.update(func(res *Result) { res.Warned++ })
}
