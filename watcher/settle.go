package watcher

import (
	"context"
	"time"

	"github.com/kbsync/kbsync/state"
)

const (
	// racy is the age below which a time stamp proves nothing. File systems stamp with the clock of the last tick, so two writes in
	// one tick have equal stamps, and a younger fingerprint could belong to two different contents.
	racy = 20 * time.Millisecond
	// clockStep is the difference between the wall clock and the monotonic clock that counts as a step of the wall clock. Both
	// are slewed together.
	clockStep = 100 * time.Millisecond
	// writerPatience is the age of the last write from which a file counts as written, even if a process has it open for
	// writing: some programs keep their files open for days.
	writerPatience = 10 * time.Minute
	minWriterWait  = time.Second
)

// settledAt returns when a document with this fingerprint counts as written, by its time stamps: its content (mtime), its directory
// entry and its attributes (ctime) have not changed for the settle time, and for at least 20 ms. The document has settled if that
// time is not after now. Only programs set an mtime in the future, so the ctime decides then; without a ctime, mtime alone decides.
//
// ok is false if the deciding stamp is in the future: it does not come from this clock, and proves nothing.
func settledAt(fp state.Fingerprint, now time.Time, settle time.Duration) (at time.Time, ok bool) {
	settle = max(settle, 0)
	written, quiet := time.Unix(0, fp.MTime), max(settle, racy)
	if fp.CTime == 0 {
		return latest(now, written.Add(quiet)), !written.After(now)
	}
	changed := time.Unix(0, fp.CTime)
	if changed.After(now) {
		return now, false
	}
	at = latest(now, changed.Add(quiet))
	if !written.After(now) {
		at = latest(at, written.Add(settle))
	}
	return at, true
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A sighting is what the scans have seen of a document that has not settled. Its times are monotonic, since the Scanner was made.
type sighting struct {
	fingerprint state.Fingerprint
	first       time.Duration // when this fingerprint was seen first
	sized       time.Duration // when this size was seen first
	since       time.Duration // when the document was first seen unsettled
}

// look returns the sighting of the document that is listed now. It replaces an earlier one.
func (s *Scanner) look(key string, fp state.Fingerprint, seen time.Duration) (now sighting, again bool) {
	// A look may take long on a network file system. This one has ended now, and the next one begins before its Seen.
	ended := max(s.elapsed(s.now()), seen)
	now = sighting{fp, ended, ended, ended}
	before, again := s.unsettled[key]
	if !again {
		return now, false
	}
	now.since = before.since
	if before.fingerprint.Size == fp.Size {
		now.sized = before.sized
	}
	if before.fingerprint == fp {
		now.first = before.first
	}
	return now, true
}

// elapsed returns the time since the Scanner was made, by the monotonic clock.
func (s *Scanner) elapsed(t time.Time) time.Duration { return t.Sub(s.began) }

// watchClock notices steps of the wall clock. The file system's stamps from before a step seem to be older or younger than they are.
func (s *Scanner) watchClock(t time.Time) {
	offset := time.Duration(s.wall(t).Sub(s.wallBegan)) - s.elapsed(t)
	if (offset - s.offset).Abs() > clockStep {
		s.stepped, s.steppedAt = true, s.elapsed(t)
		s.offset = offset
	}
}

// A pause says how long a document is held back.
type pause struct {
	wait time.Duration // zero if it has settled
	// resting is true if nothing shows that the content of the document has changed lately: it may have been renamed.
	resting bool
}

// pauseOf decides whether the document of an entry has settled.
func (s *Scanner) pauseOf(ctx context.Context, e *Entry, seen time.Time, now sighting) pause {
	at, wall, quiet := s.elapsed(seen), s.wall(seen), max(s.opts.Settle, racy)
	settled, ok := settledAt(e.Fingerprint, wall, s.opts.Settle)
	tree, isTree := s.root.(DirectoryTree)
	if !isTree || e.Seen.IsZero() { // objects appear as a whole
		return pause{wait: settled.Sub(wall)}
	}
	if ok && !e.Foreign && !(s.stepped && at-s.steppedAt < quiet) {
		if wait := settled.Sub(wall); wait > 0 && at-now.sized < s.opts.MaxWait {
			return pause{wait, e.Fingerprint.CTime != 0 && wall.Sub(time.Unix(0, e.Fingerprint.MTime)) >= s.opts.Settle}
		} else if wait > 0 {
			tree.CompareContents(e.Key)
		}
		return s.pauseForWriter(ctx, e, seen, now)
	}
	// The stamps prove nothing, so two looks must agree: on all of the fingerprint, or at least on its size.
	if wait := now.first + quiet - at; wait > 0 && at-now.sized < quiet {
		return pause{wait, now.first == now.since && at-now.since < s.opts.MaxWait}
	} else if wait > 0 {
		tree.CompareContents(e.Key)
	}
	if e.Foreign {
		return pause{} // this system does not know who writes
	}
	return s.pauseForWriter(ctx, e, seen, now)
}

// pauseForWriter holds back a document that was written lately if a process still has it open for writing: its writer may stall for
// longer than the settle time.
func (s *Scanner) pauseForWriter(ctx context.Context, e *Entry, seen time.Time, now sighting) pause {
	written, age := max(e.Fingerprint.MTime, e.Fingerprint.CTime), s.elapsed(seen)-now.since
	if s.wall(seen).Sub(time.Unix(0, written)) >= writerPatience || age >= writerPatience || e.Skip != "" || !s.hasWriter(ctx, e.Key) {
		return pause{}
	}
	return pause{wait: max(s.opts.Settle, minWriterWait, age/8)}
}
