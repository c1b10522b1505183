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
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kbsync/kbsync/state"
)

// DirectoryOptions of a Directory.
type DirectoryOptions struct {
	Filter    *Filter // nil: that of the zero FilterOptions
	CopyLinks bool    // follow symbolic links that stay inside the root
}

// A Directory is a root on a file system. It may be used by several goroutines.
//
// The path is opened anew for each listing and each document, so that a mount, a replaced directory or a link that was set elsewhere
// is noticed, and nothing is kept open between calls: a file system can be unmounted meanwhile.
// It may be a symbolic link itself, as git-sync makes it. Everything else is reached from the opened directory, and nothing outside
// of it, whatever is swapped in while a listing or an upload goes on.
//
// Only regular files are documents. Symbolic links are left out unless CopyLinks is set. A mounted Kubernetes ConfigMap is
// known by its ..data link: there, the links at the root that lead through it are followed, and names that begin with two dots
// are left out.
type Directory struct {
	path   string
	filter *Filter
	links  bool
	now    func() time.Time
	// fault, if not nil, is asked before a directory is read or a file's metadata is, and its error taken for the system's.
	fault func(key string) error
}

var _ Root = (*Directory)(nil)

// NewDirectory returns the root at path. It does not look at it yet.
func NewDirectory(path string, opts DirectoryOptions) *Directory {
	d := &Directory{path: path, filter: opts.Filter, links: opts.CopyLinks, now: time.Now}
	if d.filter == nil {
		d.filter = &Filter{}
	}
	return d
}

// Identity returns the device, the inode and the time of birth of what the path leads to now. Errors: ErrRootMissing.
func (d *Directory) Identity(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	root, err := d.open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	identity, err := identityOf(root)
	if err != nil {
		return "", fmt.Errorf("open root %s: %w", d.path, err)
	}
	return identity, nil
}

// open opens the path.
func (d *Directory) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, d.openError(err)
	}
	return root, nil
}

func (d *Directory) openError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", d.path, ErrRootMissing)
	}
	if info, statErr := os.Stat(d.path); errors.Is(err, syscall.ENOTDIR) || statErr == nil && !info.IsDir() {
		return fmt.Errorf("root %s is a file; name the directory that it is in, and take the file alone by an include", d.path)
	}
	return fmt.Errorf("open root: %w", err)
}

// errGone says that something was there when its directory was read, and is not any more.
var errGone = errors.New("gone")

// A node is a name in a directory.
type node struct {
	name string // of a directory with a slash at its end, which is what it is sorted by
	kind kind
	via  bool // a symbolic link that is followed
}

type kind uint8

const (
	kindUnknown kind = iota
	kindFile
	kindDirectory
	kindLink
	kindOther
)

// kindText names what is no document.
func kindText(k kind) string {
	if k == kindLink {
		return "a symbolic link"
	}
	return "not a regular file"
}

func kindOf(mode fs.FileMode) kind {
	switch {
	case mode.IsRegular():
		return kindFile
	case mode.IsDir():
		return kindDirectory
	case mode&fs.ModeSymlink != 0:
		return kindLink
	}
	return kindOther
}

// infoOfFile returns the metadata of an open file.
func infoOfFile(f *os.File) (info, error) {
	fi, err := f.Stat()
	if err != nil {
		return info{}, err
	}
	return infoOf(fi), nil
}

// An info is what a listing needs of a file's metadata.
type info struct {
	kind        kind
	device      uint64
	fingerprint state.Fingerprint
}

// A frame is a directory that is being walked.
type frame struct {
	folder  *folder
	key     string // with a slash at its end; "" for the root
	ignores *ignoreFile
	parent  *frame
	self    info // known only where links are followed
}

// A walk is one listing.
type walk struct {
	*Directory
	ctx     context.Context
	root    *os.Root
	mounted bool // the root is a mounted ConfigMap or the like
	buffer  []byte
	yield   func(Entry, error) bool
	stopped bool
}

// List yields the documents below prefix, as Root says. It holds the names of the directories from the root to where it is
// in memory, and a file descriptor for each. Reading a file's metadata needs no permission on the file.
func (d *Directory) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w, top, err := d.begin(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer w.end()
		defer top.folder.close()
		w.yield = yield
		before := w.mountTarget()
		w.descend(top, prefix)
		if !w.stopped && w.mountTarget() != before {
			// Old and new directories were seen; the old one may have been emptied meanwhile.
			w.report("..data", ErrRootChanged)
		}
	}
}

// begin opens the root for a walk, which is to be ended.
func (d *Directory) begin(ctx context.Context) (_ *walk, _ *frame, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	root, err := d.open()
	if err != nil {
		return nil, nil, err
	}
	w := &walk{Directory: d, ctx: ctx, root: root}
	defer func() {
		if err != nil {
			w.end()
		}
	}()
	folder, err := openFolder(root, ".")
	if err != nil {
		return nil, nil, d.openError(err)
	}
	data, err := folder.stat("..data")
	w.mounted = err == nil && data.kind == kindLink
	top := &frame{folder: folder}
	if err := w.identify(top); err != nil {
		folder.close()
		return nil, nil, fmt.Errorf("open root %s: %w", d.path, err)
	}
	return w, top, nil
}

