package engine

import (
	"errors"
	"math/rand/v2"
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

// backoff returns how long a loop waits after a failure that follows so many others.
func backoff(failures int) time.Duration {
	return retry.EqualJitter(minDelay, maxDelay).Delay(failures, rand.Float64())
}

// A scanSchedule decides what the scan loop scans, and when. Its methods are functions of the time and of the results of scans.
type scanSchedule struct {
	again    []string  // prefixes to scan again, because files below them have not settled
	againAt  time.Time // when; zero if again is empty
	unlisted []string  // prefixes of scans that could not list a part, and that no complete scan has covered since
	relistAt time.Time // when they are scanned again; zero if there are none
	next     time.Time // of the next full scan; zero for never
	interval time.Duration
	failures int
	retryAt  time.Time     // of the full scan after a failure
	broken   int           // scans in a row that could not list a part
	clean    bool          // the last full scan listed everything
	took     time.Duration // by the last scan

	// wanted is true if a scan of everything waits for restUntil: such scans take half of the time at most, so that uploads can claim.
	wanted    bool
	restUntil time.Time
}

// wait returns how long to wait if no event comes.
func (s *scanSchedule) wait(now time.Time) time.Duration {
	var times []time.Time
	switch {
	case s.failures > 0:
		times = []time.Time{s.retryAt}
	case s.wanted:
		times = []time.Time{s.restUntil}
	default:
		times = []time.Time{s.againAt, s.next, s.relistAt}
	}
	wait := livenessEvery
	for _, at := range times {
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(now), 0))
		}
	}
	return wait
}

// take returns the prefixes to scan now, given the prefixes that may have changed; triggered demands a full scan. With periodic a full
// scan for its own sake follows.
func (s *scanSchedule) take(now time.Time, dirty []string, triggered bool) (prefixes []string, periodic bool) {
	everything := triggered || slices.Contains(dirty, "") || s.wanted
	if s.failures > 0 {
		// A part of a root proves nothing while the whole is not in order.
		if !everything && now.Before(s.retryAt) {
			return nil, false
		}
		everything = true
	}
	periodic = !s.next.IsZero() && !now.Before(s.next)
	if !everything && (periodic || !s.againAt.IsZero() && !now.Before(s.againAt)) {
		dirty = append(dirty, s.again...)
		s.again, s.againAt = nil, time.Time{}
	}
	if !everything && (periodic || !s.relistAt.IsZero() && !now.Before(s.relistAt)) {
		dirty = append(dirty, s.unlisted...)
		everything = slices.Contains(dirty, "")
	}
	if everything && !triggered && s.failures == 0 && now.Before(s.restUntil) {
		s.wanted = true
		return nil, false
	}
	if everything {
		s.again, s.againAt, s.wanted = nil, time.Time{}, false
		return []string{""}, false
	}
	return dirty, periodic
}

// failed sets the time of the next scan after one that failed.
func (s *scanSchedule) failed(now time.Time, err error) {
	s.failures++
	s.again, s.againAt = nil, time.Time{}
	s.unlisted, s.relistAt, s.broken, s.wanted = nil, time.Time{}, 0, false // the next scan is of everything
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

// keptUnlisted bounds the prefixes that are scanned again because a part could not be listed. If there are more, everything is.
const keptUnlisted = 100

// recorded notes what a scan could not list, which is scanned again soon, later after each failure. It returns the prefixes that are left
// unrecorded.
func (s *scanSchedule) recorded(now time.Time, result watcher.Result) (left []string) {
	if result.IncompleteCount > 0 {
		s.unlisted = watcher.Outermost(append(s.unlisted, result.Prefixes...))
		if len(s.unlisted) > keptUnlisted {
			s.unlisted = []string{""}
		}
		// Other scans that fail meanwhile do not put the next attempt off.
		if s.relistAt.IsZero() || !now.Before(s.relistAt) {
			s.relistAt = now.Add(retry.Policy{Min: minDelay, Max: maxDelay}.Delay(s.broken, 0))
			s.broken++
		}
	} else {
		s.unlisted = slices.DeleteFunc(s.unlisted, func(prefix string) bool {
			outermost := watcher.Outermost(append([]string{prefix}, result.Prefixes...))
			return slices.Contains(result.Prefixes, prefix) || !slices.Contains(outermost, prefix)
		})
		if len(s.unlisted) == 0 {
			s.unlisted, s.relistAt, s.broken = nil, time.Time{}, 0
		}
	}
	return slices.Concat(s.again, s.unlisted)
}

// completed sets the time of the next full scan after one that ended well.
func (s *scanSchedule) completed(now time.Time, result watcher.Result) {
	s.clean = result.IncompleteCount == 0
	s.next = time.Time{}
	if s.interval > 0 {
		s.next = now.Add(s.interval)
	}
	s.restUntil = now.Add(s.took)
	if s.next.Before(s.restUntil) && !s.next.IsZero() {
		s.next = s.restUntil
	}
}

// soon brings the next full scan forward, because uploads found documents that have changed.
func (s *scanSchedule) soon(now time.Time) {
	if at := now.Add(max(10*time.Second, 20*s.took)); s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
}
