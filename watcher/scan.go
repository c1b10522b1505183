package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	gosync "sync"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A Store is what a scan needs of the state.
type Store interface {
	BeginScan(ctx context.Context, syncID int64, prefix string) (state.Scan, error)
	Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[state.Known, error]
	Record(ctx context.Context, scan state.Scan, changes []state.Change) error
	CountScan(ctx context.Context, scan state.Scan) (state.ScanCount, error)
	FinishScan(ctx context.Context, scan state.Scan, identity string) (removed int, err error)
	DropScan(ctx context.Context, scan state.Scan) error
}

var _ Store = (*state.Store)(nil)

// A MaxDelete is a limit on what one scan may remove: a share of the known documents, or a number of them. Renamed documents
// don't count. Its zero value allows no removal.
type MaxDelete struct {
	Count     int     // counts only where ByPercent is false
	Percent   float64 // 0 to 100; counts only where ByPercent is true, and never forbids twenty removals
	ByPercent bool
}

// alwaysAllowed is how many removals a limit by share lets through whatever the share: in a small root a few are many percent.
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

// ScanOptions of a Scanner. The zero value is the most careful one.
type ScanOptions struct {
	Settle        time.Duration // the quiet time after which a file counts as written; never less than 20 ms
	MaxDelete     MaxDelete
	AllowEmpty    bool // a root that lists nothing is to remove what was known
	AcceptNewRoot bool // another root that lists under half of what was known is what the user wants
}

// A Scanner records what changed on a root.
type Scanner struct {
	root Root
	opts ScanOptions
	now  func() time.Time
}

// NewScanner returns a Scanner of the root.
func NewScanner(root Root, opts ScanOptions) *Scanner {
	return &Scanner{root: root, opts: opts, now: time.Now}
}

// A Result is what a scan found.
type Result struct {
	Prefix    string // what was scanned: a scan of a part becomes one of the whole where its removals look like an accident
	Known     int    // documents that were known before, below Prefix
	Listed    int    // documents on the root, those of Skipped among them
	New       int    // documents that were not known
	Changed   int    // known documents with another fingerprint, or that are not skipped any more
	Unchanged int
	Removed   int            // documents removed from the state, those of Renamed among them
	Renamed   int            // removed documents that seem to be listed under another key
	Skipped   map[string]int // documents that are not to be uploaded, by reason
	Unsettled int            // new or changed documents that may still be being written: not recorded yet
	SettleAt  time.Time      // when all of Unsettled have settled if nobody touches them again; zero for none

	// Incomplete holds the first hundred errors of parts that could not be listed; IncompleteCount counts all. If there are
	// any, nothing was removed.
	Incomplete      []error
	IncompleteCount int

	// young counts those of Unsettled that are new, and that only their ctime holds: a file that was just renamed is one.
	young int
}

const keptErrors = 100

func (r *Result) incomplete(err error) {
	r.IncompleteCount++
	if len(r.Incomplete) < keptErrors {
		r.Incomplete = append(r.Incomplete, err)
	}
}

// A Guard is a condition under which a scan halts its sync rather than to believe what it sees.
type Guard string

// The guards.
const (
	GuardEmpty     Guard = "empty"      // the root lists nothing, and had documents
	GuardNewRoot   Guard = "new-root"   // another directory or bucket, with less than half of the known documents
	GuardMaxDelete Guard = "max-delete" // more removals than allowed
)

// A GuardError says that a scan halted its sync: nothing was removed, and nothing may be uploaded until a person decides.
type GuardError struct {
	Guard    Guard
	Sync     string
	Root     string
	Known    int // documents that were known
	Removals int // of these, how many would be removed, not counting renamed ones
	Limit    MaxDelete
}

