package watcher

import (
	"context"
	"fmt"

	"github.com/kbsync/kbsync/state"
)

// A Guard is a condition under which a scan halts its sync.
type Guard string

// The guards.
const (
	GuardEmpty          Guard = "empty"           // the root lists nothing but had documents
	GuardEmptyDirectory Guard = "empty-directory" // a directory of the root is there, is empty, and had documents
	GuardNewRoot        Guard = "new-root"        // the root is another directory or bucket, with less than half of the known documents
	GuardLostMount      Guard = "lost-mount"      // a file system below the root is not mounted any more
	GuardNewMount       Guard = "new-mount"       // a file system is mounted over documents of the root
	GuardMaxDelete      Guard = "max-delete"      // more removals than allowed
	GuardMaxChange      Guard = "max-change"      // more changed documents than allowed
)

// A GuardError reports that a scan halted its sync: the scan removed and superseded nothing, and nothing may be uploaded until a
// person decides.
type GuardError struct {
	Guard     Guard
	Sync      string
	Root      string
	Directory string // of GuardEmptyDirectory, GuardLostMount and GuardNewMount
	Known     int    // known documents of which a version was ever uploaded; all if there is none
	Removals  int    // documents of Known that the scan would remove, not counting renamed ones
	Limit     Limit

	// Of GuardMaxChange: the documents of Known that changed, at most; those of them that are empty now; and the key of one.
	Changed, Empty int
	Example        string
}

// Error describes the finding and the remedy.
func (e *GuardError) Error() string {
	switch e.Guard {
	case GuardEmpty:
		return fmt.Sprintf("sync %q: %s lists no document, and held %d before. If they are really gone, run again with --allow-empty; "+
			"if not, check that the root is mounted and that the filters are right", e.Sync, e.Root, e.Known)
	case GuardEmptyDirectory:
		return fmt.Sprintf("sync %q: the directory %q in %s is there and empty, and held %d documents before. If they are really gone, remove the "+
			"directory too, or run again with --allow-empty; if not, check that its file system is mounted", e.Sync, e.Directory, e.Root, e.Known)
	case GuardLostMount:
		return fmt.Sprintf("sync %q: the file system that was mounted at %q in %s is not mounted any more, and %d of its %d documents are gone. "+
			"Mount it again; if the documents are really gone, run again with --accept-new-root", e.Sync, e.Directory, e.Root, e.Removals, e.Known)
	case GuardNewMount:
		return fmt.Sprintf("sync %q: a file system was mounted at %q in %s, and %d of the %d documents that were known there are gone. "+
			"Unmount it, or mount it elsewhere; if it is to replace the documents, run again with --accept-new-root", e.Sync, e.Directory, e.Root, e.Removals, e.Known)
	case GuardNewRoot:
		return fmt.Sprintf("sync %q: %s is another directory or bucket than at the last scan, and lists less than half of the %d known documents "+
			"(%d are missing). If it is the right one, run again with --accept-new-root; if not, check that it is mounted", e.Sync, e.Root, e.Known, e.Removals)
	case GuardMaxChange:
		empty := ""
		if e.Empty > 0 {
			empty = fmt.Sprintf("; %d of them are empty now", e.Empty)
		}
		return fmt.Sprintf("sync %q: %d of %d documents in %s have changed at once, more than --max-change %s allows (such as %q%s). Every new version is "+
			"permanent. If the changes are meant, run again with --max-change %d; if not, restore the documents",
			e.Sync, e.Changed, e.Known, e.Root, e.Limit, e.Example, empty, e.Changed)
	default:
		return fmt.Sprintf("sync %q: %d of %d documents are gone from %s, more than --max-delete %s allows. To remove them, run again "+
			"with --max-delete %d; if they should be there, check the root and the filters", e.Sync, e.Removals, e.Known, e.Root, e.Limit, e.Removals)
	}
}

// A check is what the guards of removals weigh.
type check struct {
	sync     state.Sync
	scan     state.Scan
	identity string // of the root
	vanished int    // documents that the listing lacks
	result   *Result
}

// checkRemovals returns a *GuardError if the removals of a complete scan look like an accident.
//
// Documents that were never uploaded count neither as known nor as removals: a wrong root that was scanned once may have left
// many of them. Only where no document was ever uploaded do they show whether the root is the same as before.
func (s *Scanner) checkRemovals(c check, count state.ScanCount) error {
	sync, result := c.sync, c.result
	known, vanished, whole := result.uploaded, count.Vanished-count.NeverUploaded, result.Prefixes[0] == ""
	removals := count.Removals()
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
	before, _ := splitMounts(sync.RootIdentity)
	if whole && before != "" && before != c.identity && 2*(known-vanished) < known {
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

// checkGuards returns a *GuardError if the removals of a complete scan look like an accident.
func (s *Scanner) checkGuards(ctx context.Context, counter Counter, c check) (state.ScanCount, error) {
	count, err := counter.Count(ctx, c.scan)
	if err == nil {
		err = s.checkRemovals(c, count)
	}
	if err == nil && count.Vanished > 0 {
		err = s.checkMounts(ctx, counter, c)
	}
	if err == nil && count.Vanished > 0 {
		err = s.checkVacant(ctx, counter, c)
	}
	return count, err
}
