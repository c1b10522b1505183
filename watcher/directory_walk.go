package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A frame is a directory that is being walked.
type frame struct {
	folder  *folder
	key     string // ends in a slash; "" for the root
	ignores *ignoreFile
	parent  *frame
	self    info // see identity
	publication
}

// A walk is one listing.
type walk struct {
	*Directory
	ctx     context.Context
	root    *os.Root
	buffer  []byte
	looks   []look // of the files that are yielded next
	yield   func(Entry, error) bool
	stopped bool
	left    *LeftOut // nil if nothing is counted
	partial bool     // a part was not listed
	// clocks says which file systems have time stamps from another clock, by device.
	clocks map[uint64]bool
}

// List yields the documents below prefix; see Root. It holds the names of the entries of each directory from the root to the
// current one in memory, and one file descriptor for each. Reading a file's metadata needs no permission on the file.
func (d *Directory) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return d.listBelow(ctx, prefix, nil)
}

// Survey lists all documents and counts what it leaves out; see Surveyor.
func (d *Directory) Survey(ctx context.Context, left *LeftOut) iter.Seq2[Entry, error] {
	return d.listBelow(ctx, "", left)
}

func (d *Directory) listBelow(ctx context.Context, prefix string, left *LeftOut) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if left != nil {
			left.begin(d.filter)
		}
		w, top, err := d.begin(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer w.end()
		defer top.folder.close()
		w.yield, w.left = yield, left
		w.descend(top, prefix)
		if left != nil {
			left.end(d.filter, !w.partial && !w.stopped)
		}
	}
}

// begin opens the root for a walk. The caller ends the walk and closes the frame.
func (d *Directory) begin(ctx context.Context) (_ *walk, _ *frame, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	root, err := d.open()
	if err != nil {
		return nil, nil, err
	}
	w := &walk{Directory: d, ctx: ctx, root: root}
	folder, err := openFolder(root, ".")
	if err != nil {
		w.end()
		return nil, nil, d.openError(err)
	}
	return w, &frame{folder: folder}, nil
}

func (w *walk) end() { w.root.Close() }

// report yields an error of a part of the listing. A rule file that was not understood ends the listing: documents that it was
// meant to leave out may be pending since an earlier scan.
func (w *walk) report(path string, err error) {
	w.partial = true
	switch {
	case w.stopped:
	case endsListing(err):
		w.emit(Entry{}, err)
		w.stopped = true
	default:
		w.emit(Entry{}, &ListError{Path: path, Err: err})
	}
}

func (w *walk) emit(e Entry, err error) {
	if !w.yield(e, err) {
		w.stopped = true
	}
}

// descend walks from f to the prefix, and lists it.
func (w *walk) descend(f *frame, prefix string) {
	if err := w.readIgnores(f); err != nil {
		w.report(f.key, err)
		return
	}
	name, rest, isDir := strings.Cut(prefix, "/")
	if prefix == "" {
		w.list(f)
		return
	}
	if !validName(name) {
		return
	}
	n, err := w.lookExactly(f, name)
	defer w.checkSwaps(f)
	switch {
	case errors.Is(err, errGone):
	case err != nil:
		w.report(f.key+prefix, err)
	case isDir && n.kind == kindDirectory:
		w.enter(f, n, func(child *frame) { w.descend(child, rest) })
	case !isDir && n.kind == kindFile:
		w.files(f, []node{n})
	}
}

// look returns the node of a name in f.
func (w *walk) look(f *frame, name string) (node, error) {
	if w.hidden(f, name) {
		return node{}, errGone
	}
	info, err := f.folder.stat(w.nameIn(f, name))
	if errors.Is(err, errGone) {
		return w.lookForPlaceholder(f, name)
	}
	if err != nil {
		return node{}, err
	}
	n := node{name: name, kind: info.kind}
	if n.kind == kindLink {
		if n, err = w.follow(f, n); err != nil {
			return n, err
		}
	}
	if n.kind == kindDirectory {
		n.name += "/"
	}
	return n, nil
}

// follow returns the target of a link. The node stays a link if links are not followed, and if the link leads nowhere, in a circle
// or out of the root.
func (w *walk) follow(f *frame, n node) (node, error) {
	key := f.key + n.name
	if !w.published(f, n.name) && !w.links {
		return n, nil
	}
	info, err := w.stat(key)
	if err != nil {
		if leadsNowhere(err) {
			return n, nil
		}
		return n, err
	}
	n.kind, n.via = info.kind, true
	if n.kind == kindDirectory {
		for up := f; up != nil; up = up.parent {
			if self := up.identity(); self.device == info.device && self.fingerprint.Inode == info.fingerprint.Inode && info.fingerprint.Inode != 0 {
				n.kind = kindLink // to a directory above it
			}
		}
	}
	return n, nil
}

