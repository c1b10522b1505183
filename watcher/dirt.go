package watcher

import (
	"slices"
	"strings"
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
	whole bool
	names map[string][]string // by the directory that they are in; those of directories with a slash at the end
	total int                 // of names
}

// add adds a prefix: "", a directory with a slash at its end, or a document.
func (d *dirt) add(prefix string) {
	for !d.whole {
		if prefix == "" || d.total >= dirtyTotal {
			*d = dirt{whole: true}
			return
		}
		slash := strings.LastIndexByte(prefix[:len(prefix)-1], '/')
		dir, name := prefix[:slash+1], prefix[slash+1:]
		names := d.names[dir]
		if slices.Contains(names, name) {
			return
		}
		if len(names) < dirtyNames {
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

// take returns the prefixes, the outermost of them in order, and empties the set.
func (d *dirt) take() []string {
	if d.whole {
		*d = dirt{}
		return []string{""}
	}
	prefixes := make([]string, 0, d.total)
	for dir, names := range d.names {
		for _, name := range names {
			prefixes = append(prefixes, dir+name)
		}
	}
	*d = dirt{}
	if len(prefixes) == 0 {
		return nil
	}
	return Outermost(prefixes)
}