func (w *walk) end() { w.root.Close() }

// mountTarget returns where the ..data link of a mounted ConfigMap leads.
func (w *walk) mountTarget() string {
	if !w.mounted {
		return ""
	}
	target, err := w.root.Readlink("..data")
	if err != nil {
		return err.Error()
	}
	return target
}

// identify notes which directory the frame is, where a link could lead to it again.
func (w *walk) identify(f *frame) (err error) {
	if w.links || w.mounted {
		f.self, err = f.folder.self()
	}
	return err
}

// report yields an error for a part of the listing.
func (w *walk) report(path string, err error) {
	if !w.stopped {
		w.emit(Entry{}, &ListError{Path: path, Err: err})
	}
}

func (w *walk) emit(e Entry, err error) {
	if !w.yield(e, err) {
		w.stopped = true
	}
}

// descend walks from f to the prefix, and lists what is there.
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
	n, err := w.look(f, name)
	switch {
	case errors.Is(err, errGone):
	case err != nil:
		w.report(f.key+prefix, err)
	case isDir && n.kind == kindDirectory:
		w.enter(f, n, func(child *frame) { w.descend(child, rest) })
	case !isDir && n.kind == kindFile:
		w.file(f, n)
	}
}

// look returns what a name in f stands for.
func (w *walk) look(f *frame, name string) (node, error) {
	if w.hidden(f, name) {
		return node{}, errGone
	}
	info, err := f.folder.stat(name)
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

// hidden says whether a name is part of how a ConfigMap is mounted.
func (w *walk) hidden(f *frame, name string) bool {
	return w.mounted && f.key == "" && strings.HasPrefix(name, "..")
}

// follow returns what a link leads to, where it is to be followed; else the node is still a link. A link that leads nowhere, in circles
// or out of the root is left a link, too: nothing is there to be listed.
func (w *walk) follow(f *frame, n node) (node, error) {
	key := f.key + n.name
	if !w.links {
		if !w.mounted || f.key != "" {
			return n, nil
		}
		target, err := w.root.Readlink(key)
		if err != nil || !strings.HasPrefix(filepath.ToSlash(target), "..data/") {
			return n, nil
		}
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
			if up.self.device == info.device && up.self.fingerprint.Inode == info.fingerprint.Inode && info.fingerprint.Inode != 0 {
				n.kind = kindLink // to a directory that it is in
			}
		}
	}
	return n, nil
}

// stat returns what is at key behind all links. A mounted ConfigMap's ..data may be set elsewhere between two steps of one
// lookup, so what seems to be missing is looked for again.
func (w *walk) stat(key string) (info, error) {
	var i info
	var err error
	for range 3 {
		var fi fs.FileInfo
		if fi, err = w.root.Stat(filepath.FromSlash(key)); err == nil {
			return infoOf(fi), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return i, err
}

// leadsNowhere says whether a link can't be followed because of what it says, rather than because of the system's state.
func leadsNowhere(err error) bool {
	if errors.Is(err, fs.ErrClosed) {
		return false
	}
	number, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return true // of os.Root: the path escapes from it, or has too many links
	}
	return errors.Is(err, fs.ErrNotExist) || number == syscall.ELOOP || number == syscall.ENOTDIR
}

// readIgnores makes f's ignores those of the directories around it and of its own ignore file.
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
	file, err := w.root.OpenFile(filepath.FromSlash(key), os.O_RDONLY|nonblock, 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", ignoreName, err)
	}
	defer file.Close()
	const limit = 1 << 20
	fi, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", ignoreName, err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > limit {
		return fmt.Errorf("%s is not a regular file of at most 1 MiB", ignoreName)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit))
	if err != nil {
		return fmt.Errorf("read %s: %w", ignoreName, err)
	}
	ignores, err := parseIgnore(data, f.key, f.ignores)
	if err != nil {
		return err
	}
	f.ignores = ignores
	return nil
}

// enter opens the directory n of f, unless it is left out, and calls visit with it.
func (w *walk) enter(f *frame, n node, visit func(*frame)) {
	key := f.key + n.name
	if w.filter.directory(key[:len(key)-1], f.ignores).out {
		return
	}
	var child *folder
	var err error
	if n.via {
		child, err = openFolder(w.root, filepath.FromSlash(key[:len(key)-1]))
	} else {
		child, err = f.folder.child(n.name[:len(n.name)-1])
	}
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		w.report(key, err)
		return
	}
	defer child.close()
	down := &frame{folder: child, key: key, parent: f}
	if err := w.identify(down); err != nil {
		w.report(key, err)
		return
	}
	visit(down)
}

// list yields what is in f and below it. Its ignores were read.
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
	for _, n := range nodes {
		if w.stopped {
			return
		}
		if err := w.ctx.Err(); err != nil {
			w.emit(Entry{}, err)
			w.stopped = true
			return
		}
		switch n.kind {
		case kindFile:
			w.file(f, n)
		case kindDirectory:
			w.enter(f, n, func(child *frame) {
				if err := w.readIgnores(child); err != nil {
					w.report(child.key, err)
					return
				}
				w.list(child)
			})
		}
	}
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
	kept := nodes[:0]
	for _, n := range nodes {
		if w.hidden(f, n.name) {
			continue
		}
		if n.kind == kindUnknown || n.kind == kindLink && (w.links || w.mounted && f.key == "") {
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
		}
	}
	slices.SortFunc(kept, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return kept, nil
}