// stat returns the metadata of key and follows all links. It tries again if the key is missing, because the ..data link of a
// mounted ConfigMap may change between two steps of one lookup.
func (w *walk) stat(key string) (info, error) {
	var i info
	var err error
	for range 3 {
		var fi fs.FileInfo
		if fi, err = throughLinks(w.root, filepath.FromSlash(key), w.root.Stat); err == nil {
			return infoOf(fi), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return i, err
}

// leadsNowhere reports whether the target of a link, not an error of the system, is the reason that it cannot be followed.
func leadsNowhere(err error) bool {
	if errors.Is(err, fs.ErrClosed) {
		return false
	}
	number, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return true // from os.Root: the path escapes, or has too many links
	}
	return errors.Is(err, fs.ErrNotExist) || number == syscall.ELOOP || number == syscall.ENOTDIR
}

// readIgnores sets f's ignores: its own ignore file and those of the directories above.
func (w *walk) readIgnores(f *frame) error {
	if f.parent != nil {
		f.ignores = f.parent.ignores
	}
	key := f.key + ignoreName
	if _, err := f.folder.stat(ignoreName); err != nil {
		if errors.Is(err, errGone) {
			return nil
		}
		return fmt.Errorf("read %s: %w", ignoreName, err)
	}
	data, err := w.readRuleFile(key)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && errors.Is(w.lookAgain(f), errGone):
		return nil
	case errors.Is(err, errNoRuleFile), errors.Is(err, fs.ErrPermission), leadsNowhere(err):
		return &RuleFileError{Path: key, Err: err}
	default:
		return &UnavailableError{Root: filepath.Join(w.path, filepath.FromSlash(key)), Err: err}
	}
	ignores, err := parseIgnore(data, f.key, f.ignores)
	if err != nil {
		return err
	}
	if w.left != nil {
		ignores.count()
	}
	f.ignores = ignores
	return nil
}

// lookAgain returns the error of looking for the ignore file.
func (w *walk) lookAgain(f *frame) error {
	_, err := f.folder.stat(ignoreName)
	return err
}

var errNoRuleFile = fmt.Errorf("it is not a regular file of at most %s", sizeText(maxIgnoreSize))

func (w *walk) readRuleFile(key string) ([]byte, error) {
	file, err := openThroughLinks(w.root, key)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxIgnoreSize {
		return nil, errNoRuleFile
	}
	return io.ReadAll(io.LimitReader(file, maxIgnoreSize))
}

// enter opens the directory n of f and calls visit with it, unless the filter leaves it out.
func (w *walk) enter(f *frame, n node, visit func(*frame)) {
	key := f.key + n.name
	if v := w.filter.directory(key[:len(key)-1], f.ignores, w.left.rules()); v.out {
		w.left.directory(key[:len(key)-1], &v, w.filter)
		return
	}
	var child *folder
	var err error
	if n.via {
		child, err = openFolder(w.root, filepath.FromSlash(key[:len(key)-1]))
	} else {
		child, err = f.folder.child(w.nameIn(f, n.name[:len(n.name)-1]))
	}
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		w.report(key, err)
		return
	}
	defer child.close()
	visit(&frame{folder: child, key: key, parent: f})
}

// list yields the documents in f and below it. Its ignores were read.
func (w *walk) list(f *frame) {
	nodes, err := w.read(f)
	if errors.Is(err, errGone) && f.parent != nil {
		return
	}
	if err != nil {
		if errors.Is(err, errGone) {
			err = fmt.Errorf("%s: %w", w.path, ErrRootMissing)
		}
		if f.parent == nil {
			w.emit(Entry{}, fmt.Errorf("read root: %w", err))
			w.stopped = true
			return
		}
		w.report(f.key, err)
		return
	}
	for len(nodes) > 0 && w.goesOn() {
		if nodes[0].kind == kindFile {
			nodes = nodes[w.files(f, nodes):]
			continue
		}
		w.enter(f, nodes[0], func(child *frame) {
			if err := w.readIgnores(child); err != nil {
				w.report(child.key, err)
				return
			}
			w.list(child)
		})
		nodes = nodes[1:]
	}
	w.checkSwaps(f)
	if w.left != nil && f.ignores != nil && f.ignores.dir == f.key {
		w.left.ignoreFile(f.ignores)
	}
}

// goesOn reports whether the walk has not been stopped.
func (w *walk) goesOn() bool {
	if w.stopped {
		return false
	}
	if err := w.ctx.Err(); err != nil {
		w.emit(Entry{}, err)
		w.stopped = true
	}
	return !w.stopped
}

// read returns the files and directories in f, sorted.
func (w *walk) read(f *frame) ([]node, error) {
	if w.fault != nil {
		if err := w.fault(f.key); err != nil {
			return nil, err
		}
	}
	if w.buffer == nil {
		w.buffer = make([]byte, 64<<10)
	}
	nodes, err := f.folder.read(w.buffer)
	if err != nil {
		return nil, err
	}
	if f.isSynced == unknown && slices.ContainsFunc(nodes, func(n node) bool { return isWorktree(n.name) }) {
		w.findSynced(f, nodes)
	}
	kept := nodes[:0]
	for _, n := range nodes {
		if w.hidden(f, n.name) {
			continue
		}
		if n.kind == kindUnknown || n.kind == kindLink && (w.links || w.published(f, n.name)) {
			found, err := w.look(f, n.name)
			if errors.Is(err, errGone) {
				continue
			}
			if err != nil {
				w.report(f.key+n.name, err)
				if w.stopped {
					return nil, nil
				}
				continue
			}
			n = found
		} else if n.kind == kindDirectory {
			n.name += "/"
		}
		if n.kind == kindFile || n.kind == kindDirectory {
			kept = append(kept, n)
		} else if w.left != nil {
			w.left.entry(f.key+n.name, n.kind)
		}
	}
	kept = placeholders(kept)
	slices.SortFunc(kept, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return kept, nil
}

// isForeign reports whether the time stamps of the file n of f come from another clock than this machine's.
func (w *walk) isForeign(f *frame, n node, device uint64) bool {
	foreign, known := w.clocks[device]
	if !known {
		foreign = w.foreign(f.folder, n, device)
		if w.clocks == nil {
			w.clocks = map[uint64]bool{}
		}
		w.clocks[device] = foreign
		w.noteClock(device, foreign)
	}
	return foreign
}
