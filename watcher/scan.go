package watcher

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/kbsync/kbsync/state"
)

// KnownDocuments yields the known documents of a sync.
type KnownDocuments interface {
	Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[state.KnownDocument, error]
}

// A Recorder records the changes of one scan.
type Recorder interface {
	Begin(ctx context.Context, syncID int64, prefix string) (state.Scan, error)
	Record(ctx context.Context, scan state.Scan, changes []state.Change) error
	Drop(ctx context.Context, scan state.Scan) error
}

// A Counter counts the removals of a complete scan, in all or below a directory.
type Counter interface {
	Count(ctx context.Context, scan state.Scan) (state.ScanCount, error)
	CountBelow(ctx context.Context, scan state.Scan, directory string) (state.ScanCount, error)
}

// A Remover counts and carries out the removals of a complete scan.
type Remover interface {
	Counter
	Finish(ctx context.Context, scan state.Scan, identity string) (removed int, err error)
}

// A Store is the part of the state that a scan uses.
type Store interface {
	KnownDocuments
	Recorder
	Remover
}

var _ Store = (*state.Scans)(nil)

// ScanOptions configure a Scanner. The zero value is the most careful one.
type ScanOptions struct {
	Settle        time.Duration // the quiet time after which a file counts as written; at least 20 ms
	TakeUnsettled bool          // take files that may still be written to: for a preview
	MaxDelete     Limit
	MaxChange     Limit
	AllowEmpty    bool // a root or a directory that lists nothing removes the documents that were known there
	AcceptNewRoot bool // another root may list under half of the known documents
	// MaxWait is how long a document may keep changing before the scan reports it as restless, until it settles. If zero, it is
	// ten times Settle and at least a minute.
	MaxWait time.Duration
	// Lookups is the number of single documents that are listed at a time if many are to be scanned; one if zero. Above one,
	// several goroutines use the root.
	Lookups int
	// Rest is how long a changed document is held back after its last upload; see state.Scan.
	Rest time.Duration
	// Edited returns how many documents have another content than the one that was uploaded last. Documents that cannot be read, and
	// documents that change meanwhile, do not count: nothing of them is uploaded now. Without it, each document counts.
	Edited func(ctx context.Context, sync state.Sync, documents []state.Change) (edited int, err error)
	// Resizable reports whether a document of this key and size may be one that was edited in nothing that counts, although its
	// size has changed. Edited then decides. Without it, each change of the size is an edit.
	Resizable func(key string, size int64) bool
}

// A Scanner records the changes of a root. One goroutine at a time may use it. It remembers between scans what it has
// seen of each unsettled document, in bounded memory.
type Scanner struct {
	root Root
	opts ScanOptions
	now  func() time.Time
	// wall returns the time of the wall clock. A test moves it against the monotonic clock.
	wall func(time.Time) time.Time
	// unsettled has the documents that have not settled, by key.
	unsettled map[string]sighting
	// hasWriter reports during a scan whether a process has a document open for writing.
	hasWriter func(ctx context.Context, key string) bool
	sort      bool // the root does not list in byte order

	began, wallBegan time.Time
	offset           time.Duration // of the wall clock to the monotonic one, against that at the beginning
	stepped          bool          // the wall clock was set, at steppedAt by the monotonic one
	steppedAt        time.Duration
}

// NewScanner returns a Scanner of the root.
func NewScanner(root Root, opts ScanOptions) *Scanner {
	if opts.MaxWait <= 0 {
		opts.MaxWait = max(10*opts.Settle, time.Minute)
	}
	s := &Scanner{root: root, opts: opts, now: time.Now, unsettled: map[string]sighting{}, began: time.Now()}
	s.wall = func(t time.Time) time.Time { return t.Round(0) } // without the monotonic clock
	s.wallBegan = s.wall(s.began)
	return s
}

// batchSize is the number of changes in one transaction.
const batchSize = 1000

