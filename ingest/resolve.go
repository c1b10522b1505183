package ingest

import (
	"context"

	"github.com/kbsync/kbsync/state"
)

// maxRounds is how often Seal may find a document's content known after Resolve had not, and how often Resolve may ask to
// verify a content, before the document is retried later.
const maxRounds = 5

// resolve asks the state which documents need an upload, and enqueues those, except the documents that must not be sent. A large
// document has no hash yet: the state decides on it when it is sealed.
func (p *planner) resolve(ctx context.Context, docs []*document) error {
	if err := p.resolveAll(ctx, docs); err != nil {
		p.blocked = nil // they are claimed still, as the others
		return err
	}
	return p.recordBlocked(ctx)
}

func (p *planner) resolveAll(ctx context.Context, docs []*document) error {
	var hashed []*document
	for _, d := range docs {
		if d.hashed {
			hashed = append(hashed, d)
		} else {
			p.enqueue(d)
		}
	}
	for range maxRounds {
		if len(hashed) == 0 {
			return nil
		}
		unverified, err := p.resolveHashed(ctx, hashed)
		if err != nil || len(unverified) == 0 {
			return err
		}
		if hashed, err = p.verify(ctx, unverified); err != nil {
			return err
		}
	}
	return p.retryLater(ctx, hashed, "its content's sources are missing and then are not")
}

// resolveHashed resolves documents once, and returns those whose content must be verified.
func (p *planner) resolveHashed(ctx context.Context, docs []*document) (left []unverified, err error) {
	hashed := make([]state.HashedDocument, len(docs))
	for i, d := range docs {
		hashed[i] = state.HashedDocument{
			ClaimedDocument: d.ClaimedDocument, SHA256: d.sha, Size: d.Fingerprint.Size, Core: d.core, Verified: d.verified,
		}
	}
	verdicts, err := p.queue.Resolve(ctx, p.sync.ID, hashed, p.opts.Sharing)
	if err != nil {
		return nil, err
	}
	shared, resaved, bytes := 0, 0, int64(0)
	for i, v := range verdicts {
		d := docs[i]
		if v.Resaved {
			p.logResaved(d, v.Action)
		}
		switch v.Action {
		case state.ActionUpload:
			p.enqueue(d)
		case state.ActionShare:
			if shared++; v.Resaved {
				resaved++
			}
			bytes += d.Fingerprint.Size
			p.cache.drop(d)
		case state.ActionLost:
			p.cache.drop(d)
		case state.ActionVerify:
			left = append(left, unverified{document: d, sources: v.Verify})
		}
	}
	if shared > 0 {
		p.report.update(func(res *Result) {
			res.Shared += shared - resaved
			res.Resaved += resaved
		})
		p.report.done(shared, bytes)
	}
	return left, nil
}

// logResaved logs that a document was saved again with only its metadata changed.
func (p *planner) logResaved(d *document, action state.Action) {
	if action == state.ActionUpload {
		p.opts.Logger.Warn("a document was saved again with only its metadata changed, and is uploaded", "sync", p.sync.Name, "key", d.Key)
		return
	}
	p.opts.Logger.Info("a document was saved again with only its metadata changed, so it is not uploaded", "sync", p.sync.Name, "key", d.Key)
}
