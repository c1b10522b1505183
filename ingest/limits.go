package ingest

import "sync"

// sizeLimits are the bytes of contents that the API is known to accept in one request, and to refuse with a 413.
type sizeLimits struct {
	mu       sync.Mutex
	largest  int64 // accepted
	smallest int64 // refused as too large; 0 if none was
}

// set replaces the limits by those of the state.
func (l *sizeLimits) set(largestAccepted, smallestRefused int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.largest, l.smallest = largestAccepted, smallestRefused
}

func (l *sizeLimits) accepted(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.largest = max(l.largest, bytes)
}

// refused records a 413 of a request with so many bytes.
func (l *sizeLimits) refused(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
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

// batchBytes returns the bytes that a batch may have: most, or less if the API refused as many.
func (l *sizeLimits) batchBytes(most int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.smallest > 0 {
		return min(most, l.smallest-1)
	}
	return most
}

// aboveAccepted reports whether the API has accepted a request, but none of that size.
func (l *sizeLimits) aboveAccepted(bytes int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.largest > 0 && bytes > l.largest
}
