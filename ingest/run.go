package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

const (
	// claimAtOnce is how many documents are claimed at a time.
	claimAtOnce = 200
	// mostParked is how many documents wait for a content that is on its way before no more are claimed.
	mostParked = 2000
	// statusAtOnce is how many sources one status request asks for.
	statusAtOnce = 100
	// maxRounds is how often a document may turn out to be known when its batch is
	// sealed, and to be unknown when it is looked up, before it waits.
	maxRounds = 5
	// maxResends is how often one run takes up an uncertain document.
	maxResends = 5
	// maxListed bounds the lists of a Result.
	maxListed = 100
	// never is a ResendAfter that no uncertain document reaches.
	never = 100 * 365 * 24 * time.Hour
)

// errHeld ends a run whose destination does not take uploads for longer than the
// run's patience. It is not returned.
var errHeld = errors.New("the API asked to wait")

// A run is one call of Run. plan is its only planner: it claims, hashes, resolves and
// composes; the workers send.
type run struct {
	in      *Ingest
	work    chan *batch
	slots   chan struct{} // one a transfer
	limiter *rate.Limiter
	hashers []hasher
	kept    atomic.Int64 // bytes of contents in memory
	stopped chan struct{}
	wake    chan struct{} // of size one: something for the planner

	// Of the planner alone.
	queue   []*document   // to be sent, not yet in a batch
	resends map[int64]int // how often an uncertain document was taken up, by id
	noMore  bool          // no more documents are sent again in this run
	probes  int           // batches tried while the breaker was open

	mu         sync.Mutex
	result     Result
	cause      error // why the run stops
	broken     bool  // the breaker is open
	interrupt  chan struct{}
	requests   map[*request]struct{} // those on their way
	open       int                   // batches with the workers
	carried    map[state.SHA256]int  // contents on their way
	parked     map[state.SHA256][]*document
	crowd      int         // of all that are parked
	back       []*document // to be resolved again
	progress   time.Time   // the last one
	heldUntil  time.Time   // no request begins before
	busy       int         // requests refused for now since the last accepted one
	lastErr    error       // the last failed request's
	transfer   int64       // bytes of contents of all requests
	refusals   []int64     // documents refused alone, one after the other, with refusalCode
	refusedFor string
	largest    int64 // request accepted, and
	smallest   int64 // refused as too large; 0 if none was
}

func newRun(in *Ingest) *run {
	r := &run{
		in:        in,
		work:      make(chan *batch, in.opts.Transfers),
		slots:     make(chan struct{}, in.opts.Transfers),
		limiter:   newLimiter(in.opts.BytesPerSecond),
		hashers:   make([]hasher, in.opts.Checkers),
		stopped:   make(chan struct{}),
		wake:      make(chan struct{}, 1),
		resends:   map[int64]int{},
		interrupt: make(chan struct{}),
		requests:  map[*request]struct{}{},
		carried:   map[state.SHA256]int{},
		parked:    map[state.SHA256][]*document{},
		progress:  time.Now(),
	}
	for i := range r.hashers {
		r.hashers[i] = hasher{buffer: make([]byte, bufferSize), hash: sha256.New()}
	}
	return r
}

// stop ends the run for the first cause it is given. No request begins any more; those
// that are not sealed are given up if abandon is set.
func (r *run) stop(cause error, abandon bool) {
	r.mu.Lock()
	first := r.cause == nil
	if first {
		r.cause = cause
		close(r.stopped)
		r.interruptLocked()
	}
	if abandon {
		r.abandonLocked(errAbandoned)
	}
	r.mu.Unlock()
	r.signal()
}

// halt keeps everything from being sealed until the breaker is closed.
func (r *run) halt() {
	r.mu.Lock()
	if !r.broken {
		r.broken = true
		r.interruptLocked()
	}
	r.abandonLocked(errAbandoned)
	r.mu.Unlock()
	r.signal()
}

// resume is called by the planner when the breaker is closed and no worker is busy.
func (r *run) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = false
	if r.cause == nil {
		r.interrupt = make(chan struct{})
	}
}

func (r *run) interruptLocked() {
	select {
	case <-r.interrupt:
	default:
		close(r.interrupt)
	}
}

func (r *run) abandonLocked(cause error) {
	for req := range r.requests {
		req.abandon(cause)
	}
}

func (r *run) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *run) isStopped() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return false
	}
}

