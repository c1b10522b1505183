package watcher

import (
	"context"
	"fmt"
	"iter"

	"github.com/kbsync/kbsync/state"
)

// An edit is a change that leaves a source behind: a version of the document was sent, and the listing shows another one. Edits
// are recorded only after the guards have weighed all of the scan: a mass of them is more often an accident (truncated files,
// another branch, pointers in place of documents) than an intention.
type edit uint8

const (
	noEdit  edit = iota
	similar      // only the content can show whether it is an edit
	resized
	leftOut // the document must not be uploaded any more: it is empty, say
)

// edit returns the kind of edit of a pair that differs. resizable is that of ScanOptions.
func (p *Pair) edit(resizable func(key string, size int64) bool) edit {
	switch {
	case !p.isListed || !p.isKnown || p.known.NeverUploaded || p.known.Skip != "":
		return noEdit
	case p.entry.Skip != "":
		return leftOut
	case p.entry.Fingerprint.Size != p.known.Fingerprint.Size && (resizable == nil || !resizable(p.entry.Key, p.entry.Fingerprint.Size)):
		return resized
	}
	return similar
}

// A finding is a change, and its weight for the guards.
type finding struct {
	state.Change
	edit          edit
	neverUploaded bool
}

// keptEdits bounds the edits that are kept in memory. If a scan finds more, it lists the root again to record them.
const keptEdits = 10_000

// edits are the edits of one scan.
type edits struct {
	kept                      []finding // the first ones
	leftOut, resized, similar int       // similar must be read to know
	empty                     int       // those of leftOut that are empty now
	example                   string    // the key of one
}

func (e *edits) count() int { return e.leftOut + e.resized + e.similar }

func (e *edits) add(f finding) {
	switch f.edit {
	case leftOut:
		e.leftOut++
		if f.Fingerprint.Size == 0 {
			e.empty++
		}
	case resized:
		e.resized++
	default:
		e.similar++
	}
	if e.example == "" || f.edit == leftOut && e.leftOut == 1 {
		e.example = f.Key
	}
	if len(e.kept) < keptEdits {
		e.kept = append(e.kept, f)
	}
}

// withhold yields the findings that are no edits, and adds the others to e.
func (e *edits) withhold(findings iter.Seq2[finding, error]) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		for f, err := range findings {
			if err == nil && f.edit != noEdit {
				e.add(f)
				continue
			}
			if !yield(f.Change, err) {
				return
			}
		}
	}
}

// checkAtOnce is the number of documents that ScanOptions.Edited gets at a time.
const checkAtOnce = 256

// A weighing is what decides about the edits of a scan, and records them.
type weighing struct {
	*Scanner
	store    KnownDocuments
	sync     state.Sync
	prefixes []string
	edits    *edits
}

// all yields all edits of the scan, in order. It lists the root again if they are more than the kept ones.
func (w *weighing) all(ctx context.Context) iter.Seq2[finding, error] {
	if len(w.edits.kept) == w.edits.count() {
		return func(yield func(finding, error) bool) {
			for _, f := range w.edits.kept {
				if !yield(f, nil) {
					return
				}
			}
		}
	}
	return func(yield func(finding, error) bool) {
		var scratch Result
		scratch.Skipped = map[string]int{}
		for f, err := range w.changes(ctx, w.store, w.sync, w.prefixes, &scratch) {
			if (err != nil || f.edit != noEdit) && !yield(f, err) {
				return
			}
		}
	}
}

// check returns a *GuardError if more of the known documents were edited than MaxChange allows.
//
// A change of the size is an edit, unless ScanOptions.Resizable says otherwise. A document of the same size may be an edit, or it was only touched, checked out again or
// restored. Such documents are read only if they decide: not while all of them together are within the limit, and only until they
// are surely within it or above it.
func (w *weighing) check(ctx context.Context, known int) error {
	limit := w.opts.MaxChange
	sure, open := w.edits.leftOut+w.edits.resized, w.edits.similar
	undecided := func() bool { return limit.exceeded(sure+open, known) && !limit.exceeded(sure, known) }
	if w.opts.Edited != nil && undecided() {
		for chunk, err := range w.similarChunks(ctx) {
			if err != nil {
				return err
			}
			n, err := w.opts.Edited(ctx, w.sync, chunk)
			if err != nil {
				return fmt.Errorf("compare changed documents: %w", err)
			}
			sure, open = sure+n, max(open-len(chunk), 0)
			if !undecided() {
				break
			}
		}
	}
	if !limit.exceeded(sure+open, known) {
		return nil
	}
	return &GuardError{
		Guard: GuardMaxChange, Sync: w.sync.Name, Root: w.sync.Root, Known: known, Limit: limit,
		Changed: sure + open, Empty: w.edits.empty, Example: w.edits.example,
	}
}

// similarChunks yields the documents that must be read, some at a time.
func (w *weighing) similarChunks(ctx context.Context) iter.Seq2[[]state.Change, error] {
	return func(yield func([]state.Change, error) bool) {
		chunk := make([]state.Change, 0, checkAtOnce)
		for f, err := range w.all(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			if f.edit != similar {
				continue
			}
			if chunk = append(chunk, f.Change); len(chunk) < checkAtOnce {
				continue
			}
			if !yield(chunk, nil) {
				return
			}
			chunk = chunk[:0]
		}
		if len(chunk) > 0 {
			yield(chunk, nil)
		}
	}
}

// record records the edits, when all guards of the scan have passed. If the root was listed again, and shows more edits by now, the rest is
// left to the next scan, which weighs them.
func (w *weighing) record(ctx context.Context, recorder Recorder, scan state.Scan) error {
	left := w.edits.count()
	if left == 0 {
		return nil
	}
	return w.Scanner.record(ctx, recorder, scan, func(yield func(state.Change, error) bool) {
		for f, err := range w.all(ctx) {
			if left--; left < 0 || !yield(f.Change, err) {
				return
			}
		}
	})
}
