package watcher

import (
	"cmp"
	"slices"
	"strings"
	gosync "sync"
	"time"
)

// Outermost returns the prefixes in order, without the prefixes that another one covers: "" covers every key, "a/" every key
// that begins with it, and "a" only itself. It may change the slice.
func Outermost(prefixes []string) []string {
	slices.Sort(prefixes)
	if len(prefixes) > 0 && prefixes[0] == "" {
		return prefixes[:1]
	}
	kept := prefixes[:0]
	within := ""
	for i, p := range prefixes {
		if i > 0 && p == kept[len(kept)-1] || within != "" && strings.HasPrefix(p, within) {
			continue
		}
		if kept = append(kept, p); p[len(p)-1] == '/' {
			within = p
		}
	}
	return kept
}

const (
	// With more names than this in one directory, the directory is dirty: listing it is faster than looking at each name.
	dirtyNames = 32
	// With more names than this in all, the whole root is dirty.
	dirtyTotal = 2000
)

// A dirtySet is a set of prefixes of bounded size: many prefixes in one directory become one prefix. The zero value is empty.
type dirtySet struct {
	// maxNames bounds the names in one directory, and maxTotal the names in all; zero for dirtyNames and dirtyTotal.
	maxNames, maxTotal int

	whole bool
	names map[string][]string // by directory; the name of a directory ends in a slash
	total int                 // number of names
}

// add adds a prefix: "", a directory with a slash at its end, or a document.
func (d *dirtySet) add(prefix string) {
	for !d.whole {
		if prefix == "" || d.total >= cmp.Or(d.maxTotal, dirtyTotal) {
			d.clear()
			d.whole = true
			return
		}
		slash := strings.LastIndexByte(prefix[:len(prefix)-1], '/')
		dir, name := prefix[:slash+1], prefix[slash+1:]
		names := d.names[dir]
		if slices.Contains(names, name) {
			return
		}
		if len(names) < cmp.Or(d.maxNames, dirtyNames) {
			if d.names == nil {
				d.names = map[string][]string{}
			}
			d.names[dir] = append(names, name)
			d.total++
			return
		}
		delete(d.names, dir)
		d.total -= len(names)
		prefix = dir
	}
}

func (d *dirtySet) clear() { d.whole, d.names, d.total = false, nil, 0 }

// take returns the outermost prefixes in order, and empties the set.
func (d *dirtySet) take() []string {
	defer d.clear()
	if d.whole {
		return []string{""}
	}
	prefixes := make([]string, 0, d.total)
	for dir, names := range d.names {
		for _, name := range names {
			prefixes = append(prefixes, dir+name)
		}
	}
	if len(prefixes) == 0 {
		return nil
	}
	return Outermost(prefixes)
}

// A dirtyQueue holds the dirty prefixes of a root and wakes the scanner of the root.
type dirtyQueue struct {
	wake  chan struct{}
	delay time.Duration

	mu    gosync.Mutex
	dirty dirtySet
	timer *time.Timer // of the next wakeup; nil if there is none
	ended bool
}

func newDirtyQueue(delay time.Duration) dirtyQueue {
	return dirtyQueue{wake: make(chan struct{}, 1), delay: delay}
}

// Wake returns a channel that holds one value when a prefix is dirty, Delay after the first change. Take may have taken that
// prefix already. The channel is never closed.
func (q *dirtyQueue) Wake() <-chan struct{} { return q.wake }

// Take returns the prefixes that may have changed since the last Take, for Scanner.ScanAll, and removes them from the queue. A
// caller that cannot scan them marks them again. They are in order, and none covers another: "" alone for the whole root, a
// directory's key with a slash at its end for every key below it, or a document's key. It returns nil if nothing is dirty.
func (q *dirtyQueue) Take() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dirty.take()
}

// Mark makes prefixes dirty and wakes the scanner as a change does.
func (q *dirtyQueue) Mark(prefixes ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mark(prefixes...)
}

// mark is Mark; the caller holds mu.
func (q *dirtyQueue) mark(prefixes ...string) {
	for _, p := range prefixes {
		q.dirty.add(p)
	}
	if len(prefixes) == 0 || q.ended || q.timer != nil {
		return
	}
	if q.delay <= 0 {
		q.sendWake()
		return
	}
	q.timer = time.AfterFunc(q.delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.timer = nil; !q.ended {
			q.sendWake()
		}
	})
}

func (q *dirtyQueue) sendWake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// stop ends all wakeups; the caller holds mu.
func (q *dirtyQueue) stop() {
	q.ended = true
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}
