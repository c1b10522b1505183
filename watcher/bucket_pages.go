package watcher

import (
	"context"
	"errors"
	"iter"
)

// A page is a part of a listing.
type page struct {
	objects []object
	prefix  string // of the part
	last    bool   // no object of the part is on a later page
}

// maxIdlePages is how many pages in a row may bring nothing. Stores that skip many deleted versions return empty pages.
const maxIdlePages = 10_000

// pages yields the pages of the objects whose keys begin with prefix. A listing that repeats itself or goes on without bringing anything
// ends in an error, so that no document counts as removed. Errors: see fetch.
func (b *Bucket) pages(ctx context.Context, prefix string) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		progress := listingProgress{unordered: b.unordered()}
		for token := ""; ; {
			objects, next, err := b.fetch(ctx, prefix, token)
			if err == nil && !progress.advances(objects, next) {
				err = &UnavailableError{Root: b.url, Err: errors.New("the listing never ends: its pages repeat, or bring nothing")}
			}
			if err != nil {
				yield(page{}, err)
				return
			}
			if !yield(page{objects, prefix, next == ""}, nil) || next == "" {
				return
			}
			token = next
		}
	}
}

// A listingProgress finds out, in constant memory, that a listing never ends.
type listingProgress struct {
	unordered bool

	// Of an earlier page, which is replaced after 1, 2, 4, 8... pages: so every cycle is found within a few rounds.
	token, first string
	since, limit int

	greatest string // key
	idle     int    // pages in a row that brought nothing
}

// advances reports whether the listing may still end after a page and the token of the next one.
func (p *listingProgress) advances(objects []object, next string) bool {
	if next == "" {
		return true
	}
	first, last := "", ""
	if len(objects) > 0 {
		first, last = objects[0].key, objects[len(objects)-1].key
	}
	// In a listing that is not in order, the same first key means the same page.
	if next == p.token || p.unordered && len(objects) > 1 && first == p.first {
		return false
	}
	if p.since++; p.since > p.limit {
		p.token, p.first = next, first
		p.since, p.limit = 0, 2*p.limit+1
	}
	p.idle++
	if p.unordered && len(objects) > 0 || last > p.greatest {
		p.idle, p.greatest = 0, last
	}
	return p.idle < maxIdlePages
}
