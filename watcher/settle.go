package watcher

import (
	"time"

	"github.com/kbsync/kbsync/state"
)

// racy is the age below which a timestamp proves nothing: file systems stamp with the clock of the last tick, so that two
// writes in one tick leave the same stamp. A fingerprint that is younger could be that of two different contents.
const racy = 20 * time.Millisecond

// SettledAt returns when a document with this fingerprint counts as written: when neither its content (mtime) nor its
// directory entry and attributes (ctime) changed for the settle time, and at least for 20 ms. It is settled if that is not
// after now.
//
// A stamp that is further in the future than the settle time was not made by this clock (an unpacked archive, a clock that
// was set back) and would keep the document waiting for no reason, so it holds nothing up. A root without ctime is judged
// by mtime alone.
func SettledAt(fp state.Fingerprint, now time.Time, settle time.Duration) time.Time {
	settle = max(settle, 0)
	ctime, quiet := fp.CTime, max(settle, racy)
	if ctime == 0 {
		ctime = fp.MTime
	}
	at := now
	for _, stamp := range []struct {
		nanos int64
		quiet time.Duration
	}{{fp.MTime, settle}, {ctime, quiet}} {
		written := time.Unix(0, stamp.nanos)
		if written.Sub(now) > stamp.quiet {
			continue
		}
		if t := written.Add(stamp.quiet); t.After(at) {
			at = t
		}
	}
	return at
}
