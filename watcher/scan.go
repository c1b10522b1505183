package watcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	gosync "sync"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A Store is what a scan needs of the state.
type Store interface {
	Begin(ctx context.Context, syncID int64, prefix string) (state.Scan, error)
	Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[state.KnownDocument, error]
	Record(ctx context.Context, scan state.Scan, changes []state.Change) error
	Count(ctx context.Context, scan state.Scan) (state.ScanCount, error)
	Finish(ctx context.Context, scan state.Scan, identity string) (removed int, err error)
	Drop(ctx context.Context, scan state.Scan) error
}

var _ Store = (*state.Scans)(nil)

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
	// MaxWait is how long a document may keep changing before it is reported as restless, which it is until it rests; ten times
	// Settle if zero, and at least a minute then.
	MaxWait time.Duration
	// Lookups is how many single documents are listed at a time, where many are to be scanned; one if zero. The root must be
	// one that several goroutines may use.
	Lookups int
	// Rest is how long a changed document is held back after its last upload, see state.Scan.
	Rest time.Duration
}

// A Scanner records what changed on a root. It may be used by one goroutine at a time, and remembers from scan to scan, in bounded memory,
// since when documents have not settled.
type Scanner struct {
	root Root
	opts ScanOptions
	now  func() time.Time
	// moving holds, by key, when documents that have not settled were first seen so.
	moving map[string]time.Time
	sort   bool // the root lists in another order than that of the bytes
}

// NewScanner returns a Scanner of the root.
func NewScanner(root Root, opts ScanOptions) *Scanner {
	if opts.MaxWait <= 0 {
		opts.MaxWait = max(10*opts.Settle, time.Minute)
	}
	return &Scanner{root: root, opts: opts, now: time.Now, moving: map[string]time.Time{}}
}

// A Result is what a scan found.
type Result struct {
	Prefixes  []string // what was scanned: a scan of parts becomes one of the whole where its removals look like an accident
	Known     int      // documents that were known before, below Prefixes
	Listed    int      // documents on the root, those of Skipped among them
	New       int      // documents that were not known
	Changed   int      // known documents with another fingerprint, or that are not skipped any more
	Unchanged int
	Removed   int            // documents removed from the state, those of Renamed among them
	Renamed   int            // removed documents that seem to be listed under another key
	Skipped   map[string]int // documents that are not to be uploaded, by reason
	Unsettled int            // new or changed documents that may still be being written: not recorded yet
	SettleAt  time.Time      // when all of Unsettled have settled if nobody touches them again; zero for none
	Again     []string       // what is to be scanned again at SettleAt; nil for nothing

	// Restless counts those of Unsettled that have kept changing for longer than ScanOptions.MaxWait. They are recorded when they
	// rest, like any other, for half a document must not be sent. RestlessKeys are the first hundred.
	Restless     int
	RestlessKeys []string

	// Incomplete holds the first hundred errors of parts that could not be listed; IncompleteCount counts all. If there are
	// any, nothing was removed.
	Incomplete      []error
	IncompleteCount int

	// young counts those of Unsettled that are new, and that only their ctime holds: a file that was just renamed is one.
	young int
	// disordered says that the root lists in another order than that of the bytes.
	disordered bool
}

// What a Result and a Scanner keep at most.
const (
	keptErrors   = 100
	keptAgain    = 100
	keptRestless = 100
	keptMoving   = 10_000
)

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
// A listing that is incomplete records what it found and removes nothing; that is no error, but in Result.Incomplete. A root that
// turns out to list in another order than that of the bytes is listed once more, and sorted. A *GuardError removes nothing
// either, and the caller must not upload: what was recorded is pending. ErrRootMissing and any other error leave no removal
// behind, but for one of the state in the middle of them: another scan removes the others.
func (s *Scanner) Scan(ctx context.Context, store Store, sync state.Sync, prefix string) (Result, error) {
	return s.ScanAll(ctx, store, sync, []string{prefix})
}

