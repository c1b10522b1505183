package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A patrol watches one root until that is replaced, events are lost, or it turns out that the root has to be polled. It belongs
// to one goroutine.
type patrol struct {
	*Watch
	notifier *fsnotify.Watcher
	root     *beat
	byID     map[fileID]*beat // where the system has numbers for directories
	count    int              // of beats
	entries  int              // names in all directories, where each costs
	buffer   []byte           // of walks
	quiet    bool             // no event came since the root was last looked at
	short    bool             // there were fewer watches than beats then
	denied   bool             // something could not be read for want of a permission
	target   string           // of the ..data link of a mounted ConfigMap
}

// A fileID tells directories apart.
type fileID struct{ device, inode uint64 }

// A beat is a directory that is watched.
type beat struct {
	name     string
	parent   *beat // nil for the root
	children map[string]*beat
	id       fileID
	ignores  *ignoreFile
	links    []string // names of symbolic links that are followed, those to directories with a slash at the end
}

// key returns the directory's key with a slash at its end; "" for the root.
func (b *beat) key() string {
	if b.parent == nil {
		return ""
	}
	return b.parent.key() + b.name + "/"
}

// A mustPoll says why a root can't be watched.
type mustPoll struct{ reason string }

func (e *mustPoll) Error() string { return e.reason }

// restartPause is the least time between two restarts of a patrol: where events are lost faster than watches can be set, nothing
// is gained by setting them all the time.
const restartPause = time.Second

// patrol watches the root of this identity, and returns when that is over: with a reason if the root is to be polled.
func (w *Watch) patrol(ctx context.Context, identity string) (reason string) {
	notifier, err := w.open()
	if err != nil {
		return noWatches(err)
	}
	p := &patrol{Watch: w, notifier: notifier, byID: map[fileID]*beat{}}
	var errs gosync.WaitGroup
	// In a goroutine of its own, for fsnotify holds a lock while it waits for somebody to take an error.
	errs.Go(p.takeErrors)
	defer func() {
		notifier.Close()
		errs.Wait()
		select {
		case <-w.restart:
		default:
		}
		p.setDirectories(0)
	}()
	began := time.Now()
	if err := p.begin(ctx); err != nil {
		poll, ok := errors.AsType[*mustPoll](err)
		if ok {
			return poll.reason
		}
		// The root went away, or can't be read. A scan says so.
		if !w.failing {
			w.failing = true
			w.Mark("")
		}
		pause(ctx, w.opts.Check)
		return ""
	}
	w.failing = false
	if now, err := identityAt(w.path); err != nil || now != identity {
		return ""
	}
	p.Mark("")
	check, links := time.NewTicker(w.opts.Check), time.NewTicker(w.opts.Poll)
	defer check.Stop()
	defer links.Stop()
	var over <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ""
		case e, ok := <-notifier.Events:
			if !ok {
				return ""
			}
			err := p.handle(ctx, e)
			if poll, ok := errors.AsType[*mustPoll](err); ok {
				return poll.reason
			}
			if err != nil {
				p.countRestart()
				return ""
			}
		case <-w.restart:
			if over == nil {
				over = time.After(max(0, restartPause-time.Since(began)))
			}
		case <-over:
			p.countRestart()
			return ""
		case reason := <-w.give:
			return reason
		case <-links.C:
			p.Mark(p.root.followed(nil)...)
		case <-check.C:
			if now, err := identityAt(w.path); err != nil || now != identity {
				p.countRestart()
				return ""
			}
			if p.lost() {
				p.countRestart()
				return ""
			}
		}
	}
}

func (p *patrol) takeErrors() {
	for err := range p.notifier.Errors {
		p.mu.Lock()
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			p.stats.Overflows++
		} else {
			p.stats.Errors++
		}
		p.mu.Unlock()
		select {
		case p.restart <- struct{}{}:
		default:
		}
	}
}

func (p *patrol) countRestart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Restarts++
}

func (p *patrol) setDirectories(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Directories = n
}

