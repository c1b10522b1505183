package watcher

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/kbsync/kbsync/state"
)

// keptUnsteady bounds the documents whose time stamps do not hold still.
const keptUnsteady = 50_000

// unsteady has the documents of a directory whose time stamps do not hold still: replicas of a file server differ, the ctime is always
// now, or each reading changes the mtime. The content of such a document decides which version it is: it counts as written after two
// readings of the same size and content that lie the settle time apart. Several goroutines may use it.
//
// While the content is not known, each listing of the document shows another fingerprint after each reading, so that a scan records it
// again. Then the listing shows the fingerprint that was accepted, as long as the stamps move only as they did before.
type unsteady struct {
	settle time.Duration

	mu        sync.Mutex
	documents map[string]*unsteadyDocument
	clocks    map[uint64]bool // whether the stamps of a device come from another clock
	accepted  int             // documents that were ever accepted
	first     string          // the key of the first one
}

type unsteadyDocument struct {
	readings int               // that were not accepted
	size     int64             // at the last reading
	sum      [sha256.Size]byte // of the last reading
	at       time.Time         // the end of the first reading of this content; zero if there was none
	accepted bool

	// shown is the fingerprint that was accepted. seen is the last one of the file; the stamps lie between these bounds, or move freely.
	shown, seen            state.Fingerprint
	earliest, latest       int64 // mtime
	movesCTime, movesInode bool
}

// CompareContents implements DirectoryTree.
func (u *unsteady) CompareContents(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.add(key)
}

// add returns the document, and adds it if there is room; the caller holds mu.
func (u *unsteady) add(key string) *unsteadyDocument {
	d := u.documents[key]
	if d == nil && len(u.documents) < keptUnsteady {
		if u.documents == nil {
			u.documents = map[string]*unsteadyDocument{}
		}
		d = &unsteadyDocument{}
		u.documents[key] = d
	}
	return d
}

// Unsteady returns how many documents were accepted by their content because their time stamps do not hold still, and the key of one.
func (u *unsteady) Unsteady() (documents int, key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.accepted, u.first
}

func (u *unsteady) noteClock(device uint64, foreign bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.clocks == nil {
		u.clocks = map[uint64]bool{}
	}
	u.clocks[device] = foreign
}

// mayBeUnsteady reports whether the content of a document may have to decide, so that it must be hashed while it is read.
func (u *unsteady) mayBeUnsteady(key string, device uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.clocks[device] || u.documents[key] != nil
}

// steadied returns the fingerprint to show for one of the file system.
func (u *unsteady) steadied(key string, fp state.Fingerprint) state.Fingerprint {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.documents[key]
	if d == nil {
		return fp
	}
	if d.accepted && d.moves(fp) {
		return d.shown
	}
	if d.accepted {
		d.accepted = false
		d.readings++
	}
	d.observe(fp)
	fp.ETag = fmt.Sprintf("reading %d", d.readings)
	return fp
}

// moves reports whether the stamps are within the bounds in which they moved before.
func (d *unsteadyDocument) moves(fp state.Fingerprint) bool {
	return fp.Size == d.size && fp.MTime >= d.earliest && fp.MTime <= d.latest &&
		(d.movesCTime || fp.CTime == d.seen.CTime) && (d.movesInode || fp.Inode == d.seen.Inode)
}

// observe widens the bounds by a fingerprint of the file system.
func (d *unsteadyDocument) observe(fp state.Fingerprint) {
	if d.seen == (state.Fingerprint{}) {
		d.seen, d.earliest, d.latest = fp, fp.MTime, fp.MTime
	}
	d.earliest, d.latest = min(d.earliest, fp.MTime), max(d.latest, fp.MTime)
	d.movesCTime = d.movesCTime || fp.CTime != d.seen.CTime
	d.movesInode = d.movesInode || fp.Inode != d.seen.Inode
	d.seen = fp
}

// A reading is one reading of a document from its first byte to its last.
type reading struct {
	key           string
	listed        state.Fingerprint
	before, after state.Fingerprint // of the file
	sum           [sha256.Size]byte
	began, ended  time.Time
}

// accept returns nil if the reading is of the listed version, and else state.ErrChanged.
func (u *unsteady) accept(r *reading) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	listed := r.listed
	listed.ETag = ""
	if u.documents[r.key] == nil && r.before == listed && r.after == listed {
		return nil
	}
	changed := fmt.Errorf("read %q: %w", r.key, state.ErrChanged)
	d := u.add(r.key)
	if d == nil || r.after.Size != listed.Size {
		return changed
	}
	if !d.at.IsZero() && (d.sum != r.sum || d.size != listed.Size) {
		*d = unsteadyDocument{readings: d.readings}
	}
	d.observe(r.before)
	d.observe(r.after)
	switch {
	case d.accepted:
		d.shown = r.listed
		return nil
	case d.at.IsZero():
		d.at, d.sum, d.size = r.ended, r.sum, listed.Size
	case r.began.Sub(d.at) >= u.settle:
		u.settled(r, d)
		return nil
	}
	d.readings++
	return changed
}

// settled accepts the content of a document. It forgets the document if its stamps hold still by now; the caller holds mu.
func (u *unsteady) settled(r *reading, d *unsteadyDocument) {
	if d.earliest == d.latest && !d.movesCTime && !d.movesInode {
		delete(u.documents, r.key)
		return
	}
	d.accepted, d.shown = true, r.listed
	if u.accepted++; u.first == "" {
		u.first = r.key
	}
}