// ScanAll is Scan of several prefixes, which may overlap, as one: what vanished below one of them may have been renamed to another,
// the guards weigh all removals together, and it removes nothing if any of them is incomplete. With none it does nothing.
func (s *Scanner) ScanAll(ctx context.Context, store Store, sync state.Sync, prefixes []string) (Result, error) {
	prefixes = Outermost(slices.Clone(prefixes))
	if len(prefixes) == 0 {
		return Result{Skipped: map[string]int{}}, nil
	}
	result, err := s.scan(ctx, store, sync, prefixes)
	if err == nil && result.disordered && !s.sort {
		s.sort = true
		first := result
		if result, err = s.scan(ctx, store, sync, prefixes); err == nil {
			// What the first listing led to is recorded.
			result.New += first.New
			result.Changed += first.Changed
			result.Unchanged = max(0, result.Unchanged-first.New-first.Changed)
		}
	}
	if err != nil && prefixes[0] != "" {
		// What a part lacks says little: only the whole can show whether the root is in order.
		if _, halted := errors.AsType[*GuardError](err); halted {
			return s.scan(ctx, store, sync, []string{""})
		}
	}
	return result, err
}

func (s *Scanner) scan(ctx context.Context, store Store, sync state.Sync, prefixes []string) (_ Result, err error) {
	result := Result{Prefixes: prefixes, Skipped: map[string]int{}}
	identity, err := s.root.Identity(ctx)
	if err != nil {
		return result, err
	}
	// One prefix stands for all of them: the state asks only whether it is the whole.
	scan, err := store.Begin(ctx, sync.ID, prefixes[0])
	if err != nil {
		return result, err
	}
	scan.Rest = s.opts.Rest
	finished := false
	defer func() {
		if finished {
			return
		}
		// The marks have to go even where the context has ended.
		if dropped := store.Drop(context.WithoutCancel(ctx), scan); dropped != nil && err == nil {
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
	for change, err := range s.changes(ctx, store, sync, prefixes, &result) {
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
		result.Again = prefixes
		return result, nil
	}
	count, err := store.Count(ctx, scan)
	if err != nil {
		return result, err
	}
	if err := s.guard(sync, identity, &result, count); err != nil {
		return result, err
	}
	result.Renamed = count.Renamed
	finished = true
	if result.Removed, err = store.Finish(ctx, scan, identity); err != nil {
		finished = false
		return result, err
	}
	return result, nil
}

// guard decides whether what a complete scan would remove may be removed.
func (s *Scanner) guard(sync state.Sync, identity string, result *Result, count state.ScanCount) error {
	removals, known, whole := max(count.Vanished-count.Renamed, 0), result.Known, result.Prefixes[0] == ""
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
		*result = Result{Prefixes: []string{prefix}, Skipped: map[string]int{}}
		for change, err := range s.changes(ctx, store, sync, result.Prefixes, result) {
			if !yield(change, err) {
				return
			}
		}
	}
}

// changes is Diff below the prefixes, with the settle time applied and the counts kept.
func (s *Scanner) changes(ctx context.Context, store Store, sync state.Sync, prefixes []string, result *Result) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		moving := map[string]time.Time{}
		stopped := false
		for prefix, listed := range s.listings(ctx, prefixes) {
			known := func(yield func(state.KnownDocument, error) bool) {
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
			if s.sort {
				listed = inOrder(listed)
			}
			err := merge(listed, known, func(p pair) bool {
				if p.err != nil {
					result.incomplete(p.err)
					return true
				}
				result.see(&p)
				if s.unsettled(&p, moving, result) {
					return true
				}
				change, ok := p.change()
				result.count(&p, change, ok)
				stopped = ok && !yield(change, nil)
				return !stopped
			})
			if order, ok := errors.AsType[*OrderError](err); ok && order.Stream == "listing" {
				// Whatever the listing says from here on, it can't show what is missing.
				result.disordered = true
				result.incomplete(err)
				err = nil
			}
			if err != nil {
				yield(state.Change{}, err)
				return
			}
			if stopped {
				return
			}
		}
		if len(result.Again) > keptAgain {
			result.Again = prefixes
		}
		s.keepMoving(moving, prefixes, result)
	}
}