// lost looks for what no event tells of: a ..data link that leads elsewhere is a change, and watches that ended without anybody's
// asking, as those of a file system that was unmounted do, make it return true.
func (p *patrol) lost() bool {
	if target := p.mountTarget(); target != p.target {
		p.target = target
		p.Mark("")
	}
	// Watches end before their event is here, so that it takes two looks without an event between.
	short := len(p.notifier.WatchList()) < p.count
	lost := short && p.short && p.quiet
	p.short, p.quiet = short, true
	if lost {
		p.mu.Lock()
		p.stats.Errors++
		p.mu.Unlock()
	}
	return lost
}

// mountTarget returns where the ..data link leads; empty if there is none.
func (p *patrol) mountTarget() string {
	target, err := os.Readlink(filepath.Join(p.path, "..data"))
	if err != nil {
		return ""
	}
	return target
}

// begin watches the root and all below it.
func (p *patrol) begin(ctx context.Context) error {
	p.target = p.mountTarget()
	err := p.walk(ctx, func(w *walk, top *frame) error { return p.grow(w, top, nil, "") })
	if err == nil && p.root == nil {
		err = ErrRootMissing
	}
	p.setDirectories(p.count)
	return err
}

// walk opens the root and calls visit with it.
func (p *patrol) walk(ctx context.Context, visit func(*walk, *frame) error) error {
	w, top, err := p.dir.begin(ctx)
	if err != nil {
		return cmp.Or(p.walkError("", err), err)
	}
	defer w.end()
	defer top.folder.close()
	var failed error
	w.buffer = p.buffer
	w.yield = func(_ Entry, err error) bool {
		if failed == nil {
			failed = p.walkError("", err)
		}
		return failed == nil
	}
	if err := visit(w, top); err != nil {
		return err
	}
	p.buffer = w.buffer
	return failed
}

// walkError returns what an error that a walk met means for the watch: nothing where a scan will meet it, too, and say so.
func (p *patrol) walkError(key string, err error) error {
	if partial, ok := errors.AsType[*ListError](err); ok {
		key, err = partial.Path, partial.Err
	}
	denied := errors.Is(err, fs.ErrPermission)
	p.denied = p.denied || denied
	_, ofSystem := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return nil
	case exhausted(err):
		return &mustPoll{noWatches(err)}
	case errors.Is(err, errGone), errors.Is(err, fs.ErrNotExist), denied:
		if key == "" {
			return err // it is waited for
		}
		return nil // what changes that is an event of the directory above
	case ofSystem:
		return &mustPoll{placed(fmt.Sprintf("it can't be watched: %v", err), key)}
	default:
		return nil // an ignore file that is wrong
	}
}

