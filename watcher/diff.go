package watcher

import (
	"errors"
	"iter"

	"github.com/kbsync/kbsync/state"
)

// Diff compares a listing with the known documents, both in byte order of the key, in constant memory. It yields one Pair for
// each key that is listed, known or both, in order. Pair.Change returns the change to record:
//
//   - Put for a document that is new, has another fingerprint, or was skipped and is not any more;
//   - Skip for a document that must not be uploaded, if it was not skipped before, or with another reason or fingerprint;
//   - Vanish for a document that is known but not listed.
//
// Diff yields each *ListError of the listing and continues. After the first one no document vanishes any more, because it may be
// in the part that was not listed; the caller takes back the documents that vanished before it. Any other error ends the
// comparison, including an *OrderError.
func Diff(listed iter.Seq2[Entry, error], known iter.Seq2[state.KnownDocument, error]) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		next, stop := iter.Pull2(known)
		defer stop()
		c := comparison{yield: yield, next: next}
		if !c.advance() {
			return
		}
		for e, err := range listed {
			if !c.visit(e, err) {
				return
			}
		}
		for c.hasKnown && c.visitKnown() {
		}
	}
}

// A Pair is one key with its listed and its known version, at least one of which exists.
type Pair struct {
	entry      Entry
	known      state.KnownDocument
	isListed   bool
	isKnown    bool
	incomplete bool // the listing lacks a part before the key
}

// Change returns the change to record for the key; false if there is none.
func (p *Pair) Change() (state.Change, bool) {
	switch {
	case !p.isListed:
		return state.Change{Op: state.Vanish, Key: p.known.Key, Fingerprint: p.known.Fingerprint}, !p.incomplete
	case !p.differs():
		return state.Change{}, false
	case p.entry.Skip != "":
		return state.Change{Op: state.Skip, Key: p.entry.Key, Fingerprint: p.entry.Fingerprint, Reason: p.entry.Skip}, true
	default:
		return state.Change{Op: state.Put, Key: p.entry.Key, Fingerprint: p.entry.Fingerprint}, true
	}
}

// differs reports whether the listed version is not the known one.
func (p *Pair) differs() bool {
	if p.entry.Unreadable && p.isKnown && p.known.Skip == "" {
		return false
	}
	return !p.isKnown || p.entry.Fingerprint != p.known.Fingerprint || p.entry.Skip != p.known.Skip
}

// A comparison is a running Diff. Its methods return false when the Diff has ended.
type comparison struct {
	yield func(Pair, error) bool
	next  func() (state.KnownDocument, error, bool)

	known    state.KnownDocument // the next known document
	hasKnown bool
	started  bool // a known document was read

	previous   string // the key of the last entry
	hasEntry   bool
	incomplete bool
}

// advance reads the next known document.
func (c *comparison) advance() bool {
	previous := c.known.Key
	var err error
	c.known, err, c.hasKnown = c.next()
	if c.hasKnown && err == nil && c.started && c.known.Key <= previous {
		err = &OrderError{Stream: streamState, Previous: previous, Key: c.known.Key}
	}
	if c.hasKnown && err != nil {
		c.yield(Pair{}, err)
		return false
	}
	c.started = true
	return true
}

// visitKnown yields the next known document as not listed.
func (c *comparison) visitKnown() bool {
	return c.yield(Pair{known: c.known, isKnown: true, incomplete: c.incomplete}, nil) && c.advance()
}

// visit yields an entry, after the known documents before it, or an error of the listing.
func (c *comparison) visit(e Entry, err error) bool {
	if partial, ok := errors.AsType[*ListError](err); ok {
		c.incomplete = true
		return c.yield(Pair{}, partial)
	}
	if err == nil && c.hasEntry && e.Key <= c.previous {
		err = &OrderError{Stream: streamListing, Previous: c.previous, Key: e.Key}
	}
	if err != nil {
		c.yield(Pair{}, err)
		return false
	}
	c.previous, c.hasEntry = e.Key, true
	for c.hasKnown && c.known.Key < e.Key {
		if !c.visitKnown() {
			return false
		}
	}
	p := Pair{entry: e, isListed: true, incomplete: c.incomplete}
	if c.hasKnown && c.known.Key == e.Key {
		p.known, p.isKnown = c.known, true
	}
	return c.yield(p, nil) && (!p.isKnown || c.advance())
}