// listings yields each prefix with what is listed below it. Single documents are listed ahead, several at a time.
func (s *Scanner) listings(ctx context.Context, prefixes []string) iter.Seq2[string, iter.Seq2[Entry, error]] {
	return func(yield func(string, iter.Seq2[Entry, error]) bool) {
		if s.opts.Lookups < 2 || len(prefixes) < 2 {
			for _, prefix := range prefixes {
				if !yield(prefix, s.root.List(ctx, prefix)) {
					return
				}
			}
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		var lookups gosync.WaitGroup
		defer lookups.Wait()
		defer cancel()
		type item struct {
			entry Entry
			err   error
		}
		found := make([]chan []item, len(prefixes)) // nil for a folder
		started := 0
		for i, prefix := range prefixes {
			// In the order in which they are wanted, so that whoever waits, waits for what goes on.
			for ; started < len(prefixes) && started < i+s.opts.Lookups; started++ {
				key := prefixes[started]
				if key == "" || key[len(key)-1] == '/' {
					continue
				}
				answer := make(chan []item, 1)
				found[started] = answer
				lookups.Go(func() {
					var items []item
					for e, err := range s.root.List(ctx, key) {
						items = append(items, item{e, err})
					}
					answer <- items
				})
			}
			if found[i] == nil {
				if !yield(prefix, s.root.List(ctx, prefix)) {
					return
				}
				continue
			}
			items := <-found[i]
			if !yield(prefix, func(yield func(Entry, error) bool) {
				for _, it := range items {
					if !yield(it.entry, it.err) {
						return
					}
				}
			}) {
				return
			}
		}
	}
}

// unsettled says whether what is listed is new or changed and may still be being written, and counts it then.
func (s *Scanner) unsettled(p *pair, moving map[string]time.Time, result *Result) bool {
	if !p.isListed || !p.differs() {
		return false
	}
	seen := p.entry.Seen
	if seen.IsZero() {
		seen = s.now()
	}
	at := SettledAt(p.entry.Fingerprint, seen, s.opts.Settle)
	if !at.After(seen) {
		return false
	}
	result.Unsettled++
	if fp := p.entry.Fingerprint; !p.isKnown && fp.CTime != 0 && seen.Sub(time.Unix(0, fp.MTime)) >= s.opts.Settle {
		result.young++
	}
	if at.After(result.SettleAt) {
		result.SettleAt = at
	}
	key := p.entry.Key
	if len(result.Again) <= keptAgain {
		result.Again = append(result.Again, key)
	}
	since, ok := s.moving[key]
	if !ok || since.After(seen) { // a clock that was set back
		since = seen
	}
	if len(moving) < keptMoving {
		moving[key] = since
	}
	if seen.Sub(since) >= s.opts.MaxWait {
		if result.Restless++; len(result.RestlessKeys) < keptRestless {
			result.RestlessKeys = append(result.RestlessKeys, key)
		}
	}
	return true
}

// keepMoving makes moving, what has not settled below the prefixes, part of what the scanner remembers. What a listing could
// not show is still as it was.
func (s *Scanner) keepMoving(moving map[string]time.Time, prefixes []string, result *Result) {
	if result.IncompleteCount == 0 {
		maps.DeleteFunc(s.moving, func(key string, _ time.Time) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return covers(prefix, key) })
		})
	}
	for key, since := range moving {
		if len(s.moving) < keptMoving {
			s.moving[key] = since
		}
	}
}

// see counts a pair.
func (r *Result) see(p *pair) {
	if p.isKnown {
		r.Known++
	}
	if p.isListed {
		r.Listed++
		if p.entry.Skip != "" {
			r.Skipped[p.entry.Skip]++
		}
	}
}

// count counts what a pair asks for, if anything.
func (r *Result) count(p *pair, change state.Change, ok bool) {
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
