package watcher

import (
	"context"
	"strings"
)

// aFew is the number of documents that may vanish from a directory which stays behind empty. More look like a file system that
// is not mounted there any more.
const aFew = 5

// keptVacant bounds the directories that are looked at.
const keptVacant = 100

// vacantDirectories finds the directories of which documents were uploaded and which list nothing now, outermost ones only. It gets the
// keys in byte order, and holds the directories of one key.
type vacantDirectories struct {
	last  string // the last key
	open  []openDirectory
	found []string // with a slash at the end
}

type openDirectory struct {
	length           int // of its key with the slash, in last
	uploaded, listed int
}

// visit counts one document.
func (v *vacantDirectories) visit(p *Pair) {
	key := p.entry.Key
	if !p.isListed {
		key = p.known.Key
	}
	for n := len(v.open); n > 0 && !strings.HasPrefix(key, v.last[:v.open[n-1].length]); n = len(v.open) {
		v.pop()
	}
	from := 0
	if n := len(v.open); n > 0 {
		from = v.open[n-1].length
	}
	for {
		slash := strings.IndexByte(key[from:], '/')
		if slash < 0 {
			break
		}
		from += slash + 1
		v.open = append(v.open, openDirectory{length: from})
	}
	v.last = key
	if len(v.open) == 0 {
		return
	}
	d := &v.open[len(v.open)-1]
	if p.isKnown && !p.known.NeverUploaded {
		d.uploaded++
	}
	if p.isListed {
		d.listed++
	}
}

// pop ends the innermost directory.
func (v *vacantDirectories) pop() {
	d := v.open[len(v.open)-1]
	v.open = v.open[:len(v.open)-1]
	if len(v.open) > 0 {
		parent := &v.open[len(v.open)-1]
		parent.uploaded += d.uploaded
		parent.listed += d.listed
	}
	if d.listed > 0 || d.uploaded <= aFew {
		return
	}
	key := v.last[:d.length]
	for n := len(v.found); n > 0 && strings.HasPrefix(v.found[n-1], key); n = len(v.found) {
		v.found = v.found[:n-1]
	}
	if len(v.found) < keptVacant {
		v.found = append(v.found, strings.Clone(key))
	}
}

// end returns the directories.
func (v *vacantDirectories) end() []string {
	for len(v.open) > 0 {
		v.pop()
	}
	return v.found
}

// A DirectoryTree is a root whose directories exist by themselves, unlike the folders of a bucket.
type DirectoryTree interface {
	// Vacant reports whether key, with a slash at its end, is a directory, and no file is anywhere below it.
	Vacant(ctx context.Context, key string) (bool, error)
	// Mounts returns the directories on which file systems are mounted, with a slash at their ends, where the system tells.
	Mounts(ctx context.Context) ([]string, error)
	// Writers returns a function that reports whether a process has a document open for writing, as far as the system tells this
	// process. One goroutine may use it, until it calls end. Until then the file system of the last document cannot be unmounted.
	Writers() (hasWriter func(ctx context.Context, key string) bool, end func())
	// CompareContents makes Open return the document only after two readings of the same size and content, at least the settle
	// time apart: its time stamps do not hold still. Until then Open returns state.ErrChanged at the end of each reading.
	CompareContents(key string)
}

var _ DirectoryTree = (*Directory)(nil)

// checkVacant returns a *GuardError if a directory was emptied that is still there, as a mount point without its file system is.
// Documents that were renamed do not count.
func (s *Scanner) checkVacant(ctx context.Context, counter Counter, c check) error {
	tree, ok := s.root.(DirectoryTree)
	if !ok || s.opts.AllowEmpty {
		return nil
	}
	for _, dir := range c.result.vacant {
		vacant, err := tree.Vacant(ctx, dir)
		if err != nil {
			return err
		}
		if !vacant {
			continue
		}
		count, err := counter.CountBelow(ctx, c.scan, dir)
		if err != nil {
			return err
		}
		if removals := count.Removals(); removals > aFew {
			return &GuardError{Guard: GuardEmptyDirectory, Sync: c.sync.Name, Root: c.sync.Root, Directory: dir, Known: removals, Removals: removals}
		}
	}
	return nil
}
