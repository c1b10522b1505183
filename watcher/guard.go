package watcher

import (
	"fmt"

	"github.com/kbsync/kbsync/state"
)

// A MaxDelete limits the removals of one scan: to a share of the known documents, or to a number. Renamed documents do not count.
// The zero value allows no removal.
type MaxDelete struct {
	Count     int     // used if ByPercent is false
	Percent   float64 // 0 to 100; used if ByPercent is true; always allows twenty removals
	ByPercent bool
}

// alwaysAllowed is the number of removals that every limit by share allows. In a small root a few removals are a large share.
const alwaysAllowed = 20

func (m MaxDelete) exceeded(removals, known int) bool {
	if !m.ByPercent {
		return removals > m.Count
	}
	return removals > alwaysAllowed && float64(removals)*100 > m.Percent*float64(known)
}

func (m MaxDelete) String() string {
	if m.ByPercent {
		return fmt.Sprintf("%g%%", m.Percent)
	}
	return fmt.Sprint(m.Count)
}

// A Guard is a condition under which a scan halts its sync.
type Guard string

// The guards.
const (
	GuardEmpty     Guard = "empty"      // the root lists nothing but had documents
	GuardNewRoot   Guard = "new-root"   // the root is another directory or bucket, with less than half of the known documents
	GuardMaxDelete Guard = "max-delete" // more removals than allowed
)

// A GuardError reports that a scan halted its sync: the scan removed nothing, and nothing may be uploaded until a person decides.
type GuardError struct {
	Guard    Guard
	Sync     string
	Root     string
	Known    int // known documents of which a version was ever uploaded; all if there is none
	Removals int // documents of Known that the scan would remove, not counting renamed ones
	Limit    MaxDelete
}

// Error describes the finding and the remedy.
func (e *GuardError) Error() string {
	switch e.Guard {
	case GuardEmpty:
		return fmt.Sprintf("sync %q: %s lists no document, and held %d before. If they are really gone, run again with --allow-empty; "+
			"if not, check that the root is mounted and that the filters are right", e.Sync, e.Root, e.Known)
	case GuardNewRoot:
		return fmt.Sprintf("sync %q: %s is another directory or bucket than at the last scan, and lists less than half of the %d known documents "+
			"(%d are missing). If it is the right one, run again with --accept-new-root; if not, check that it is mounted", e.Sync, e.Root, e.Known, e.Removals)
	default:
		return fmt.Sprintf("sync %q: %d of %d documents are gone from %s, more than --max-delete %s allows. To remove them, run again "+
			"with --max-delete %d", e.Sync, e.Removals, e.Known, e.Root, e.Limit, e.Removals)
	}
}

// checkGuards returns a *GuardError if the removals of a complete scan look like an accident.
//
// Documents that were never uploaded count neither as known nor as removals: a wrong root that was scanned once may have left
// many of them. Only where no document was ever uploaded do they show whether the root is the same as before.
func (s *Scanner) checkGuards(sync state.Sync, identity string, result *Result, count state.ScanCount) error {
	known, vanished, whole := result.uploaded, count.Vanished-count.NeverUploaded, result.Prefixes[0] == ""
	removals := max(vanished-(count.Renamed-count.NeverUploadedRenamed), 0)
	if known == 0 {
		known, vanished = result.Known, count.Vanished
	}
	halt := func(g Guard) error {
		return &GuardError{Guard: g, Sync: sync.Name, Root: sync.Root, Known: known, Removals: removals, Limit: s.opts.MaxDelete}
	}
	if whole && result.Listed == 0 && known > 0 {
		if s.opts.AllowEmpty {
			return nil
		}
		return halt(GuardEmpty)
	}
	if whole && sync.RootIdentity != "" && sync.RootIdentity != identity && 2*(known-vanished) < known {
		if s.opts.AcceptNewRoot {
			return nil
		}
		return halt(GuardNewRoot)
	}
	if s.opts.MaxDelete.exceeded(removals, known) {
		return halt(GuardMaxDelete)
	}
	return nil
}
