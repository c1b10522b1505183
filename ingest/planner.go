package ingest

import (
	"context"
	"time"

	"github.com/kbsync/kbsync/state"
)

const (
	// claimAtOnce is how many documents the planner claims at a time at most. Each claim waits for a commit.
	claimAtOnce = 1000
	// takeAtOnce is how many of them it hashes before it hands them to the workers.
	takeAtOnce = 200
	// minWait is the planner's shortest wait for a time that the state names.
	minWait = 20 * time.Millisecond
	// never is a ResendAfter that no uncertain document reaches.
	never = 100 * 365 * 24 * time.Hour
)

// A planner decides which documents a run claims, hashes and sends next. A run has one planner, and one goroutine uses it.
type planner struct {
	*run
	api       API
	breaker   breaker
	inventory *state.Inventory
	uploader  *uploader
	work      chan *batch // to the workers
	hashers   []hasher

	toSend           []*document   // in no batch yet
	blocked          []*document   // must not be sent; to be recorded
	inHand           []*document   // of the step under way; after a failed step they are claimed still
	resends          map[int64]int // how often this run claimed an uncertain document, by its id
	resendsExhausted bool          // a document was resent maxResends times: this run resends no more
	breakerProbes    int           // batches tried while the breaker was open
}

func newPlanner(in *Ingest, r *run, u *uploader) *planner {
	return &planner{
		run:       r,
		api:       in.api,
		breaker:   in.breaker,
		inventory: in.inventory,
		uploader:  u,
		work:      make(chan *batch, in.opts.Transfers),
		hashers:   newHashers(&in.opts, in.root, r.cache),
		resends:   map[int64]int{},
	}
}

// plan works until no document is due, or the run is stopped.
func (p *planner) plan(ctx context.Context) error {
	dest := p.sync.Destination.ID
	limits, err := p.breaker.Limits(ctx, dest)
	if err != nil {
		return err
	}
	p.limits.set(limits)
	streakAtStart, _, err := p.breaker.Breaker(ctx, dest)
	if err != nil {
		return err
	}
	for !p.throttle.isStopped() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if closed, err := p.closeBreaker(ctx, streakAtStart); err != nil || !closed {
			return err
		}
		if p.patienceExceeded() {
			return errPatience
		}
		if more, err := p.step(ctx); err != nil || !more {
			return err
		}
	}
	return nil
}

// step does the next thing: it resolves documents again, claims new ones, resends uncertain ones, sends an incomplete batch,
// or waits. more is false when nothing becomes due within the run's patience.
func (p *planner) step(ctx context.Context) (more bool, err error) {
	if again := p.inFlight.takeAgain(); len(again) > 0 {
		p.inHand = again
		return true, p.take(ctx, again)
	}
	if p.inFlight.isFull() {
		return p.sendRestOrWait(ctx)
	}
	claimed, err := p.claim(func() ([]state.ClaimedDocument, error) {
		return p.queue.Claim(ctx, p.sync.ID, p.claimLimit())
	})
	if err != nil {
		return false, err
	}
	if len(claimed) > 0 {
		return true, p.take(ctx, claimed)
	}
	if resent, err := p.resend(ctx); err != nil || resent {
		return true, err
	}
	return p.sendRestOrWait(ctx)
}

// claimLimit is how many documents to claim at a time. Processes that share the state share the documents.
func (p *planner) claimLimit() int {
	if !p.opts.Shared {
		return claimAtOnce
	}
	return min(takeAtOnce, 2*p.opts.Documents*p.opts.Transfers)
}

// claim claims the documents of the next step, through the gate.
func (p *planner) claim(from func() ([]state.ClaimedDocument, error)) ([]*document, error) {
	claimed, err := p.opts.Gate.claim(from)
	p.inHand = wrap(claimed)
	return p.inHand, err
}

// sendRestOrWait sends the documents that do not fill a batch, or waits if there are none.
func (p *planner) sendRestOrWait(ctx context.Context) (more bool, err error) {
	if len(p.toSend) > 0 {
		p.send(true)
		return true, nil
	}
	return p.wait(ctx)
}

// take hashes and resolves documents and sends the batches that are full. It takes large documents in pieces, so that the
// workers need not wait for all of them.
func (p *planner) take(ctx context.Context, docs []*document) error {
	for len(docs) > 0 {
		n, bytes := 0, int64(0)
		for n < min(len(docs), takeAtOnce) && (n < len(p.hashers) || bytes < hashAtOnce) {
			bytes += docs[n].Fingerprint.Size
			n++
		}
		piece := docs[:n]
		docs = docs[n:]
		if p.throttle.isInterrupted() {
			if err := p.release(ctx, piece, time.Time{}); err != nil {
				return err
			}
			continue
		}
		ready, err := p.prepare(ctx, piece)
		if err != nil {
			return err
		}
		if err := p.resolve(ctx, ready); err != nil {
			return err
		}
		p.send(false)
	}
	return nil
}