// Scan lists the documents below prefix and records the difference to the known ones: settled documents that are new or changed
// become pending or skipped, and documents that are gone are removed. Scan makes one pass: documents that have not settled are
// left for another scan at Result.SettleAt.
//
// An incomplete listing records the changes it found and removes nothing; that is not an error, see Result.Incomplete. A root that
// does not list in byte order is listed a second time and sorted. A *GuardError removes and supersedes nothing, and the caller must not
// upload: new documents are recorded as pending. ErrRootMissing and every other error leave no removal behind, except an error of the state
// during the removals: another scan removes the rest.
func (s *Scanner) Scan(ctx context.Context, store Store, sync state.Sync, prefix string) (Result, error) {
	return s.ScanAll(ctx, store, sync, []string{prefix})
}

// ScanAll scans several prefixes, which may overlap, as one scan: a document that vanished below one prefix may be a rename to
// another, the guards weigh all removals together, and nothing is removed if any prefix is incomplete. Without prefixes it does
// nothing.
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
			// The changes of the first listing are recorded.
			result.New += first.New
			result.Changed += first.Changed
			result.Unchanged = max(0, result.Unchanged-first.New-first.Changed)
		}
	}
	if err != nil && prefixes[0] != "" {
		// Removals in a part prove little. The whole root shows whether it is in order.
		if _, halted := errors.AsType[*GuardError](err); halted {
			return s.scan(ctx, store, sync, []string{""})
		}
	}
	return result, err
}

// scan scans the prefixes once.
func (s *Scanner) scan(ctx context.Context, store Store, sync state.Sync, prefixes []string) (_ Result, err error) {
	result := Result{Prefixes: prefixes, Skipped: map[string]int{}}
	identity, err := s.root.Identity(ctx)
	if err != nil {
		return result, err
	}
	mounts, err := s.findMounts(ctx, sync.RootIdentity, &result)
	if err != nil {
		return result, err
	}
	// The first prefix stands for all of them: the state only tests whether it is the whole root.
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
		// The marks of the removals must go even if the context has ended.
		if dropped := store.Drop(context.WithoutCancel(ctx), scan); dropped != nil && err == nil {
			err = dropped
		}
	}()
	held := &edits{}
	if err := s.record(ctx, store, scan, held.withhold(s.changes(ctx, store, sync, prefixes, &result))); err != nil {
		return result, err
	}
	c := check{sync: sync, scan: scan, identity: identity, vanished: result.Removed, result: &result}
	result.Removed = 0 // until the state has removed them
	after, err := s.root.Identity(ctx)
	if err != nil {
		return result, err
	}
	if after != identity {
		result.incomplete(ErrRootChanged)
	}
	if err := s.checkSameMounts(ctx, mounts, &result); err != nil {
		return result, err
	}
	if result.disordered && !s.sort {
		result.Changed -= held.resized + held.similar // the sorted listing finds them
		return result, nil
	}
	complete, err := s.weigh(ctx, store, c, held)
	if err != nil || !complete {
		return result, err
	}
	result.Removed, err = store.Finish(ctx, scan, withMounts(identity, mounts))
	finished = err == nil
	return result, err
}

// weigh asks the guards, and records the edits if they pass. It reports whether the documents that vanished may be removed.
func (s *Scanner) weigh(ctx context.Context, store Store, c check, held *edits) (complete bool, err error) {
	result := c.result
	w := &weighing{Scanner: s, store: store, sync: c.sync, prefixes: result.Prefixes, edits: held}
	if err := w.check(ctx, result.uploaded); err != nil {
		return false, err
	}
	switch {
	case result.IncompleteCount > 0:
	case c.vanished > 0 && result.renaming > 0:
		// A vanished document may exist under a new name that has not settled. Removals wait for that name.
		result.Again = result.Prefixes
	default:
		complete = true
		count, err := s.checkGuards(ctx, store, c)
		if err != nil {
			return false, err
		}
		result.Renamed = count.Renamed
	}
	return complete, w.record(ctx, store, c.scan)
}

// record records the changes in batches.
func (s *Scanner) record(ctx context.Context, recorder Recorder, scan state.Scan, changes iter.Seq2[state.Change, error]) error {
	batch := make([]state.Change, 0, batchSize)
	for change, err := range changes {
		if err != nil {
			return err
		}
		if batch = append(batch, change); len(batch) < batchSize {
			continue
		}
		if err := recorder.Record(ctx, scan, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	if len(batch) == 0 {
		return nil
	}
	return recorder.Record(ctx, scan, batch)
}