// file yields the file n of f, unless it is left out.
func (w *walk) file(f *frame, n node) {
	key := f.key + n.name
	if w.filter.document(key, f.ignores).out {
		return
	}
	seen := w.now()
	i, err := w.inspect(f, n)
	switch {
	case errors.Is(err, errGone):
	case err != nil:
		w.report(key, err)
	case i.kind == kindFile:
		w.emit(Entry{Key: key, Fingerprint: i.fingerprint, Skip: w.filter.skip(i.fingerprint.Size), Seen: seen}, nil)
	}
}

// inspect returns the metadata of a file.
func (w *walk) inspect(f *frame, n node) (info, error) {
	if w.fault != nil {
		if err := w.fault(f.key + n.name); err != nil {
			return info{}, err
		}
	}
	if !n.via {
		return f.folder.stat(n.name)
	}
	i, err := w.stat(f.key + n.name)
	if err != nil && leadsNowhere(err) {
		return i, errGone
	}
	return i, err
}

// validName says whether name can be a name in a directory.
func validName(name string) bool {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return false
	}
	return runtime.GOOS != "windows" || filepath.IsLocal(name) && !strings.ContainsAny(name, `\:`)
}

// validKey says whether key can be that of a document in a directory.
func validKey(key string) bool {
	for name := range strings.SplitSeq(key, "/") {
		if !validName(name) {
			return false
		}
	}
	return true
}

// Explain says what a scan makes of the key of a document, and which rule decides. An error means that a scan could not tell
// either.
func (d *Directory) Explain(ctx context.Context, key string) (Explanation, error) {
	x := Explanation{Key: key}
	w, f, err := d.begin(ctx)
	if err != nil {
		return x, err
	}
	defer w.end()
	defer func() {
		for ; f != nil; f = f.parent {
			f.folder.close()
		}
	}()
	if !validKey(key) {
		x.Reason = "it is no path below the root"
		return x, nil
	}
	out := func(v verdict) (Explanation, error) {
		x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
		return x, nil
	}
	for rest := key; ; {
		if err := w.readIgnores(f); err != nil {
			return x, &ListError{Path: f.key, Err: err}
		}
		name, below, isDir := strings.Cut(rest, "/")
		if w.hidden(f, name) {
			return out(verdict{reason: "names that begin with two dots are part of how a ConfigMap is mounted"})
		}
		n, err := w.look(f, name)
		if errors.Is(err, errGone) {
			// The filter can still say what would be.
			v := w.filter.document(key, f.ignores)
			if v.out {
				return out(v)
			}
			return out(verdict{reason: "there is no such file"})
		}
		if err != nil {
			return x, &ListError{Path: f.key + name, Err: err}
		}
		if !isDir {
			return w.explainFile(x, f, n)
		}
		if n.kind != kindDirectory {
			return out(verdict{reason: fmt.Sprintf("%q is %s, not a directory", f.key+name, fileKindText(n.kind))})
		}
		if v := w.filter.directory(f.key+name, f.ignores); v.out {
			return out(v)
		}
		var child *folder
		if n.via {
			child, err = openFolder(w.root, filepath.FromSlash(f.key+name))
		} else {
			child, err = f.folder.child(name)
		}
		if err != nil {
			return x, &ListError{Path: f.key + name + "/", Err: err}
		}
		f = &frame{folder: child, key: f.key + name + "/", parent: f}
		if err := w.identify(f); err != nil {
			return x, &ListError{Path: f.key, Err: err}
		}
		rest = below
	}
}

func fileKindText(k kind) string {
	if k == kindFile {
		return "a file"
	}
	return kindText(k)
}

// explainFile ends an explanation at the last part of its key.
func (w *walk) explainFile(x Explanation, f *frame, n node) (Explanation, error) {
	switch n.kind {
	case kindDirectory:
		x.Reason = "it is a directory"
		if v := w.filter.directory(x.Key, f.ignores); v.out {
			x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
		}
		return x, nil
	case kindLink:
		x.Reason = "it is a symbolic link, which --copy-links would follow"
		if w.links {
			x.Reason = "it is a symbolic link that leads nowhere, in a circle or out of the root"
		}
		return x, nil
	case kindFile:
	default:
		x.Reason = "it is " + kindText(n.kind)
		return x, nil
	}
	v := w.filter.document(x.Key, f.ignores)
	x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
	if v.out {
		return x, nil
	}
	i, err := w.inspect(f, n)
	if err != nil {
		return x, &ListError{Path: x.Key, Err: err}
	}
	x.Listed = true
	if skip := w.filter.skip(i.fingerprint.Size); skip != "" {
		x.Reason, x.Rule, x.Place = skip, "", ""
		return x, nil
	}
	x.Taken = true
	return x, nil
}
