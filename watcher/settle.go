package watcher

import (
	"time"

	"github.com/kbsync/kbsync/state"
)

// racy is the age below which a time stamp proves nothing. File systems stamp with the clock of the last tick, so two writes in
// one tick have equal stamps, and a younger fingerprint could belong to two different contents.
const racy = 20 * time.Millisecond

// SettledAt returns when a document with this fingerprint counts as written: its content (mtime), its directory entry and its
// attributes (ctime) have not changed for the settle time, and for at least 20 ms. The document has settled if that time is not
// after now.
//
// A stamp that is further in the future than the settle time does not come from this clock (an unpacked archive, a clock that was
// set back). It is ignored, because the document would wait for no reason. Without a ctime, mtime alone decides.
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
