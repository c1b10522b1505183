package watcher

import (
	"context"
	"iter"
	"slices"
	gosync "sync"
)

const (
	// listedAtOnce is the number of parts of a listing that are requested at a time.
	listedAtOnce = 8
	// objectsAhead is about the number of objects that a listing reads ahead.
	objectsAhead = 1 << 15
	// partPages is the number of pages from which on a listing is split, and about the number of pages of a part.
	partPages = 4
)

// pagesInParts yields the pages of the objects whose keys begin with prefix, in the order of pages, but requests several at a time:
// a listing of more than a few pages is split by its folders. See divide. Errors: see fetch.
func (b *Bucket) pagesInParts(ctx context.Context, prefix string) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		l := &partedListing{bucket: b, ctx: ctx, parts: []*part{{prefix: prefix}}}
		l.changed = gosync.NewCond(&l.mu)
		defer l.workers.Wait()
		defer cancel()
		context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changed.Broadcast()
		})
		l.begin()
		last := ""
		for {
			p, more, err := l.next()
			if err != nil && l.split && faultOf(err) == faultPermanent && ctx.Err() == nil {
				// The permission may be for the whole folder only.
				b.flat.Store(true)
				b.restOf(ctx, prefix, last, yield)
				return
			}
			if err != nil {
				yield(page{}, err)
				return
			}
			if !more || !yield(p, nil) {
				return
			}
			if len(p.objects) > 0 {
				last = p.objects[len(p.objects)-1].key
			}
		}
	}
}

// restOf yields the pages of the objects whose keys begin with prefix and come after the key last.
func (b *Bucket) restOf(ctx context.Context, prefix, last string, yield func(page, error) bool) {
	for p, err := range b.pages(ctx, prefix) {
		if !b.unordered() {
			p.objects = slices.DeleteFunc(p.objects, func(o object) bool { return o.key <= last })
		}
		if !yield(p, err) {
			return
		}
	}
}

// A partedListing lists parts at the same time.
type partedListing struct {
	bucket  *Bucket
	ctx     context.Context
	workers gosync.WaitGroup

	mu      gosync.Mutex
	changed *gosync.Cond // something below has changed, or ctx has ended
	parts   []*part      // that were not yielded completely, in order
	running int          // parts that are being listed
	ahead   int          // objects that were read and not yielded, and those of the pages that are being requested
	per     int          // the most objects in a page
	split   bool
}

// A part is a part of a listing.
type part struct {
	prefix string
	weight float64  // the estimated number of pages; zero for unknown
	sample []object // some of the first objects, which an earlier listing has shown; nil for none

	begun, done bool
	pages       []page // that were not yielded
	err         error  // after the pages

	// For the goroutine that lists the part.
	single   string      // the folder in which all objects of the part are
	names    []levelName // directly below single; nil for unknown
	whole    bool        // the part cannot be split
	reserved int         // objects of the page that is being requested
}

// begin begins to list the next parts, in order.
func (l *partedListing) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.parts {
		if l.running == listedAtOnce || p.err != nil {
			break
		}
		if !p.begun && !p.done {
			p.begun = true
			l.running++
			l.workers.Go(func() { l.list(p) })
		}
	}
	l.changed.Broadcast()
}

// next returns the next page.
func (l *partedListing) next() (_ page, more bool, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.parts) > 0 {
		if l.ctx.Err() != nil {
			return page{}, false, context.Cause(l.ctx)
		}
		p := l.parts[0]
		switch {
		case len(p.pages) > 0:
			next := p.pages[0]
			p.pages[0] = page{}
			p.pages = p.pages[1:]
			l.ahead -= len(next.objects)
			l.changed.Broadcast()
			return next, true, nil
		case p.err != nil:
			return page{}, false, p.err
		case p.done:
			l.parts[0] = nil
			l.parts = l.parts[1:]
			l.changed.Broadcast()
		default:
			l.changed.Wait()
		}
	}
	return page{}, false, nil
}

// list lists a part, or splits it.
func (l *partedListing) list(p *part) {
	err := l.listOrSplit(p)
	l.mu.Lock()
	p.done, p.err = true, err
	l.running--
	l.mu.Unlock()
	l.begin()
}

// listOrSplit lists a part. It drops the first pages if they show that the part is large and can be split.
func (l *partedListing) listOrSplit(p *part) error {
	const looks = 2 // after partPages pages, and after twice as many
	p.single, p.whole = p.prefix, l.bucket.flat.Load()
	if p.weight > looks*partPages && l.splitPart(p, p.sample) {
		return nil
	}
	p.sample = nil
	var held []page // that must not be yielded if the part is split
	if !l.reserve(p) {
		return context.Cause(l.ctx)
	}
	for next, err := range l.bucket.pages(l.ctx, p.prefix) {
		next.objects = objectsBelow(next.objects, p.prefix)
		l.arrived(p, len(next.objects))
		if err != nil {
			l.show(p, held)
			return err
		}
		held = append(held, next)
		if next.last {
			p.whole = true
		} else if !p.whole && len(held)%partPages == 0 && float64(len(held)) >= p.weight {
			var sample []object
			for _, h := range held {
				sample = append(sample, h.objects...)
			}
			if l.splitPart(p, sample) {
				l.arrived(p, -len(sample))
				return nil
			}
		}
		p.whole = p.whole || len(held) >= looks*partPages
		if p.whole {
			l.show(p, held)
			held = nil
		}
		if !next.last && !l.reserve(p) {
			return context.Cause(l.ctx)
		}
	}
	return nil
}

// splitPart replaces a part by parts of it. It returns false if that cannot be done, or would not make the listing faster.
func (l *partedListing) splitPart(p *part, sample []object) bool {
	if p.whole {
		return false
	}
	l.mu.Lock()
	per := max(l.per, 1)
	l.mu.Unlock()
	const depth = 100 // a store could answer with deeper and deeper folders
	parts := divide(p.names, sample, per, p.weight)
	for n := 0; p.names == nil || len(parts) == 1 && !parts[0].done; n++ {
		// If everything is in one folder, the listing is split by the names in it.
		if parts != nil {
			p.single = parts[0].prefix
		}
		names, ok := l.bucket.level(l.ctx, p.single)
		if p.whole = !ok || n == depth; p.whole {
			return false
		}
		p.names = names
		parts = divide(p.names, sample, per, p.weight)
	}
	if parts == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, into := range parts {
		for _, page := range into.pages {
			l.ahead += len(page.objects)
		}
	}
	i := slices.Index(l.parts, p)
	l.parts = slices.Replace(l.parts, i, i+1, parts...)
	l.split = true
	return true
}

// reserve waits until there is room for another page of the part. It returns false if ctx has ended.
func (l *partedListing) reserve(p *part) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The first part always continues, because the others wait for it.
	for l.ctx.Err() == nil && l.parts[0] != p && l.ahead+l.per > objectsAhead {
		l.changed.Wait()
	}
	p.reserved = l.per
	l.ahead += p.reserved
	return l.ctx.Err() == nil
}

// arrived ends a reservation. n is the number of objects that are held now.
func (l *partedListing) arrived(p *part, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.per = max(l.per, n)
	l.ahead += n - p.reserved
	p.reserved = 0
	l.changed.Broadcast()
}

// show lets next return the pages.
func (l *partedListing) show(p *part, pages []page) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.pages = append(p.pages, pages...)
	l.changed.Broadcast()
}