// exhausted says whether an error is that there are too many watches or open files.
func exhausted(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// noWatches says why there are no watches to be had, and what to set.
func noWatches(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("the system allows its user no more watches (%v); raise fs.inotify.max_user_watches with "+
			"`sysctl -w fs.inotify.max_user_watches=1048576` on the host, and start again", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Sprintf("too many files or inotify instances are open (%v); raise the limits with `ulimit -n 65536` and "+
			"`sysctl -w fs.inotify.max_user_instances=1024` on the host, and start again", err)
	default:
		return fmt.Sprintf("the system gives no watches: %v", err)
	}
}

// grow watches the directory of f, and then what is in it. A directory that is not there any more, or can't be read, is left for
// the event that tells so.
func (p *patrol) grow(w *walk, f *frame, parent *beat, name string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	self, err := f.folder.self()
	if err != nil {
		return p.walkError(f.key, err)
	}
	id := fileID{self.device, self.fingerprint.Inode}
	if parent == nil || id.device != parent.id.device {
		if reason := unwatchable(f.folder); reason != "" {
			return &mustPoll{placed(reason, f.key)}
		}
	}
	if old := p.byID[id]; old != nil && id.inode != 0 {
		// The system has one watch for a directory. One that was moved keeps its watch under the old path, so that has to go first.
		if was := old.key(); was != f.key && p.isAt(was, id) && p.isAt(f.key, id) && p.isAt(was, id) {
			return &mustPoll{fmt.Sprintf("the directory %q is mounted at %q, too, and events tell of only one", was, f.key)}
		}
		// The event that tells of the move is still to come. By then a file may be in the old place, and no beat says that it was a
		// directory.
		if was := old.key(); was != f.key {
			p.Mark(was)
		}
		p.drop(old)
	}
	if p.fault != nil {
		if err := p.fault(f.key); err != nil {
			return p.walkError(f.key, err)
		}
	}
	if err := p.notifier.Add(p.pathOf(f.key)); err != nil {
		return p.walkError(f.key, err)
	}
	b := &beat{name: name, parent: parent, id: id}
	p.count++
	if parent == nil {
		p.root = b
	} else {
		if parent.children == nil {
			parent.children = map[string]*beat{}
		}
		parent.children[name] = b
	}
	if id.inode != 0 {
		p.byID[id] = b
	}
	// The ignore file and the directory are read only now, so that whatever changes meanwhile is an event.
	if err := w.readIgnores(f); err != nil {
		return p.walkError(f.key, err)
	}
	b.ignores = f.ignores
	nodes, err := w.read(f)
	if err != nil {
		return p.walkError(f.key, err)
	}
	if p.entries += len(nodes); costly && p.entries > costlyEntries {
		return &mustPoll{fmt.Sprintf("it holds more than %d files and directories, and this system takes an open file to watch each", costlyEntries)}
	}
	for _, n := range nodes {
		switch {
		case n.via && w.links:
			b.links = append(b.links, strings.Clone(n.name))
		case n.via, n.kind != kindDirectory:
		default:
			var err error
			w.enter(f, n, func(child *frame) { err = p.grow(w, child, b, strings.Clone(n.name[:len(n.name)-1])) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// placed adds to a reason which directory it is of, unless that is the root.
func placed(reason, key string) string {
	if key == "" {
		return reason
	}
	return fmt.Sprintf("%q: %s", key, reason)
}

// drop ends the watches of b and of all below it.
func (p *patrol) drop(b *beat) {
	for _, child := range b.children {
		p.drop(child)
	}
	// It may have ended by itself: the directory was deleted or moved.
	_ = p.notifier.Remove(p.pathOf(b.key()))
	if p.byID[b.id] == b {
		delete(p.byID, b.id)
	}
	if b.parent != nil {
		delete(b.parent.children, b.name)
	}
	p.count--
}

// followed appends the keys of the links in b and below that are followed.
func (b *beat) followed(keys []string) []string {
	if len(b.links) > 0 {
		key := b.key()
		for _, name := range b.links {
			keys = append(keys, key+name)
		}
	}
	for _, child := range b.children {
		keys = child.followed(keys)
	}
	return keys
}

// pathOf returns the path of a directory by its key.
func (p *patrol) pathOf(key string) string {
	return filepath.Join(p.path, filepath.FromSlash(key))
}

// keyOf returns the key of a path that an event names, without a slash at its end.
func (p *patrol) keyOf(path string) (string, bool) {
	if path == p.path {
		return "", true
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(p.path, string(filepath.Separator)))
	if !ok || len(rest) < 2 || !os.IsPathSeparator(rest[0]) {
		return "", false
	}
	return filepath.ToSlash(rest[1:]), true
}

// A sight is what is at a path now.
type sight struct {
	isDir, isLink bool
	id            fileID
}

// look returns what is at the key; false if nothing is.
func (p *patrol) look(key string) (sight, bool) {
	fi, err := os.Lstat(p.pathOf(key))
	if err != nil {
		return sight{}, false
	}
	s := sight{isDir: fi.IsDir(), isLink: fi.Mode()&fs.ModeSymlink != 0}
	if s.isDir {
		i := infoOf(fi)
		s.id = fileID{i.device, i.fingerprint.Inode}
	}
	return s, true
}

// isAt says whether the directory id is at the key.
func (p *patrol) isAt(key string, id fileID) bool {
	at, ok := p.look(key)
	return ok && at.isDir && at.id == id
}

// What makes a patrol begin anew.
var (
	errRootLost    = errors.New("the root was moved or removed")
	errIgnores     = errors.New("the ignore file of the root changed")
	errPermissions = errors.New("the permissions of the root changed")
)

// find returns the beat of the directory that a key is in, and the last part of the key; nil if that is not watched.
func (p *patrol) find(key string) (*beat, string) {
	b := p.root
	for {
		name, rest, ok := strings.Cut(key, "/")
		if !ok {
			return b, name
		}
		if b = b.children[name]; b == nil {
			return nil, ""
		}
		key = rest
	}
}

// handle makes dirty what an event names, and watches what is new. It looks at what is there now rather than at what the event
// says: for whatever happens after that another event comes.
func (p *patrol) handle(ctx context.Context, e fsnotify.Event) error {
	p.quiet = false
	p.mu.Lock()
	p.stats.Events++
	p.mu.Unlock()
	key, ok := p.keyOf(e.Name)
	switch {
	case !ok:
		return nil
	case key == "":
		if e.Has(fsnotify.Remove | fsnotify.Rename) {
			return errRootLost
		}
		if e.Has(fsnotify.Chmod) {
			if p.denied {
				return errPermissions
			}
			p.Mark("")
		}
		return nil
	case strings.HasPrefix(key, "..") && !strings.Contains(key, "/") && (key == "..data" || p.target != ""):
		if target := p.mountTarget(); target != p.target {
			p.target = target
			p.Mark("")
		}
		return nil
	}
	parent, name := p.find(key)
	if parent == nil {
		// It is of a directory that was moved or removed meanwhile.
		p.Mark(key[:strings.LastIndexByte(key, '/')+1])
		return nil
	}
	if name == ignoreName {
		// What is watched may depend on it.
		if parent.parent == nil {
			return errIgnores
		}
		p.drop(parent)
		return p.add(ctx, parent.key())
	}
	b := parent.children[name]
	if !e.Has(fsnotify.Create | fsnotify.Remove | fsnotify.Rename | fsnotify.Chmod) {
		if b == nil {
			p.markDocument(key, parent)
		}
		return nil
	}
	at, there := p.look(key)
	switch {
	case at.isDir && b != nil && b.id == at.id && !e.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) && !p.denied:
		p.Mark(key + "/") // its permissions, perhaps
		return nil
	case b != nil:
		p.drop(b)
		p.Mark(key + "/")
	case !there && e.Has(fsnotify.Remove|fsnotify.Rename) && !p.dir.filter.directory(key, parent.ignores).out:
		p.Mark(key + "/") // it may have been a directory that a scan saw
	case at.isLink && p.dir.links:
		parent.follow(name)
		p.Mark(key + "/")
	}
	p.markDocument(key, parent)
	if at.isDir && !p.dir.filter.directory(key, parent.ignores).out {
		return p.add(ctx, key+"/")
	}
	p.setDirectories(p.count)
	return nil
}

// follow notes a symbolic link, of a file or of a directory.
func (b *beat) follow(name string) {
	for _, known := range b.links {
		if known == name || known == name+"/" {
			return
		}
	}
	b.links = append(b.links, name, name+"/")
}

func (p *patrol) markDocument(key string, in *beat) {
	if !p.dir.filter.document(key, in.ignores).out {
		p.Mark(key)
	}
}

// add watches the directory at key, which ends in a slash, and all below it, and makes it dirty then. It is not watched yet.
func (p *patrol) add(ctx context.Context, key string) error {
	err := p.walk(ctx, func(w *walk, top *frame) error { return p.reach(w, top, p.root, key) })
	p.setDirectories(p.count)
	p.Mark(key)
	return err
}

// reach goes from f to the directory at rest, and lets it grow.
func (p *patrol) reach(w *walk, f *frame, b *beat, rest string) error {
	f.ignores = b.ignores
	name, rest, _ := strings.Cut(rest, "/")
	n, err := w.look(f, name)
	if err != nil {
		return p.walkError(f.key+name, err)
	}
	if n.kind != kindDirectory || n.via {
		return nil
	}
	w.enter(f, n, func(child *frame) {
		if rest == "" {
			err = p.grow(w, child, b, name)
		} else if next := b.children[name]; next != nil {
			err = p.reach(w, child, next, rest)
		}
	})
	return err
}