// Error says what was seen and what to type.
func (e *GuardError) Error() string {
	root := e.Root
	switch e.Guard {
	case GuardEmpty:
		return fmt.Sprintf("sync %q: %s lists no document, and held %d before. If they are really gone, run again with --allow-empty; "+
			"if not, look whether it is mounted and whether the filters are right", e.Sync, root, e.Known)
	case GuardNewRoot:
		return fmt.Sprintf("sync %q: %s is another directory or bucket than at the last scan, and lists less than half of the %d documents known "+
			"(%d are missing). If it is the right one, run again with --accept-new-root; if not, look whether it is mounted", e.Sync, root, e.Known, e.Removals)
	default:
		return fmt.Sprintf("sync %q: %d of %d documents are gone from %s, more than --max-delete %s allows. If they are to be removed, run again "+
			"with --max-delete %d", e.Sync, e.Removals, e.Known, root, e.Limit, e.Removals)
	}
}

// batchSize is how many changes are recorded in one transaction.
const batchSize = 1000

// Scan lists what is below prefix and records the difference to what is known: settled documents that are new or changed
// become pending, those not to be uploaded skipped, and those that are gone removed. It is one pass: documents that have not
// settled are left for another scan at Result.SettleAt.
//
// A listing that is incomplete records what it found and removes nothing; that is no error, but in Result.Incomplete. A
// *GuardError removes nothing either, and the caller must not upload: what was recorded is pending. ErrRootMissing and any other
// error leave no removal behind.
func (s *Scanner) Scan(ctx context.Context, store Store, sync state.Sync, prefix string) (Result, error) {
	result, err := s.scan(ctx, store, sync, prefix)
	if err != nil && prefix != "" {
		// What a part lacks says little: only the whole can show whether the root is in order.
		if _, halted := errors.AsType[*GuardError](err); halted {
			return s.scan(ctx, store, sync, "")
		}
	}
	return result, err
}

func (s *Scanner) scan(ctx context.Context, store Store, sync state.Sync, prefix string) (_ Result, err error) {
	result := Result{Prefix: prefix, Skipped: map[string]int{}}
	identity, err := s.root.Identity(ctx)
	if err != nil {
		return result, err
	}
	scan, err := store.BeginScan(ctx, sync.ID, prefix)
	if err != nil {
		return result, err
	}
	finished := false
	defer func() {
		if finished {
			return
		}
		// The marks have to go even where the context has ended.
		if dropped := store.DropScan(context.WithoutCancel(ctx), scan); dropped != nil && err == nil {
			err = dropped
		}
	}()
	changes := make([]state.Change, 0, batchSize)
	flush := func() error {
		if len(changes) == 0 {
			return nil
		}
		if err := store.Record(ctx, scan, changes); err != nil {
			return err
		}
		changes = changes[:0]
		return nil
	}
	for change, err := range s.changes(ctx, store, sync, prefix, &result) {
		if err != nil {
			return result, err
		}
		changes = append(changes, change)
		if len(changes) == batchSize {
			if err := flush(); err != nil {
				return result, err
			}
		}
	}
	if err := flush(); err != nil {
		return result, err
	}
	vanished := result.Removed
	result.Removed = 0 // until the state says so
	after, err := s.root.Identity(ctx)
	if err != nil {
		return result, err
	}
	if after != identity {
		result.incomplete(ErrRootChanged)
	}
	if result.IncompleteCount > 0 {
		return result, nil
	}
	if vanished > 0 && result.young > 0 {
		// What vanished may be there under a new name that has not settled. Removals wait for it.
		return result, nil
	}
	count, err := store.CountScan(ctx, scan)
	if err != nil {
		return result, err
	}
	if err := s.guard(sync, identity, &result, count); err != nil {
		return result, err
	}
	result.Renamed = count.Renamed
	finished = true
	if result.Removed, err = store.FinishScan(ctx, scan, identity); err != nil {
		finished = false
		return result, err
	}
	return result, nil
}

