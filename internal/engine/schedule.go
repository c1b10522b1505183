package engine

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/watcher"
)

// The bounds of the delays before another attempt.
const (
	minDelay         = time.Second
	maxDelay         = time.Minute
	fatalDelay       = 5 * time.Minute // for a cause that a person has to remove: the token, the knowledge base, a quota
	guardDelay       = 30 * time.Second
	missingRootDelay = 10 * time.Second
)

// A scanSchedule decides what the scan loop scans, and when. Its methods are functions of the time and of the results of scans.
type scanSchedule struct {
	again    []string  // prefixes to scan again, because files below them have not settled or could not be listed
	againAt  time.Time // when; zero if again is empty
	next     time.Time // of the next full scan; zero for never
	interval time.Duration
	failures int
	retryAt  time.Time     // of the full scan after a failure
	broken   int           // scans in a row that could not list a part
	clean    bool          // the last full scan listed everything
	took     time.Duration // by the last scan
}

// wait returns how long to wait if no event comes.
func (s *scanSchedule) wait(now time.Time) time.Duration {
	wait := livenessEvery
	for _, at := range []time.Time{s.againAt, s.next, s.retryAt} {
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(now), 0))
		}
	}
	return wait
}

// take returns the prefixes to scan now, given the prefixes that may have changed; triggered demands a full scan. With periodic a full
// scan for its own sake follows.
func (s *scanSchedule) take(now time.Time, dirty []string, triggered bool) (prefixes []string, periodic bool) {
	everything := triggered || slices.Contains(dirty, "")
	if s.failures > 0 {
		// A part of a root proves nothing while the whole is not in order.
		if !everything && now.Before(s.retryAt) {
			return nil, false
		}
		everything = true
	}
	if everything {
		s.again, s.againAt = nil, time.Time{}
		return []string{""}, false
	}
	periodic = !s.next.IsZero() && !now.Before(s.next)
	if periodic || !s.againAt.IsZero() && !now.Before(s.againAt) {
		dirty = append(dirty, s.again...)
		s.again, s.againAt = nil, time.Time{}
	}
	return dirty, periodic
}

// failed sets the time of the next scan after one that failed.
func (s *scanSchedule) failed(now time.Time, err error) {
	s.failures++
	s.again, s.againAt = nil, time.Time{}
	most := maxDelay
	switch {
	case errors.Is(err, watcher.ErrRootMissing):
		most = missingRootDelay
	case Classify(err) == ClassGuard:
		most = max(guardDelay, 20*s.took)
		s.failures = max(s.failures, 5)
	}
	s.retryAt = now.Add(retry.Policy{Min: minDelay, Max: most}.Delay(s.failures-1, 0))
}

// succeeded notes a scan that ended well.
func (s *scanSchedule) succeeded(result watcher.Result) {
	s.failures, s.retryAt = 0, time.Time{}
	s.again = append(s.again, result.Again...)
	if len(result.Again) > 0 && s.againAt.IsZero() {
		// A file that settles later is found unsettled then, and scanned once more.
		s.againAt = result.SettleAt
	}
}

// recorded returns the prefixes that a scan has left unrecorded. If the source of changes waits for them, they are scanned again
// soon, later after each failure.
func (s *scanSchedule) recorded(now time.Time, result watcher.Result, redelivers bool) (left []string) {
	if s.broken++; result.IncompleteCount == 0 {
		s.broken = 0
	} else if redelivers {
		s.again = append(s.again, result.Prefixes...)
		if s.againAt.IsZero() {
			s.againAt = now.Add(retry.Policy{Min: minDelay, Max: maxDelay}.Delay(s.broken-1, 0))
		}
	}
	return s.again
}

// completed sets the time of the next full scan after one that ended well.
func (s *scanSchedule) completed(now time.Time, result watcher.Result) {
	s.clean = result.IncompleteCount == 0
	s.next = time.Time{}
	if s.interval > 0 {
		s.next = now.Add(s.interval)
	}
	if !s.clean {
		s.next = now.Add(min(cmp.Or(s.interval, maxDelay), maxDelay))
	}
}

// soon brings the next full scan forward, because uploads found documents that have changed.
func (s *scanSchedule) soon(now time.Time) {
	if at := now.Add(max(10*time.Second, 20*s.took)); s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
}
