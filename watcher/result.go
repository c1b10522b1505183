package watcher

import (
	"time"

	"github.com/kbsync/kbsync/state"
)

// A Result counts the documents of a scan.
type Result struct {
	Prefixes  []string // the scanned prefixes: a scan of parts becomes a scan of the whole root if a guard halts it
	Known     int      // documents known before the scan, below Prefixes
	Listed    int      // documents on the root, including those of Skipped
	New       int      // documents that were not known
	Changed   int      // known documents with another fingerprint, or that are not skipped any more
	Unchanged int
	Removed   int            // documents removed from the state, including those of Renamed
	Renamed   int            // removed documents that seem to be listed under another key
	Skipped   map[string]int // documents that must not be uploaded, by reason
	// Placeholders are the documents of Skipped of which only a placeholder of a cloud client is there: the pass is incomplete.
	Placeholders int
	Unsettled    int       // new or changed documents that may still be written to; not recorded yet
	SettleAt     time.Time // when all documents of Unsettled will have settled if no further write happens; zero for none
	// Postponed counts the documents of Unsettled that there was no room to remember. A scan after the next one takes them.
	Postponed int
	Again     []string // the prefixes to scan again at SettleAt; nil for none

	// Restless counts the documents of Unsettled that have been changing for longer than ScanOptions.MaxWait. They are recorded
	// only when they settle, because half a document must not be uploaded. RestlessKeys are the first hundred.
	Restless     int
	RestlessKeys []string

	// Incomplete holds the first hundred errors of parts that could not be listed; IncompleteCount counts all. If there are
	// any, the scan removed nothing.
	Incomplete      []error
	IncompleteCount int

	// Halted, which Changes sets, is the guard that would halt a scan.
	Halted *GuardError

	// LeftOut counts what the scan left out; nil unless it has listed the whole root.
	LeftOut *LeftOut

	// uploaded counts the documents of Known of which a version was ever sent.
	uploaded int
	// renaming counts the new documents of Unsettled whose content seems to be old, as after a rename.
	renaming int
	// vacant are the directories that list nothing and from which uploaded documents vanished.
	vacant []string
	// mounts are the directories on which a file system is mounted, and was not at the last scan, or the other way round.
	mounts []changedMount
	// disordered is true if the root does not list in byte order.
	disordered bool
}

// Bounds of the slices of a Result and of the memory of a Scanner.
const (
	keptErrors    = 100
	keptAgain     = 100
	keptRestless  = 100
	keptUnsettled = 50_000
)

func (r *Result) incomplete(err error) {
	r.IncompleteCount++
	if len(r.Incomplete) < keptErrors {
		r.Incomplete = append(r.Incomplete, err)
	}
}

// countPair counts the two sides of a pair.
func (r *Result) countPair(p *Pair) {
	if p.isKnown {
		r.Known++
		if !p.known.NeverUploaded {
			r.uploaded++
		}
	}
	if p.isListed {
		r.Listed++
		if p.entry.Skip != "" {
			r.Skipped[p.entry.Skip]++
		}
		if p.entry.Placeholder {
			r.Placeholders++
		}
	}
}

// countChange counts the change of a pair; ok is false if there is none.
func (r *Result) countChange(p *Pair, change state.Change, ok bool) {
	switch {
	case !ok && p.isListed:
		r.Unchanged++
	case !ok:
	case change.Op == state.Vanish:
		r.Removed++
	case change.Op == state.Put && !p.isKnown:
		r.New++
	case change.Op == state.Put:
		r.Changed++
	}
}
