package state

import "time"

// millis is how the tables hold a time: Unix milliseconds, 0 for never.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// No wait is recorded that is longer than maxWait, or maxRest for Scan.Rest. A time further ahead was written while the
// clock was wrong, and counts as due.
const (
	maxWait = 24 * time.Hour
	maxRest = 31 * 24 * time.Hour
)

// waitUntil is millis, at most maxWait from now.
func waitUntil(t time.Time) int64 { return min(millis(t), farthest()) }

// farthest is the latest time that a wait may end.
func farthest() int64 { return now() + maxWait.Milliseconds() }

func now() int64 { return time.Now().UnixMilli() }
