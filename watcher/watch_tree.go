package watcher

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// A fileID identifies a directory of the file system.
type fileID struct{ device, inode uint64 }

// A watchedDirectory is a directory of the root that has a watch.
type watchedDirectory struct {
	name     string
	parent   *watchedDirectory // nil for the root
	children map[string]*watchedDirectory
	id       fileID
	ignores  *ignoreFile
	links    []string // names of followed symbolic links; a link to a directory ends in a slash
	// swaps are the links by which others publish versions of the directory, with their targets.
	swaps map[string]string
}

// key returns the directory's key with a slash at its end; "" for the root.
func (d *watchedDirectory) key() string {
	if d.parent == nil {
		return ""
	}
	return d.parent.key() + d.name + "/"
}

// followedLinks appends the keys of the followed links in d and below it.
func (d *watchedDirectory) followedLinks(keys []string) []string {
	if len(d.links) > 0 {
		key := d.key()
		for _, name := range d.links {
			keys = append(keys, key+name)
		}
	}
	for _, child := range d.children {
		keys = child.followedLinks(keys)
	}
	return keys
}

// followLink records a symbolic link, as one to a file and as one to a directory.
func (d *watchedDirectory) followLink(name string) {
	for _, known := range d.links {
		if known == name || known == name+"/" {
			return
		}
	}
	d.links = append(d.links, name, name+"/")
}

// walk opens the root and calls visit with it.
func (s *watchSession) walk(ctx context.Context, visit func(*walk, *frame) error) error {
	w, top, err := s.dir.begin(ctx)
	if err != nil {
		return cmp.Or(s.walkError("", err), err)
	}
	defer w.end()
	defer top.folder.close()
	var failed error
	w.buffer = s.buffer
	w.yield = func(_ Entry, err error) bool {
		if failed == nil {
			failed = s.walkError("", err)
		}
		return failed == nil
	}
	if err := visit(w, top); err != nil {
		return err
	}
	s.buffer = w.buffer
	return failed
}

