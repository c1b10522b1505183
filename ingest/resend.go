package ingest

import (
	"context"
	"time"

	"github.com/kbsync/kbsync/state"
)

// maxResends is how often one run claims an uncertain document.
const maxResends = 5

// resendAfter returns how long a content is uncertain before this run sends it again.
func (p *planner) resendAfter() time.Duration {
	if p.opts.HoldUncertain || p.resendsExhausted {
		return never
	}
	return p.opts.ResendAfter
}

// resend claims uncertain documents that are due to be sent again, and hands them to the workers. It reports whether it
// claimed any.
func (p *planner) resend(ctx context.Context) (claimed bool, err error) {
	if p.opts.HoldUncertain || p.resendsExhausted {
		return false, nil
	}
	uncertain, err := p.claim(func() ([]state.ClaimedDocument, error) {
		return p.queue.ClaimResends(ctx, p.sync.ID, p.opts.ResendAfter, p.opts.Documents)
	})
	if err != nil || len(uncertain) == 0 {
		return false, err
	}
	docs, err := p.admitResends(ctx, uncertain)
	if err != nil {
		return false, err
	}
	interrupted := p.throttle.interrupted(false)
	for len(docs) > 0 {
		n, _ := cut(docs, p.opts.Documents, p.limits.batchBytes(p.opts.Bytes))
		b := &batch{resendOf: docs[0].ResendOf}
		if !p.hand(b.with(docs[:n:n]), interrupted) {
			return true, p.release(ctx, docs, time.Time{})
		}
		docs = docs[n:]
	}
	return true, nil
}

// admitResends returns the documents that this run may send again: one of each content, each at most maxResends times. It
// releases the others.
func (p *planner) admitResends(ctx context.Context, docs []*document) ([]*document, error) {
	var admitted, others []*document
	contents := make(map[state.SHA256]bool)
	for _, d := range docs {
		p.resends[d.DocumentID]++
		if p.resends[d.DocumentID] > maxResends || contents[d.SHA256] {
			others = append(others, d)
			p.resendsExhausted = p.resendsExhausted || p.resends[d.DocumentID] > maxResends
			continue
		}
		contents[d.SHA256] = true
		admitted = append(admitted, d)
	}
	if err := p.release(ctx, others, time.Now().Add(p.opts.ResendAfter)); err != nil {
		return nil, err
	}
	admitted, err := p.prepare(ctx, admitted)
	if err != nil {
		return nil, err
	}
	for _, d := range admitted {
		p.inFlight.add(d)
	}
	return admitted, nil
}