// note changes the result.
func (r *run) note(change func(*Result)) {
	r.mu.Lock()
	change(&r.result)
	r.mu.Unlock()
}

func appendFailure(list []Failure, f Failure) []Failure {
	if len(list) < maxListed {
		list = append(list, f)
	}
	return list
}

// defers notes why documents were left for later.
func (r *run) defers(why string) {
	r.mu.Lock()
	r.result.Why = why
	r.mu.Unlock()
}

// done tells of documents that need nothing more, which is progress.
func (r *run) done(documents int, bytes int64) {
	r.mu.Lock()
	r.progress = time.Now()
	r.mu.Unlock()
	if r.in.opts.Progress.Done != nil {
		r.in.opts.Progress.Done(documents, bytes)
	}
}

// deadline is when the run's patience ends.
func (r *run) deadline() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress.Add(r.in.opts.Patience)
}

// delay is how long a document or a request waits after so many failed attempts.
func delay(attempts int) time.Duration {
	return max(retryDelay(attempts, rand.Float64()), 50*time.Millisecond)
}

// plan works off what is due until nothing is, or the run is stopped.
func (r *run) plan(ctx context.Context) error {
	dest := r.in.sync.Destination.ID
	largest, smallest, err := r.in.store.Journal.Limits(ctx, dest)
	if err != nil {
		return fmt.Errorf("read limits: %w", err)
	}
	r.largest, r.smallest = largest, smallest
	atStart, _, err := r.in.store.Journal.Breaker(ctx, dest)
	if err != nil {
		return fmt.Errorf("read breaker: %w", err)
	}
	for !r.isStopped() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if closed, err := r.mend(ctx, atStart); err != nil || !closed {
			return err
		}
		if r.hopeless() {
			return errHeld
		}
		if back := r.takeBack(); len(back) > 0 {
			if err := r.take(ctx, back); err != nil {
				return err
			}
			continue
		}
		if r.isCrowded() {
			if len(r.queue) > 0 {
				r.send(true)
			} else if more, err := r.wait(ctx); err != nil || !more {
				return err
			}
			continue
		}
		claimed, err := r.in.opts.Gate.claim(func() ([]state.ClaimedDocument, error) { return r.in.store.Queue.Claim(ctx, r.in.sync.ID, claimAtOnce) })
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		if len(claimed) > 0 {
			if err := r.take(ctx, wrap(claimed)); err != nil {
				return err
			}
			continue
		}
		if again, err := r.resend(ctx); err != nil {
			return err
		} else if again {
			continue
		}
		if len(r.queue) > 0 {
			r.send(true)
			continue
		}
		if more, err := r.wait(ctx); err != nil || !more {
			return err
		}
	}
	return nil
}

func wrap(claimed []state.ClaimedDocument) []*document {
	block := make([]document, len(claimed))
	docs := make([]*document, len(claimed))
	for i := range claimed {
		block[i].ClaimedDocument = claimed[i]
		docs[i] = &block[i]
	}
	return docs
}

func bare(docs []*document) []state.ClaimedDocument {
	out := make([]state.ClaimedDocument, len(docs))
	for i, d := range docs {
		out[i] = d.ClaimedDocument
	}
	return out
}

// take hashes and resolves documents and sends the batches that are full. What is
// large comes in pieces, so that the workers need not wait for all of it.
func (r *run) take(ctx context.Context, docs []*document) error {
	for len(docs) > 0 {
		n, bytes := 0, int64(0)
		for n < len(docs) && (n < len(r.hashers) || bytes < hashAtOnce) {
			bytes += docs[n].Fingerprint.Size
			n++
		}
		piece := docs[:n]
		docs = docs[n:]
		if r.isInterrupted() {
			if err := r.release(ctx, piece, time.Time{}); err != nil {
				return err
			}
			continue
		}
		ready, err := r.prepare(ctx, piece)
		if err != nil {
			return err
		}
		if err := r.resolve(ctx, ready); err != nil {
			return err
		}
		r.send(false)
	}
	return nil
}

func (r *run) isInterrupted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause != nil || r.broken
}

