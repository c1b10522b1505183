package watcher

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	gosync "sync"

	"github.com/kbsync/kbsync/state"
)

// changes yields the changes of Diff below the prefixes, except those of documents that have not settled, and counts in result.
func (s *Scanner) changes(ctx context.Context, store KnownDocuments, sync state.Sync, prefixes []string, result *Result) iter.Seq2[finding, error] {
	return func(yield func(finding, error) bool) {
		var vacant vacantDirectories
		unsettled := map[string]sighting{}
		left := &LeftOut{}
		if tree, ok := s.root.(DirectoryTree); ok {
			var end func()
			s.hasWriter, end = tree.Writers()
			defer end()
		}
		for prefix, listed := range s.listings(ctx, prefixes, left) {
			if s.sort {
				listed = inOrder(listed)
			}
			for p, err := range Diff(listed, knownBelow(readAhead(store.Known(ctx, sync.ID, prefix)), prefix)) {
				if err != nil && !result.takeError(err) {
					yield(finding{}, err)
					return
				}
				if err != nil {
					continue
				}
				result.countPair(&p)
				result.countMounts(&p)
				vacant.visit(&p)
				if s.holdUnsettled(ctx, &p, unsettled, result) {
					continue
				}
				change, ok := p.Change()
				result.countChange(&p, change, ok)
				if !ok {
					continue
				}
				if !yield(finding{change, p.edit(s.opts.Resizable), p.known.NeverUploaded}, nil) {
					return
				}
			}
		}
		result.vacant = vacant.end()
		if len(result.Again) > keptAgain {
			result.Again = prefixes
		}
		s.rememberUnsettled(unsettled, prefixes, result)
		if left.matched != nil {
			result.LeftOut = left
		}
	}
}

// takeError counts an error of the listing that makes the result incomplete; false if the error ends the scan.
func (r *Result) takeError(err error) bool {
	if order, ok := errors.AsType[*OrderError](err); ok && order.Stream == streamListing {
		// The rest of the listing cannot show which documents are missing.
		r.disordered = true
	} else if _, ok := errors.AsType[*ListError](err); !ok {
		return false
	}
	r.incomplete(err)
	return true
}

// knownBelow yields the known documents that prefix covers. The state also yields keys that merely begin with prefix.
func knownBelow(known iter.Seq2[state.KnownDocument, error], prefix string) iter.Seq2[state.KnownDocument, error] {
	return func(yield func(state.KnownDocument, error) bool) {
		for k, err := range known {
			if err != nil {
				yield(k, err)
				return
			}
			if covers(prefix, k.Key) && !yield(k, nil) {
				return
			}
		}
	}
}

// listings yields each prefix with its listing. With ScanOptions.Lookups it lists single documents ahead, several at a time. A
// listing of the whole root counts in left what it leaves out.
func (s *Scanner) listings(ctx context.Context, prefixes []string, left *LeftOut) iter.Seq2[string, iter.Seq2[Entry, error]] {
	return func(yield func(string, iter.Seq2[Entry, error]) bool) {
		ctx, cancel := context.WithCancel(ctx)
		l := lookups{root: s.root, prefixes: prefixes, found: make([]chan []lookup, len(prefixes))}
		defer l.running.Wait()
		defer cancel()
		for i, prefix := range prefixes {
			if s.opts.Lookups >= 2 && len(prefixes) >= 2 {
				l.start(ctx, i+s.opts.Lookups)
			}
			var listed iter.Seq2[Entry, error]
			if l.found[i] != nil {
				listed = lookupsOf(<-l.found[i])
			} else if surveyor, ok := s.root.(Surveyor); ok && prefix == "" {
				listed = surveyor.Survey(ctx, left)
			} else {
				listed = s.root.List(ctx, prefix)
			}
			if !yield(prefix, listed) {
				return
			}
		}
	}
}

// lookups are the listings of single documents that run ahead of the scan.
type lookups struct {
	root     Root
	prefixes []string
	found    []chan []lookup // by prefix; nil for a folder
	started  int
	running  gosync.WaitGroup
}

// A lookup is one result of the listing of a single document.
type lookup struct {
	entry Entry
	err   error
}

// start starts the listings of the single documents before the index end. It starts them in the order of the scan, so that the
// scan waits for a listing that runs already.
func (l *lookups) start(ctx context.Context, end int) {
	for ; l.started < min(end, len(l.prefixes)); l.started++ {
		key := l.prefixes[l.started]
		if key == "" || key[len(key)-1] == '/' {
			continue
		}
		found := make(chan []lookup, 1)
		l.found[l.started] = found
		l.running.Go(func() {
			var results []lookup
			for e, err := range l.root.List(ctx, key) {
				results = append(results, lookup{e, err})
			}
			found <- results
		})
	}
}

func lookupsOf(results []lookup) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, r := range results {
			if !yield(r.entry, r.err) {
				return
			}
		}
	}
}

// holdUnsettled reports whether a listed document is new or changed and may still be written to. It counts such a document.
func (s *Scanner) holdUnsettled(ctx context.Context, p *Pair, unsettled map[string]sighting, result *Result) bool {
	if !p.isListed || !p.differs() || s.opts.TakeUnsettled {
		return false
	}
	seen := p.entry.Seen
	if seen.IsZero() {
		seen = s.now()
	}
	s.watchClock(seen)
	key, fp := p.entry.Key, p.entry.Fingerprint
	now, again := s.look(key, fp, s.elapsed(seen))
	held := s.pauseOf(ctx, &p.entry, seen, now)
	if held.wait <= 0 {
		if again && p.edit(s.opts.Resizable) != noEdit && len(unsettled) < keptUnsettled {
			unsettled[key] = now // the edits may be listed again to be recorded
		}
		return false
	}
	result.Unsettled++
	if !p.isKnown && held.resting {
		result.renaming++
	}
	if at := seen.Add(held.wait); at.After(result.SettleAt) {
		result.SettleAt = at
	}
	if len(result.Again) <= keptAgain {
		result.Again = append(result.Again, key)
	}
	if len(unsettled) < keptUnsettled {
		unsettled[key] = now
	} else {
		result.Postponed++
	}
	if s.elapsed(seen)-now.since >= s.opts.MaxWait {
		if result.Restless++; len(result.RestlessKeys) < keptRestless {
			result.RestlessKeys = append(result.RestlessKeys, key)
		}
	}
	return true
}

// rememberUnsettled stores the documents below the prefixes that have not settled. An incomplete listing leaves the documents that
// it did not show as they were.
func (s *Scanner) rememberUnsettled(unsettled map[string]sighting, prefixes []string, result *Result) {
	if result.IncompleteCount == 0 {
		maps.DeleteFunc(s.unsettled, func(key string, _ sighting) bool {
			return slices.ContainsFunc(prefixes, func(prefix string) bool { return covers(prefix, key) })
		})
	}
	for key, seen := range unsettled {
		if len(s.unsettled) < keptUnsettled {
			s.unsettled[key] = seen
		}
	}
}
