package watcher

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/kbsync/kbsync/state"
)

// Changes yields the changes that a scan below prefix would record, and records nothing. At its end, result holds the counts;
// Removed includes renamed documents, and Halted is the guard that would halt the scan. An error ends it, except the errors of parts
// that could not be listed, which are in result.Incomplete. Its memory grows with the number of changes.
func (s *Scanner) Changes(ctx context.Context, store KnownDocuments, sync state.Sync, prefix string, result *Result) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		*result = Result{Prefixes: []string{prefix}, Skipped: map[string]int{}}
		identity, err := s.root.Identity(ctx)
		if err != nil {
			yield(state.Change{}, err)
			return
		}
		if _, err := s.findMounts(ctx, sync.RootIdentity, result); err != nil {
			yield(state.Change{}, err)
			return
		}
		held, seen := &edits{}, &preview{pending: map[movedFingerprint]bool{}}
		for f, err := range s.changes(ctx, store, sync, result.Prefixes, result) {
			if err == nil {
				seen.add(f)
				if f.edit != noEdit {
					held.add(f)
				}
			}
			if !yield(f.Change, err) || err != nil {
				return
			}
		}
		w := &weighing{Scanner: s, store: store, sync: sync, prefixes: result.Prefixes, edits: held}
		err = w.check(ctx, result.uploaded)
		if err == nil && result.IncompleteCount == 0 {
			_, err = s.checkGuards(ctx, seen, check{sync: sync, scan: state.Scan{SyncID: sync.ID, Prefix: prefix}, identity: identity, result: result})
		}
		if halted, ok := errors.AsType[*GuardError](err); ok {
			result.Halted = halted
		} else if err != nil {
			yield(state.Change{}, err)
		}
	}
}

// A preview counts the removals of a scan that records nothing.
type preview struct {
	vanished []finding
	pending  map[movedFingerprint]bool
}

var _ Counter = (*preview)(nil)

// A movedFingerprint is what a rename keeps of a fingerprint.
type movedFingerprint struct {
	size, mtime int64
	inode       uint64
}

func moved(f state.Fingerprint) movedFingerprint { return movedFingerprint{f.Size, f.MTime, f.Inode} }

func (p *preview) add(f finding) {
	switch f.Op {
	case state.Vanish:
		p.vanished = append(p.vanished, f)
	case state.Put:
		if f.edit == noEdit && f.Fingerprint.Inode != 0 {
			p.pending[moved(f.Fingerprint)] = true
		}
	}
}

// Count implements Counter.
func (p *preview) Count(ctx context.Context, scan state.Scan) (state.ScanCount, error) {
	return p.CountBelow(ctx, scan, "")
}

// CountBelow implements Counter.
func (p *preview) CountBelow(_ context.Context, _ state.Scan, directory string) (n state.ScanCount, _ error) {
	for i := range p.vanished {
		f := &p.vanished[i]
		if !strings.HasPrefix(f.Key, directory) {
			continue
		}
		n.Vanished++
		renamed := p.pending[moved(f.Fingerprint)]
		if renamed {
			n.Renamed++
		}
		if f.neverUploaded {
			n.NeverUploaded++
		}
		if renamed && f.neverUploaded {
			n.NeverUploadedRenamed++
		}
	}
	return n, nil
}
