package watcher

import (
	"cmp"
	"slices"
	"strings"
	gosync "sync"
	"time"
)

// Outermost returns the prefixes in order and without those that another one contains: "" contains everything, "a/" everything that
// begins with it, and "a" nothing but itself. It may change the slice it is given.
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
	// From so many names in one directory on, the directory is dirty: looking at each would take longer than listing it.
	dirtyNames = 32
	// From so many names on, the whole root is dirty.
	dirtyTotal = 2000
)

// A dirt is a set of prefixes, of bounded size: what would be too many small ones becomes a larger one. The zero value is empty.
type dirt struct {
	// From more than mostNames names in one directory on, the directory is dirty, and from mostTotal names on everything; zero
	// for dirtyNames and dirtyTotal.
	mostNames, mostTotal int

	whole bool
	names map[string][]string // by the directory that they are in; those of directories with a slash at the end
	total int                 // of names
}

// add adds a prefix: "", a directory with a slash at its end, or a document.
func (d *dirt) add(prefix string) {
	for !d.whole {
		if prefix == "" || d.total >= cmp.Or(d.mostTotal, dirtyTotal) {
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
		if len(names) < cmp.Or(d.mostNames, dirtyNames) {
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

func (d *dirt) clear() { d.whole, d.names, d.total = false, nil, 0 }

// take returns the prefixes, the outermost of them in order, and empties the set.
func (d *dirt) take() []string {
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

// marks are what is dirty, and a wake for whoever scans it.
type marks struct {
	wake  chan struct{}
	delay time.Duration

	mu    gosync.Mutex
	dirty dirt
	timer *time.Timer // of a wake that is to come; nil if none
	ended bool
}

func newMarks(delay time.Duration) marks { return marks{wake: make(chan struct{}, 1), delay: delay} }

// Wake returns the channel on which one value waits when something is dirty, Delay after the first change. A value may be left
// of changes that were taken already. It is never closed.
func (m *marks) Wake() <-chan struct{} { return m.wake }

// Take returns the prefixes that may have changed since the last Take, for Scanner.ScanAll, and forgets them: whoever can't
// scan them marks them again. They are in order and none contains another: "" alone for the whole root, a directory's key
// with a slash at its end for all below it, or a document's key. It returns nil if nothing is dirty.
func (m *marks) Take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dirty.take()
}

// Mark makes prefixes dirty, and wakes, as a change would.
func (m *marks) Mark(prefixes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mark(prefixes...)
}

// mark is Mark with mu held.
func (m *marks) mark(prefixes ...string) {
	for _, p := range prefixes {
		m.dirty.add(p)
	}
	if len(prefixes) == 0 || m.ended || m.timer != nil {
		return
	}
	if m.delay <= 0 {
		m.ring()
		return
	}
	m.timer = time.AfterFunc(m.delay, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.timer = nil; !m.ended {
			m.ring()
		}
	})
}

func (m *marks) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// stop makes that nothing wakes any more; mu is held.
func (m *marks) stop() {
	m.ended = true
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}
