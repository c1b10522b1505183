package watcher

import (
	"errors"
	"iter"

	"github.com/kbsync/kbsync/state"
)

// Diff compares a listing with what is known, both in byte order of the key, in constant memory. It yields
//
//   - Put for a document that is new, whose fingerprint changed, or that was skipped and need not be any more;
//   - Skip for one that is not to be uploaded, where that, the reason or the fingerprint is new;
//   - Vanish for one that is known but not listed.
//
// After the first *ListError nothing vanishes any more: what is missing may be where the listing could not look. The error is
// passed on, and what was yielded before it is for the caller to take back. Any other error ends the comparison, an
// *OrderError among them.
func Diff(listed iter.Seq2[Entry, error], known iter.Seq2[state.KnownDocument, error]) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		err := merge(listed, known, func(p pair) bool {
			if p.err != nil {
				return yield(state.Change{}, p.err)
			}
			change, ok := p.change()
			return !ok || yield(change, nil)
		})
		if err != nil {
			yield(state.Change{}, err)
		}
	}
}

// A pair is one key with what the listing and the state have of it.
type pair struct {
	entry    Entry
	known    state.KnownDocument
	isListed bool
	isKnown  bool
	broken   bool       // a part of the listing before it, or after it, is missing
	err      *ListError // instead of everything else
}

// change returns what the pair asks for, and false if it is nothing.
func (p *pair) change() (state.Change, bool) {
	switch {
	case !p.isListed:
		return state.Change{Op: state.Vanish, Key: p.known.Key}, !p.broken
	case p.entry.Hold || !p.differs():
		return state.Change{}, false
	case p.entry.Skip != "":
		return state.Change{Op: state.Skip, Key: p.entry.Key, Fingerprint: p.entry.Fingerprint, Reason: p.entry.Skip}, true
	default:
		return state.Change{Op: state.Put, Key: p.entry.Key, Fingerprint: p.entry.Fingerprint}, true
	}
}

// differs says whether what is listed is not what is known.
func (p *pair) differs() bool {
	if p.entry.Unreadable && p.isKnown && p.known.Skip == "" {
		return false
	}
	return !p.isKnown || p.entry.Fingerprint != p.known.Fingerprint || p.entry.Skip != p.known.Skip
}

// merge calls visit for every key that is listed, known or both, in order, until it returns false.
func merge(listed iter.Seq2[Entry, error], known iter.Seq2[state.KnownDocument, error], visit func(pair) bool) (err error) {
	next, stop := iter.Pull2(known)
	defer stop()
	var k state.KnownDocument
	var have, started bool
	advance := func() error {
		previous := k.Key
		var failed error
		k, failed, have = next()
		if have && failed != nil {
			return failed
		}
		if have && started && k.Key <= previous {
			return &OrderError{Stream: "state", Previous: previous, Key: k.Key}
		}
		started = true
		return nil
	}
	if err := advance(); err != nil {
		return err
	}
	var previous string
	var first, broken, stopped = true, false, false
	for e, failed := range listed {
		if failed != nil {
			partial, ok := errors.AsType[*ListError](failed)
			if !ok {
				err = failed
				break
			}
			broken = true
			if !visit(pair{err: partial}) {
				stopped = true
				break
			}
			continue
		}
		if !first && e.Key <= previous {
			err = &OrderError{Stream: "listing", Previous: previous, Key: e.Key}
			break
		}
		previous, first = e.Key, false
		for have && k.Key < e.Key {
			if !visit(pair{known: k, isKnown: true, broken: broken}) {
				stopped = true
				break
			}
			if err = advance(); err != nil {
				break
			}
		}
		if err != nil || stopped {
			break
		}
		p := pair{entry: e, isListed: true, broken: broken}
		if have && k.Key == e.Key {
			p.known, p.isKnown = k, true
		}
		if !visit(p) {
			stopped = true
			break
		}
		if p.isKnown {
			if err = advance(); err != nil {
				break
			}
		}
	}
	if err != nil || stopped {
		return err
	}
	for have {
		if !visit(pair{known: k, isKnown: true, broken: broken}) {
			return nil
		}
		if err := advance(); err != nil {
			return err
		}
	}
	return nil
}