// enqueue adds a document to the ones to be sent, or to the ones that must not be. A document whose content is in flight waits
// for that batch instead.
func (p *planner) enqueue(d *document) {
	if d.blocked != "" {
		p.blocked = append(p.blocked, d)
		return
	}
	if d.hashed && !p.opts.Sharing.Each && !p.inFlight.addOrWait(d) {
		return
	}
	p.warn(d)
	p.toSend = append(p.toSend, d)
}

// send hands full batches to the workers, and with all the incomplete rest too. When the run is interrupted, toSend keeps
// the rest.
func (p *planner) send(all bool) {
	for {
		bytes, interrupted := p.limits.batchBytes(p.opts.Bytes), p.throttle.interrupted(false)
		n, total := cut(p.toSend, p.opts.Documents, bytes)
		incomplete := n == len(p.toSend) && n < p.opts.Documents && total < bytes
		if n == 0 || incomplete && !all {
			return
		}
		whole, wholeBytes := cut(p.toSend, p.opts.Documents, p.opts.Bytes)
		trial := p.limits.beginTrial(wholeBytes)
		if trial {
			n = whole
		}
		b := (&batch{}).with(append([]*document(nil), p.toSend[:n]...))
		b.trial = trial
		if !p.hand(b, interrupted) {
			return
		}
		p.toSend = append(p.toSend[:0], p.toSend[n:]...)
	}
}

// hand gives a batch to the workers. It returns false if the run is interrupted first.
func (p *planner) hand(b *batch, interrupted <-chan struct{}) bool {
	select {
	case <-interrupted:
		return false
	default:
	}
	p.inFlight.beginBatch()
	select {
	case p.work <- b:
		return true
	case <-interrupted:
		p.inFlight.endBatch()
		return false
	}
}

// wait waits for the workers, or for the next document to become due. more is false when nothing becomes due within the
// run's patience.
func (p *planner) wait(ctx context.Context) (more bool, err error) {
	// The batches are counted first: a batch that ends between the two has recorded its documents, and wakes the planner.
	batches, again := p.inFlight.counts()
	due, err := p.queue.NextDue(ctx, p.sync.ID, p.resendAfter())
	if err != nil {
		return false, err
	}
	patienceEnds := p.report.patienceEnds(p.opts.Patience)
	if p.opts.Gate.IsShut() {
		// No due document may be claimed. The end of a batch wakes the planner.
		return batches > 0 || again > 0, p.sleep(ctx, time.Second*time.Duration(min(batches, 1)))
	}
	if pauseEnds := p.throttle.pauseEnds(); pauseEnds.After(due) && !due.IsZero() {
		due = pauseEnds
	}
	switch {
	case again > 0:
		return true, nil
	case batches > 0 && due.IsZero():
		return true, p.sleep(ctx, time.Minute) // the end of a batch wakes the planner
	case batches > 0:
		return true, p.sleep(ctx, max(time.Until(due), minWait))
	case due.IsZero(), due.After(patienceEnds), time.Now().After(patienceEnds):
		return false, nil
	}
	return true, p.sleep(ctx, max(time.Until(due), minWait))
}

// sleep waits for d, or until something wakes the planner. It is not retry.SleepOrWake because two channels wake it:
// forwarding Options.Wake would consume values that belong to the next run.
func (p *planner) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.wake:
	case <-p.opts.Wake:
	case <-p.throttle.stopped:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// giveBack releases every document that no worker has. After an error it leaves them to giveBackAll.
func (p *planner) giveBack(ctx context.Context) error {
	docs := p.takeUnsent()
	p.inFlight.remove(docs...) // frees documents that waited
	docs = append(docs, p.inFlight.takeAll()...)
	err := p.release(ctx, docs, time.Time{})
	if err != nil {
		p.inHand = append(p.inHand, docs...)
	}
	return err
}

// giveBackAll releases every claim that the run still has, when no worker runs any more. It works for a short time even after
// the end of ctx.
func (p *planner) giveBackAll(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), persistAfterCut)
		defer cancel()
	}
	if err := p.giveBack(ctx); err != nil {
		return err
	}
	// A failed step has left its documents. Those of them that have an outcome are not claimed any more, and stay as they are.
	return p.release(ctx, p.inHand, time.Time{})
}

// takeUnsent returns the documents to be sent and those of the batches that no worker has taken.
func (p *planner) takeUnsent() []*document {
	docs := p.toSend
	p.toSend = nil
	for {
		select {
		case b, ok := <-p.work:
			if !ok {
				return docs
			}
			docs = append(docs, b.docs...)
			p.inFlight.endBatch()
		default:
			return docs
		}
	}
}
