package ingest

import (
	"sync"

	"github.com/kbsync/kbsync/state"
)

// maxWaiting bounds the documents that wait for a content in flight. At that number the planner claims no more.
const maxWaiting = 2000

// inFlight is the set of batches, requests and contents that a run works on. A document whose content is in flight waits
// here until the batch with that content has ended.
type inFlight struct {
	cache *contentCache
	wake  wakeup

	mu           sync.Mutex
	batches      int
	requests     map[*request]struct{}
	contents     map[state.SHA256]int // documents in flight, by content
	waiting      map[state.SHA256][]*document
	waitingCount int         // of all documents in waiting
	again        []*document // to be resolved again
}

func newInFlight(cache *contentCache, wake wakeup) *inFlight {
	return &inFlight{
		cache:    cache,
		wake:     wake,
		requests: map[*request]struct{}{},
		contents: map[state.SHA256]int{},
		waiting:  map[state.SHA256][]*document{},
	}
}

// beginBatch counts a batch that is handed to a worker.
func (f *inFlight) beginBatch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches++
}

// endBatch ends the count of beginBatch and wakes the planner.
func (f *inFlight) endBatch() {
	f.mu.Lock()
	f.batches--
	f.mu.Unlock()
	f.wake.signal()
}

func (f *inFlight) addRequest(q *request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests[q] = struct{}{}
}

func (f *inFlight) removeRequest(q *request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.requests, q)
}

// abandonRequests abandons every request that is not being sealed.
func (f *inFlight) abandonRequests(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for q := range f.requests {
		q.abandon(cause)
	}
}

// add counts a hashed document's content as in flight.
func (f *inFlight) add(d *document) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addLocked(d)
}

func (f *inFlight) addLocked(d *document) {
	f.contents[d.sha]++
	d.inFlight = true
}

// addOrWait adds a hashed document and reports true. If its content is in flight already, the document waits for that
// batch instead.
func (f *inFlight) addOrWait(d *document) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.contents[d.sha] == 0 {
		f.addLocked(d)
		return true
	}
	f.cache.drop(d)
	f.waiting[d.sha] = append(f.waiting[d.sha], d)
	f.waitingCount++
	return false
}

// remove takes documents out of the set. Documents that waited for a content that is no longer in flight are to be
// resolved again.
func (f *inFlight) remove(docs ...*document) {
	if f.removeAndFree(docs) {
		f.wake.signal()
	}
}

// removeAndFree reports whether a waiting document was freed.
func (f *inFlight) removeAndFree(docs []*document) (freed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range docs {
		f.cache.drop(d)
		if !d.inFlight {
			continue
		}
		d.inFlight = false
		if f.contents[d.sha]--; f.contents[d.sha] > 0 {
			continue
		}
		delete(f.contents, d.sha)
		if waiting, ok := f.waiting[d.sha]; ok {
			f.again = append(f.again, waiting...)
			f.waitingCount -= len(waiting)
			delete(f.waiting, d.sha)
			freed = true
		}
	}
	return freed
}

// resolveAgain returns documents to the planner.
func (f *inFlight) resolveAgain(docs ...*document) {
	f.mu.Lock()
	f.again = append(f.again, docs...)
	f.mu.Unlock()
	f.wake.signal()
}

// takeAgain returns the documents to be resolved again and forgets them.
func (f *inFlight) takeAgain() []*document {
	f.mu.Lock()
	defer f.mu.Unlock()
	again := f.again
	f.again = nil
	return again
}

// takeAll returns all documents that wait or are to be resolved again, and forgets them.
func (f *inFlight) takeAll() []*document {
	f.mu.Lock()
	defer f.mu.Unlock()
	docs := f.again
	for _, waiting := range f.waiting {
		docs = append(docs, waiting...)
	}
	clear(f.waiting)
	f.waitingCount, f.again = 0, nil
	return docs
}

// counts returns the number of batches with the workers, and of documents to be resolved again.
func (f *inFlight) counts() (batches, again int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batches, len(f.again)
}

// isFull reports whether so many documents wait that no more are to be claimed. Without this bound the planner would claim
// every document of a root that has one content many times, since a batch never becomes full.
func (f *inFlight) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waitingCount >= maxWaiting
}

// A wakeup is a channel of size one that wakes the planner.
type wakeup chan struct{}

func (w wakeup) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}
