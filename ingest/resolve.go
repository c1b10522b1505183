package ingest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// maxRounds is how often Seal may find a document's content known after Resolve had not, and how often Resolve may ask to
// verify a content, before the document is retried later.
const maxRounds = 5

// resolve asks the state which documents need an upload, and enqueues those. A large document has no hash yet: the state
// decides on it when it is sealed.
func (p *planner) resolve(ctx context.Context, docs []*document) error {
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
		hashed = make([]*document, len(unverified))
		for i, u := range unverified {
			hashed[i] = u.document
		}
		if more, err := p.verify(ctx, unverified); err != nil || !more {
			return err
		}
	}
	return p.retryLater(ctx, hashed, "its content's sources are missing and then are not")
}

// unverified is a document whose content was left behind. It may share the content only if the sources still exist.
type unverified struct {
	*document
	sources []int64
}

// resolveHashed resolves documents once, and returns those whose content must be verified.
func (p *planner) resolveHashed(ctx context.Context, docs []*document) (left []unverified, err error) {
	hashed := make([]state.HashedDocument, len(docs))
	for i, d := range docs {
		hashed[i] = state.HashedDocument{
			ClaimedDocument: d.ClaimedDocument, SHA256: d.sha, Size: d.Fingerprint.Size, Verified: d.verified,
		}
	}
	verdicts, err := p.queue.Resolve(ctx, p.sync.ID, hashed, p.opts.Sharing)
	if err != nil {
		return nil, err
	}
	shared, bytes := 0, int64(0)
	for i, v := range verdicts {
		d := docs[i]
		switch v.Action {
		case state.ActionUpload:
			p.enqueue(d)
		case state.ActionShare:
			shared++
			bytes += d.Fingerprint.Size
			p.cache.drop(d)
		case state.ActionLost:
			p.cache.drop(d)
		case state.ActionVerify:
			left = append(left, unverified{document: d, sources: v.Verify})
		}
	}
	if shared > 0 {
		p.report.update(func(res *Result) { res.Shared += shared })
		p.report.done(shared, bytes)
	}
	return left, nil
}

// verify asks whether the left-behind sources of contents still exist, and marks the others as gone. more is false if the
// API did not answer, and the documents were given back.
func (p *planner) verify(ctx context.Context, left []unverified) (more bool, err error) {
	docs := make([]*document, len(left))
	var ids []int64
	for i, u := range left {
		docs[i] = u.document
		ids = append(ids, u.sources...)
	}
	exists, err := p.sourcesExist(ctx, ids)
	if err != nil {
		if classify(err, false).kind == outcomeFatal {
			return false, errors.Join(&FatalError{Err: err}, p.release(ctx, docs, time.Time{}))
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, p.retryLater(ctx, docs, err.Error())
	}
	var gone []int64
	for _, u := range left {
		u.verified = true
		for _, id := range u.sources {
			if !exists[id] {
				u.verified = false
				gone = append(gone, id)
			}
		}
	}
	if len(gone) == 0 {
		return true, nil
	}
	slices.Sort(gone)
	_, err = p.inventory.MarkSourcesGone(ctx, p.sync.Destination.ID, slices.Compact(gone))
	return err == nil, err
}

// sourcesExist returns which sources the API knows. An answer may lack a source by mistake, and a content whose source is
// gone is uploaded again. So a missing source is asked for once more, alone.
func (p *planner) sourcesExist(ctx context.Context, ids []int64) (map[int64]bool, error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	exists := make(map[int64]bool, len(ids))
	ask := func(ids []int64) error {
		p.report.update(func(res *Result) { res.Asked++ })
		statuses, err := p.api.SourceStatus(ctx, ids)
		for _, s := range statuses {
			exists[s.ID] = true
		}
		return err
	}
	for chunk := range slices.Chunk(ids, replycx.MaxStatusIDs) {
		if err := ask(chunk); err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		if exists[id] {
			continue
		}
		err := ask([]int64{id})
		if e, ok := errors.AsType[*replycx.Error](err); ok && e.FromAPI && e.StatusCode == http.StatusNotFound && e.Class() == replycx.ClassNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return exists, nil
}
