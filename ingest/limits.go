package ingest

import (
	"sync"
	"time"

	"github.com/kbsync/kbsync/state"
)

// limitLasts is how long a 413 is obeyed before one larger request tries whether the limit is still there.
const limitLasts = time.Hour

// sizeLimits are the bytes of contents that the API is known to accept in one request, and to refuse with a 413.
type sizeLimits struct {
	mu        sync.Mutex
	largest   int64     // accepted
	smallest  int64     // refused as too large; 0 if none was
	refusedAt time.Time // of the last 413, or of the last trial
}

// set replaces the limits by those of the state.
func (l *sizeLimits) set(limits state.Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.largest, l.smallest, l.refusedAt = limits.LargestAccepted, limits.SmallestRefused, limits.RefusedAt
}

// accepted records an accepted request with so many bytes. It ends the limit if the API refused as many before.
func (l *sizeLimits) accepted(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.largest = max(l.largest, bytes)
	if l.smallest > 0 && bytes >= l.smallest {
		l.smallest = 0
	}
}

// refused records a 413 of a request with so many bytes.
func (l *sizeLimits) refused(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusedAt = time.Now()
	if l.smallest == 0 || bytes < l.smallest {
		l.smallest = bytes
	}
}

// tooLarge reports whether the API refused a request of that size or a smaller one.
func (l *sizeLimits) tooLarge(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.smallest > 0 && bytes >= l.smallest
}

// batchBytes returns the bytes that a batch may have: most or, below a refused size, the largest accepted one or half of
// the refused one. A size just below the refused one would likely be refused too.
func (l *sizeLimits) batchBytes(most int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.smallest == 0 {
		return most
	}
	limit := max(l.smallest/2, 1)
	if l.largest < l.smallest {
		limit = max(limit, l.largest)
	}
	return min(most, limit)
}

// beginTrial reports whether a batch of that size should try whether the limit is still there, and counts it as the trial:
// one in each limitLasts after the last 413. The client sends a large body only after the server has asked for it, so a
// refused trial is cheap.
func (l *sizeLimits) beginTrial(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.smallest == 0 || bytes < l.smallest || time.Since(l.refusedAt) < limitLasts {
		return false
	}
	l.refusedAt = time.Now()
	return true
}

// aboveAccepted reports whether the API has accepted a request, but none of that size.
func (l *sizeLimits) aboveAccepted(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.largest > 0 && bytes > l.largest
}