// release gives documents back as pending; they are not to blame.
func (r *run) release(ctx context.Context, docs []*document, nextAttempt time.Time) error {
	if len(docs) == 0 {
		return nil
	}
	r.leave(docs...)
	if err := r.in.store.Queue.Release(ctx, bare(docs), nextAttempt, false); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// postpone gives documents back as pending after a failed attempt.
func (r *run) postpone(ctx context.Context, docs []*document, why string) error {
	if len(docs) == 0 {
		return nil
	}
	r.leave(docs...)
	r.defers(why)
	if err := r.in.store.Queue.Release(ctx, bare(docs), time.Now().Add(delay(attempts(docs))), true); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

func attempts(docs []*document) int {
	most := 0
	for _, d := range docs {
		most = max(most, d.Attempts)
	}
	return most
}

// resolve asks the state what is to be done with documents, and puts those to be sent
// into the queue.
func (r *run) resolve(ctx context.Context, docs []*document) error {
	var hashed []*document
	for _, d := range docs {
		if d.hashed {
			hashed = append(hashed, d)
		} else {
			r.enqueue(d)
		}
	}
	for range maxRounds {
		if len(hashed) == 0 {
			return nil
		}
		ask := make([]state.HashedDocument, len(hashed))
		for i, d := range hashed {
			ask[i] = state.HashedDocument{ClaimedDocument: d.ClaimedDocument, SHA256: d.sha, Size: d.Fingerprint.Size, Verified: d.verified}
		}
		verdicts, err := r.in.store.Queue.Resolve(ctx, r.in.sync.ID, ask, r.in.opts.Sharing)
		if err != nil {
			return fmt.Errorf("resolve: %w", err)
		}
		var left []*document
		var ids []int64
		needs := make(map[*document][]int64)
		shared, bytes := 0, int64(0)
		for i, v := range verdicts {
			d := hashed[i]
			switch v.Action {
			case state.ActionUpload:
				r.enqueue(d)
			case state.ActionShare:
				shared++
				bytes += d.Fingerprint.Size
				r.drop(d)
			case state.ActionLost:
				r.drop(d)
			case state.ActionVerify:
				left = append(left, d)
				needs[d] = v.Verify
				ids = append(ids, v.Verify...)
			}
		}
		if shared > 0 {
			r.note(func(res *Result) { res.Shared += shared })
			r.done(shared, bytes)
		}
		if len(left) == 0 {
			return nil
		}
		seen, err := r.ask(ctx, ids)
		if err != nil {
			if j := judge(err, false); j.outcome == outcomeFatal {
				return errors.Join(&FatalError{Err: err}, r.release(ctx, left, time.Time{}))
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return r.postpone(ctx, left, err.Error())
		}
		var gone []int64
		for _, d := range left {
			d.verified = true
			for _, id := range needs[d] {
				if !seen[id] {
					d.verified = false
					gone = append(gone, id)
				}
			}
		}
		if len(gone) > 0 {
			slices.Sort(gone)
			if _, err := r.in.store.Inventory.MarkSourcesGone(ctx, r.in.sync.Destination.ID, slices.Compact(gone)); err != nil {
				return fmt.Errorf("note sources that are gone: %w", err)
			}
		}
		hashed = left
	}
	return r.postpone(ctx, hashed, "the sources of its content come and go")
}

// ask says which sources there are. Nobody documents how many ids a request may have at most, and an answer may lack one by mistake:
// what is missing is asked for once more, alone, for whatever is taken for gone is uploaded again.
func (r *run) ask(ctx context.Context, ids []int64) (map[int64]bool, error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	seen := make(map[int64]bool, len(ids))
	for chunk := range slices.Chunk(ids, statusAtOnce) {
		r.note(func(res *Result) { res.Asked++ })
		statuses, err := r.in.api.SourceStatus(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, s := range statuses {
			seen[s.ID] = true
		}
	}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		r.note(func(res *Result) { res.Asked++ })
		statuses, err := r.in.api.SourceStatus(ctx, []int64{id})
		if e, ok := errors.AsType[*replycx.Error](err); ok && e.FromAPI && e.StatusCode == http.StatusNotFound && !fatalCode(e) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range statuses {
			seen[s.ID] = true
		}
	}
	return seen, nil
}

// enqueue puts a document into the queue, or lets it wait for the batch that carries
// its content already.
func (r *run) enqueue(d *document) {
	if d.hashed && !r.in.opts.Sharing.Each {
		r.mu.Lock()
		if r.carried[d.sha] > 0 {
			r.drop(d)
			r.parked[d.sha] = append(r.parked[d.sha], d)
			r.crowd++
			r.mu.Unlock()
			return
		}
		r.carried[d.sha]++
		d.carried = true
		r.mu.Unlock()
	}
	r.queue = append(r.queue, d)
}

// leave takes documents off the contents on their way: what waited for them is to be
// resolved again.
func (r *run) leave(docs ...*document) {
	freed := false
	r.mu.Lock()
	for _, d := range docs {
		r.drop(d)
		if !d.carried {
			continue
		}
		d.carried = false
		if r.carried[d.sha]--; r.carried[d.sha] > 0 {
			continue
		}
		delete(r.carried, d.sha)
		if waiting, ok := r.parked[d.sha]; ok {
			r.back = append(r.back, waiting...)
			r.crowd -= len(waiting)
			delete(r.parked, d.sha)
			freed = true
		}
	}
	r.mu.Unlock()
	if freed {
		r.signal()
	}
}

// isCrowded says whether so many documents wait for a content that is on its way that no more are to be taken up: where there are no
// others but twins, a batch would not become full before all of them are.
func (r *run) isCrowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.crowd >= mostParked
}

func (r *run) takeBack() []*document {
	r.mu.Lock()
	defer r.mu.Unlock()
	back := r.back
	r.back = nil
	return back
}

// send hands full batches of the queue to the workers, and if all is set what is left
// as well. It stops when the run is interrupted; the queue then keeps the rest.
func (r *run) send(all bool) {
	for {
		r.mu.Lock()
		bytes, interrupt := r.in.opts.Bytes, r.interrupt
		if r.smallest > 0 {
			bytes = min(bytes, r.smallest-1)
		}
		r.mu.Unlock()
		n, total := cut(r.queue, r.in.opts.Documents, bytes)
		if n == 0 || n == len(r.queue) && !all && n < r.in.opts.Documents && total < bytes {
			return
		}
		b := &batch{docs: slices.Clone(r.queue[:n]), bytes: total}
		if !r.hand(b, interrupt) {
			return
		}
		r.queue = append(r.queue[:0], r.queue[n:]...)
	}
}

// cut says how many documents from the first make a batch, and their bytes. One that
// is larger than a batch makes one alone.
func cut(docs []*document, documents int, bytes int64) (n int, total int64) {
	for n < len(docs) && n < documents {
		size := docs[n].Fingerprint.Size
		if n > 0 && total+size > bytes {
			break
		}
		total += size
		n++
	}
	return n, total
}

// hand gives a batch to the workers, unless the run is interrupted first.
func (r *run) hand(b *batch, interrupt <-chan struct{}) bool {
	select {
	case <-interrupt:
		return false
	default:
	}
	r.mu.Lock()
	r.open++
	r.mu.Unlock()
	select {
	case r.work <- b:
		return true
	case <-interrupt:
		r.mu.Lock()
		r.open--
		r.mu.Unlock()
		return false
	}
}

// resend takes up uncertain documents that are to be sent once more.
func (r *run) resend(ctx context.Context) (again bool, err error) {
	if r.in.opts.HoldUncertain || r.noMore {
		return false, nil
	}
	claimed, err := r.in.opts.Gate.claim(func() ([]state.ClaimedDocument, error) {
		return r.in.store.Queue.ClaimResends(ctx, r.in.sync.ID, r.in.opts.ResendAfter, r.in.opts.Documents)
	})
	if err != nil || len(claimed) == 0 {
		if err != nil {
			err = fmt.Errorf("claim uncertain documents: %w", err)
		}
		return false, err
	}
	docs, err := r.admitResends(ctx, wrap(claimed))
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	interrupt := r.interrupt
	r.mu.Unlock()
	for len(docs) > 0 {
		n, total := cut(docs, r.in.opts.Documents, r.in.opts.Bytes)
		if !r.hand(&batch{docs: docs[:n:n], bytes: total, resendOf: docs[0].ResendOf}, interrupt) {
			return true, r.release(ctx, docs, time.Time{})
		}
		docs = docs[n:]
	}
	return true, nil
}

// admitResends returns those documents that can be sent again: one a content, and not
// too often a run.
func (r *run) admitResends(ctx context.Context, docs []*document) ([]*document, error) {
	var admitted, others []*document
	contents := make(map[state.SHA256]bool)
	for _, d := range docs {
		r.resends[d.DocumentID]++
		if r.resends[d.DocumentID] > maxResends || contents[d.SHA256] {
			others = append(others, d)
			r.noMore = r.noMore || r.resends[d.DocumentID] > maxResends
			continue
		}
		contents[d.SHA256] = true
		admitted = append(admitted, d)
	}
	if err := r.release(ctx, others, time.Now().Add(r.in.opts.ResendAfter)); err != nil {
		return nil, err
	}
	admitted, err := r.prepare(ctx, admitted)
	if err != nil {
		return nil, err
	}
	for _, d := range admitted {
		r.mu.Lock()
		r.carried[d.sha]++
		d.carried = true
		r.mu.Unlock()
	}
	return admitted, nil
}

// wait waits for the workers, or for what becomes due; more is false when nothing does
// within the run's patience.
func (r *run) wait(ctx context.Context) (more bool, err error) {
	after := r.in.opts.ResendAfter
	if r.in.opts.HoldUncertain || r.noMore {
		after = never
	}
	due, err := r.in.store.Queue.NextDue(ctx, r.in.sync.ID, after)
	if err != nil {
		return false, fmt.Errorf("look for what becomes due: %w", err)
	}
	r.mu.Lock()
	open, back, held := r.open, len(r.back), r.heldUntil
	r.mu.Unlock()
	deadline := r.deadline()
	if r.in.opts.Gate.IsShut() {
		// What is due must not be taken up. A batch that ends wakes.
		return open > 0 || back > 0, r.sleep(ctx, time.Second*time.Duration(min(open, 1)))
	}
	if held.After(due) && !due.IsZero() {
		due = held
	}
	switch {
	case back > 0:
		return true, nil
	case open > 0 && due.IsZero():
		return true, r.sleep(ctx, time.Minute) // a batch that ends wakes
	case open > 0:
		return true, r.sleep(ctx, max(time.Until(due), 20*time.Millisecond))
	case due.IsZero(), due.After(deadline), time.Now().After(deadline):
		return false, nil
	}
	return true, r.sleep(ctx, max(time.Until(due), 20*time.Millisecond))
}

// hopeless says whether the destination takes nothing for longer than the run's
// patience.
func (r *run) hopeless() bool {
	deadline := r.deadline()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	return r.heldUntil.After(now) && r.heldUntil.After(deadline) || r.busy >= 3 && now.After(deadline)
}

// sleep waits, but no longer than until something is to be done.
func (r *run) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.wake:
	case <-r.in.opts.Wake:
	case <-r.stopped:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// giveBack releases everything that the planner still has. What cannot be released is
// given back by the next holder of the lock.
func (r *run) giveBack(ctx context.Context) {
	var docs []*document
	for drained := false; !drained; {
		select {
		case b, ok := <-r.work:
			if !ok {
				drained = true
				break
			}
			docs = append(docs, b.docs...)
			r.ended()
		default:
			drained = true
		}
	}
	docs = append(docs, r.queue...)
	r.queue = nil
	if err := r.release(ctx, docs, time.Time{}); err != nil {
		r.in.opts.Logger.Debug("documents stay claimed until the next run", "error", err)
	}
	docs = r.takeBack()
	r.mu.Lock()
	for sha, waiting := range r.parked {
		docs = append(docs, waiting...)
		delete(r.parked, sha)
	}
	r.crowd = 0
	r.mu.Unlock()
	if err := r.release(ctx, docs, time.Time{}); err != nil {
		r.in.opts.Logger.Debug("documents stay claimed until the next run", "error", err)
	}
}

// ended notes that a worker is done with a batch.
func (r *run) ended() {
	r.mu.Lock()
	r.open--
	r.mu.Unlock()
	r.signal()
}

// conclude makes the result complete.
func (r *run) conclude(ctx context.Context) (Result, error) {
	r.mu.Lock()
	result, cause := r.result, r.cause
	r.mu.Unlock()
	if errors.Is(cause, errHeld) {
		cause = nil
	}
	left, err := r.in.store.Documents.Outstanding(context.WithoutCancel(ctx), r.in.sync.ID)
	if err != nil && cause == nil {
		return result, fmt.Errorf("count what is left: %w", err)
	}
	result.Deferred = left[state.Pending] + left[state.Uploading]
	if result.Deferred == 0 {
		result.Why = ""
	}
	return result, cause
}