// guard decides whether what a complete scan would remove may be removed.
func (s *Scanner) guard(sync state.Sync, identity string, result *Result, count state.ScanCount) error {
	removals, known, whole := max(count.Vanished-count.Renamed, 0), result.Known, result.Prefix == ""
	halt := func(g Guard) error {
		return &GuardError{Guard: g, Sync: sync.Name, Root: sync.Root, Known: known, Removals: removals, Limit: s.opts.MaxDelete}
	}
	if whole && result.Listed == 0 && known > 0 {
		if s.opts.AllowEmpty {
			return nil
		}
		return halt(GuardEmpty)
	}
	if whole && sync.RootIdentity != "" && sync.RootIdentity != identity && 2*(known-count.Vanished) < known {
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

// Changes yields what a scan below prefix would record, and records nothing. When it has ended, result holds the counts; its
// Removed counts renamed documents, too, and no guard was asked. Errors end it; parts that could not be listed are in
// result.Incomplete.
func (s *Scanner) Changes(ctx context.Context, store Store, sync state.Sync, prefix string, result *Result) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		*result = Result{Prefix: prefix, Skipped: map[string]int{}}
		for change, err := range s.changes(ctx, store, sync, prefix, result) {
			if !yield(change, err) {
				return
			}
		}
	}
}

// changes is Diff with the settle time applied and the counts kept.
func (s *Scanner) changes(ctx context.Context, store Store, sync state.Sync, prefix string, result *Result) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		known := func(yield func(state.Known, error) bool) {
			for k, err := range ahead(store.Known(ctx, sync.ID, prefix)) {
				if err != nil {
					yield(k, err)
					return
				}
				if covers(prefix, k.Key) && !yield(k, nil) {
					return
				}
			}
		}
		err := merge(s.root.List(ctx, prefix), known, func(p pair) bool {
			if p.err != nil {
				result.incomplete(p.err)
				return true
			}
			if p.isKnown {
				result.Known++
			}
			if p.isListed {
				result.Listed++
				if p.entry.Skip != "" {
					result.Skipped[p.entry.Skip]++
				}
				if p.differs() {
					seen := p.entry.Seen
					if seen.IsZero() {
						seen = s.now()
					}
					if at := SettledAt(p.entry.Fingerprint, seen, s.opts.Settle); at.After(seen) {
						p.entry.Hold = true
						result.Unsettled++
						fp := p.entry.Fingerprint
						if !p.isKnown && fp.CTime != 0 && seen.Sub(time.Unix(0, fp.MTime)) >= s.opts.Settle {
							result.young++
						}
						if at.After(result.SettleAt) {
							result.SettleAt = at
						}
						return true
					}
				}
			}
			change, ok := p.change()
			switch {
			case !ok && p.isListed:
				result.Unchanged++
			case !ok:
			case change.Op == state.Vanish:
				result.Removed++
			case change.Op == state.Put && !p.isKnown:
				result.New++
			case change.Op == state.Put:
				result.Changed++
			}
			return !ok || yield(change, nil)
		})
		if order, ok := errors.AsType[*OrderError](err); ok && order.Stream == "listing" {
			// Whatever the listing says from here on, it can't show what is missing.
			result.incomplete(err)
			err = nil
		}
		if err != nil {
			yield(state.Change{}, err)
		}
	}
}

// ahead yields what seq does, reading a few hundred values ahead in a goroutine of its own, which ends with it: the state and the
// root take about as long, and are read at the same time.
func ahead[T any](seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	type item struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		batches, stop := make(chan []item, 1), make(chan struct{})
		var reader gosync.WaitGroup
		defer reader.Wait()
		defer close(stop)
		reader.Go(func() {
			defer close(batches)
			const size = 256
			batch := make([]item, 0, size)
			for v, err := range seq {
				if batch = append(batch, item{v, err}); len(batch) < size {
					continue
				}
				select {
				case batches <- batch:
					batch = make([]item, 0, size)
				case <-stop:
					return
				}
			}
			select {
			case batches <- batch:
			case <-stop:
			}
		})
		for batch := range batches {
			for _, i := range batch {
				if !yield(i.value, i.err) {
					return
				}
			}
		}
	}
}