// addTree watches the directory of f and all directories below it. It skips a directory that was removed or cannot be read:
// an event follows when that changes.
func (s *watchSession) addTree(w *walk, f *frame, parent *watchedDirectory, name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	d, err := s.addWatch(f, parent, name)
	if d == nil || err != nil {
		return err
	}
	// The ignore file and the directory are read after the watch is set, so that a change in the meantime causes an event.
	if err := w.readIgnores(f); err != nil {
		return s.walkError(f.key, err)
	}
	d.ignores = f.ignores
	nodes, err := w.read(f)
	if err != nil {
		return s.walkError(f.key, err)
	}
	s.setSwaps(d, f.links)
	if s.entries += len(nodes); watchPerFile && s.entries > maxWatchedEntries {
		return &mustPollError{reason: fmt.Sprintf("it has more than %d files and directories, and this system needs an open file to watch each", maxWatchedEntries)}
	}
	for _, n := range nodes {
		switch {
		case n.via && w.links:
			d.links = append(d.links, strings.Clone(n.name))
		case n.via, n.kind != kindDirectory:
		default:
			var err error
			w.enter(f, n, func(child *frame) { err = s.addTree(w, child, d, strings.Clone(n.name[:len(n.name)-1])) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// addWatch watches the directory of f alone. It returns nil if the directory was removed or cannot be read.
func (s *watchSession) addWatch(f *frame, parent *watchedDirectory, name string) (*watchedDirectory, error) {
	self, err := f.folder.self()
	if err != nil {
		return nil, s.walkError(f.key, err)
	}
	id := fileID{self.device, self.fingerprint.Inode}
	if parent == nil || id.device != parent.id.device {
		if reason := unreliableEvents(f.folder); reason != "" {
			return nil, &mustPollError{reason: withDirectory(reason, f.key)}
		}
	}
	if err := s.dropMoved(id, f.key); err != nil {
		return nil, err
	}
	if s.fault != nil {
		if err := s.fault(f.key); err != nil {
			return nil, s.walkError(f.key, err)
		}
	}
	if err := s.notifier.Add(s.pathOf(f.key)); err != nil {
		return nil, s.walkError(f.key, err)
	}
	// The watch is set by path. If a link is there by now, it leads to another directory, which may get a watch of its own, and the system
	// has one for each: the two would share it, and end it together. A later replacement causes an event, because the directory above has a watch.
	if parent != nil && id.inode != 0 && !s.isAt(f.key, id) {
		if _, exists := s.directoryInfo(f.key); exists {
			return nil, errDirectorySwapped
		}
	}
	d := &watchedDirectory{name: name, parent: parent, id: id}
	s.count++
	if parent == nil {
		s.root = d
	} else {
		if parent.children == nil {
			parent.children = map[string]*watchedDirectory{}
		}
		parent.children[name] = d
	}
	if id.inode != 0 {
		s.byID[id] = d
	}
	return d, nil
}

// dropMoved ends the watch that the directory has under an earlier key. The system has one watch for a directory, and a
// moved directory keeps it under the old path. It returns a *mustPollError if the directory is at both keys.
func (s *watchSession) dropMoved(id fileID, key string) error {
	old := s.byID[id]
	if old == nil || id.inode == 0 {
		return nil
	}
	if oldKey := old.key(); oldKey != key {
		if s.isAt(oldKey, id) && s.isAt(key, id) && s.isAt(oldKey, id) {
			return &mustPollError{reason: fmt.Sprintf("the directory %q is also mounted at %q, and events name only one of them", oldKey, key)}
		}
		// The event of the move is still to come. By then a file may be at the old key, and nothing records that a directory
		// was there.
		s.Mark(oldKey)
	}
	s.drop(old)
	return nil
}

// drop ends the watches of d and of all directories below it.
func (s *watchSession) drop(d *watchedDirectory) {
	for _, child := range d.children {
		s.drop(child)
	}
	// The watch has already ended if the directory was deleted or moved.
	_ = s.notifier.Remove(s.pathOf(d.key()))
	if s.byID[d.id] == d {
		delete(s.byID, d.id)
	}
	if d.parent != nil {
		delete(d.parent.children, d.name)
	}
	delete(s.swapped, d)
	s.count--
}

// setSwaps records the swapped links of a directory.
func (s *watchSession) setSwaps(d *watchedDirectory, links map[string]string) {
	if len(links) == 0 {
		return
	}
	d.swaps = links
	if s.swapped == nil {
		s.swapped = map[*watchedDirectory]bool{}
	}
	s.swapped[d] = true
}

// checkSwaps marks the directory if one of its links has another target than before.
func (s *watchSession) checkSwaps(d *watchedDirectory) {
	for name, before := range d.swaps {
		target, _ := os.Readlink(s.pathOf(d.key() + name)) // empty if there is none
		if target != before {
			d.swaps[name] = target
			s.Mark(d.key())
		}
	}
}

// handleSwap handles an event of a name that is internal to a published directory, or is the link that publishes it.
func (s *watchSession) handleSwap(parent *watchedDirectory, name string) (handled bool) {
	_, isMount := parent.swaps[dataLink]
	if _, known := parent.swaps[name]; known || isMount && strings.HasPrefix(name, "..") {
		s.checkSwaps(parent)
		return true
	}
	target, err := os.Readlink(s.pathOf(parent.key() + name))
	if err != nil || name != dataLink && !publishes(target) {
		return false
	}
	// It is the first version.
	swaps := maps.Clone(parent.swaps)
	if swaps == nil {
		swaps = map[string]string{}
	}
	swaps[name] = target
	s.setSwaps(parent, swaps)
	s.Mark(parent.key())
	return true
}

// addPath watches the directory at key, which ends in a slash, and all directories below it, and marks it dirty. The
// directory has no watch yet.
func (s *watchSession) addPath(ctx context.Context, key string) error {
	err := s.walk(ctx, func(w *walk, top *frame) error { return s.addPathBelow(w, top, s.root, key) })
	s.setDirectories(s.count)
	s.Mark(key)
	return err
}

// addPathBelow walks from f, the directory d, along the path rest and adds the tree at its end.
func (s *watchSession) addPathBelow(w *walk, f *frame, d *watchedDirectory, rest string) error {
	f.ignores = d.ignores
	name, rest, _ := strings.Cut(rest, "/")
	n, err := w.lookExactly(f, name)
	if err != nil {
		return s.walkError(f.key+name, err)
	}
	if n.kind != kindDirectory || n.via {
		return nil
	}
	w.enter(f, n, func(child *frame) {
		if rest == "" {
			err = s.addTree(w, child, d, name)
		} else if next := d.children[name]; next != nil {
			err = s.addPathBelow(w, child, next, rest)
		}
	})
	return err
}

// find returns the watched directory that contains key, and the last part of the key; nil if that directory has no watch.
func (s *watchSession) find(key string) (*watchedDirectory, string) {
	d := s.root
	for {
		name, rest, ok := strings.Cut(key, "/")
		if !ok {
			return d, name
		}
		if d = d.children[name]; d == nil {
			return nil, ""
		}
		key = rest
	}
}

// pathOf returns the path of a directory by its key.
func (s *watchSession) pathOf(key string) string {
	return filepath.Join(s.path, filepath.FromSlash(key))
}

// keyOf returns the key of the path in an event, without a slash at its end.
func (s *watchSession) keyOf(path string) (string, bool) {
	if path == s.path {
		return "", true
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(s.path, string(filepath.Separator)))
	if !ok || len(rest) < 2 || !os.IsPathSeparator(rest[0]) {
		return "", false
	}
	return filepath.ToSlash(rest[1:]), true
}

// A directoryInfo describes the entry at a path, with its id if it is a directory.
type directoryInfo struct {
	isDir, isLink bool
	id            fileID
}

// directoryInfo describes the entry at key now; false if there is none.
func (s *watchSession) directoryInfo(key string) (directoryInfo, bool) {
	fi, err := os.Lstat(s.pathOf(key))
	if err != nil {
		return directoryInfo{}, false
	}
	at := directoryInfo{isDir: fi.IsDir(), isLink: fi.Mode()&fs.ModeSymlink != 0}
	if at.isDir {
		i := infoOf(fi)
		at.id = fileID{i.device, i.fingerprint.Inode}
	}
	return at, true
}

// isAt reports whether the directory id is at the key.
func (s *watchSession) isAt(key string, id fileID) bool {
	at, ok := s.directoryInfo(key)
	return ok && at.isDir && at.id == id
}
