package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	gosync "sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kbsync/kbsync/internal/retry"
)

// A watchSession watches one root by events until the root is replaced, events are lost or the root has to be polled. One
// goroutine uses it.
type watchSession struct {
	*Watch
	notifier *fsnotify.Watcher
	root     *watchedDirectory
	byID     map[fileID]*watchedDirectory // where the system numbers directories
	count    int                          // of watched directories
	entries  int                          // names in all directories, where the number of watches depends on it
	buffer   []byte                       // of walks
	swapped  map[*watchedDirectory]bool   // the ones with swaps
	denied   bool                         // a permission was missing to read something

	// Both are as of the last look at the root.
	quiet bool // no event came since
	short bool // there were fewer watches than directories
}

// A mustPollError is the reason why a root cannot be watched.
type mustPollError struct {
	reason  string
	passing bool // events may work again without a change of the root
}

func (e *mustPollError) Error() string { return e.reason }

// Reasons to set all watches again.
var (
	errRootLost           = errors.New("the root was moved or removed")
	errIgnoresChanged     = errors.New("the ignore file of the root changed")
	errPermissionsChanged = errors.New("the permissions of the root changed")
	errWatchesLost        = errors.New("watches ended by themselves")
	errDirectorySwapped   = errors.New("a directory was replaced while its watch was set")
)

// minSessionTime is the least time between two sessions that lost events. Setting watches more often gains nothing where
// events are lost faster than watches are set.
const minSessionTime = time.Second

// watchEvents watches the root of this identity. It returns when the session is over, with a reason if the root is to be
// polled, else nil.
func (w *Watch) watchEvents(ctx context.Context, identity string) *mustPollError {
	notifier, err := w.open()
	if err != nil {
		return &mustPollError{noWatches(err), true}
	}
	s := &watchSession{Watch: w, notifier: notifier, byID: map[fileID]*watchedDirectory{}}
	var errs gosync.WaitGroup
	// A goroutine reads the errors, because fsnotify holds a lock until an error is read.
	errs.Go(s.readErrors)
	defer func() {
		notifier.Close()
		errs.Wait()
		select {
		case <-w.restart:
		default:
		}
		s.setDirectories(0)
	}()
	began := time.Now()
	if err := s.begin(ctx); err != nil {
		if poll, ok := errors.AsType[*mustPollError](err); ok {
			return poll
		}
		if errors.Is(err, errDirectorySwapped) {
			if w.swapped {
				return &mustPollError{"directories are replaced all the time while their watches are set", true}
			}
			w.swapped = true
			s.countRestart()
			_ = retry.Sleep(ctx, minSessionTime)
			return nil
		}
		// The root was removed or cannot be read. A scan reports that.
		if !w.failing {
			w.failing = true
			w.Mark("")
		}
		_ = retry.Sleep(ctx, w.opts.Check)
		return nil
	}
	w.failing, w.swapped = false, false
	if now, err := identityAt(w.path); err != nil || now != identity {
		return nil
	}
	w.eventsWork()
	s.Mark("")
	err = s.handleEvents(ctx, identity, began)
	if poll, ok := errors.AsType[*mustPollError](err); ok {
		return poll
	}
	if err != nil {
		s.countRestart()
	}
	return nil
}

// handleEvents handles events until ctx or the source of events ends. It returns an error if all watches have to be set
// again, a *mustPollError if the root has to be polled.
func (s *watchSession) handleEvents(ctx context.Context, identity string, began time.Time) error {
	check, links := time.NewTicker(s.opts.Check), time.NewTicker(s.opts.Poll)
	defer check.Stop()
	defer links.Stop()
	var restart <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-s.notifier.Events:
			if !ok {
				return nil
			}
			if err := s.handle(ctx, e); err != nil {
				return err
			}
		case <-s.restart:
			if restart == nil {
				restart = time.After(max(0, minSessionTime-time.Since(began)))
			}
		case <-restart:
			return errWatchesLost
		case reason := <-s.pollReasons:
			return &mustPollError{reason: reason}
		case <-links.C:
			s.Mark(s.root.followedLinks(nil)...)
		case <-check.C:
			if now, err := identityAt(s.path); err != nil || now != identity {
				return errRootLost
			}
			if s.mounts.changed() || s.lostWatches() {
				return errWatchesLost
			}
		}
	}
}

func (s *watchSession) readErrors() {
	for err := range s.notifier.Errors {
		s.mu.Lock()
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			s.stats.Overflows++
		} else {
			s.stats.Errors++
		}
		s.mu.Unlock()
		select {
		case s.restart <- struct{}{}:
		default:
		}
	}
}

func (s *watchSession) countRestart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Restarts++
}

func (s *watchSession) setDirectories(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Directories = n
}

// lostWatches looks for changes without an event. It marks directories dirty whose published version is another one. It reports
// whether watches ended that kbsync did not end: those of an unmounted file system do.
func (s *watchSession) lostWatches() bool {
	for d := range s.swapped {
		s.checkSwaps(d)
	}
	// A watch ends before its event arrives. So the loss counts at the second look without an event in between.
	short := len(s.notifier.WatchList()) < s.count
	lost := short && s.short && s.quiet
	s.short, s.quiet = short, true
	if lost {
		s.mu.Lock()
		s.stats.Errors++
		s.mu.Unlock()
	}
	return lost
}

// begin watches the root and all directories below it.
func (s *watchSession) begin(ctx context.Context) error {
	err := s.walk(ctx, func(w *walk, top *frame) error { return s.addTree(w, top, nil, "") })
	if err == nil && s.root == nil {
		err = ErrRootMissing
	}
	s.setDirectories(s.count)
	return err
}

// handle marks the keys that an event names, and watches new directories. It looks at the file system as it is now instead
// of trusting the event: a change after the look causes another event.
func (s *watchSession) handle(ctx context.Context, e fsnotify.Event) error {
	s.quiet = false
	s.mu.Lock()
	s.stats.Events++
	s.mu.Unlock()
	key, ok := s.keyOf(e.Name)
	switch {
	case !ok:
		return nil
	case key == "":
		return s.handleRoot(e)
	}
	parent, name := s.find(key)
	if parent == nil {
		// Its directory was moved or removed in the meantime.
		s.Mark(key[:strings.LastIndexByte(key, '/')+1])
		return nil
	}
	if e.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) && s.handleSwap(parent, name) {
		return nil
	}
	if name == ignoreName {
		// The set of watched directories may depend on it.
		if parent.parent == nil {
			return errIgnoresChanged
		}
		s.drop(parent)
		return s.addPath(ctx, parent.key())
	}
	if !e.Has(fsnotify.Create | fsnotify.Remove | fsnotify.Rename | fsnotify.Chmod) {
		if parent.children[name] == nil {
			s.markDocument(key, parent)
		}
		return nil
	}
	return s.handleEntry(ctx, e, key, parent, name)
}

// handleRoot handles an event of the root itself.
func (s *watchSession) handleRoot(e fsnotify.Event) error {
	if e.Has(fsnotify.Remove | fsnotify.Rename) {
		return errRootLost
	}
	if e.Has(fsnotify.Chmod) {
		if s.denied {
			return errPermissionsChanged
		}
		s.Mark("")
	}
	return nil
}

// handleEntry handles an event that may add, remove or replace the entry name of a watched directory, or change its mode.
func (s *watchSession) handleEntry(ctx context.Context, e fsnotify.Event, key string, parent *watchedDirectory, name string) error {
	old := parent.children[name]
	now, exists := s.directoryInfo(key)
	entryChanged := e.Has(fsnotify.Create | fsnotify.Remove | fsnotify.Rename)
	leftOut := s.dir.filter.directory(key, parent.ignores, nil).out
	switch {
	case old != nil && now.isDir && old.id == now.id && !entryChanged && !s.denied:
		s.Mark(key + "/") // its permissions may have changed
		return nil
	case old != nil:
		s.drop(old)
		s.Mark(key + "/")
	case !exists && e.Has(fsnotify.Remove|fsnotify.Rename) && !leftOut:
		s.Mark(key + "/") // a scan may have seen a directory there
	case now.isLink && s.dir.links:
		parent.followLink(name)
		s.Mark(key + "/")
	}
	s.markDocument(key, parent)
	if now.isDir && !leftOut {
		return s.addPath(ctx, key+"/")
	}
	s.setDirectories(s.count)
	return nil
}

func (s *watchSession) markDocument(key string, in *watchedDirectory) {
	if !s.dir.filter.document(key, in.ignores, nil).out {
		s.Mark(key)
	}
}

// walkError returns the consequence of an error of a walk: nil if a scan meets the error as well and reports it, a
// *mustPollError if the root has to be polled, or the error itself.
func (s *watchSession) walkError(key string, err error) error {
	if partial, ok := errors.AsType[*ListError](err); ok {
		key, err = partial.Path, partial.Err
	}
	denied := errors.Is(err, fs.ErrPermission)
	s.denied = s.denied || denied
	_, ofSystem := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return nil
	case exhausted(err):
		return &mustPollError{noWatches(err), true}
	case errors.Is(err, errGone), errors.Is(err, fs.ErrNotExist), denied:
		if key == "" {
			return err // the Watch waits for the root
		}
		return nil // the directory above gets an event when this changes
	case ofSystem:
		return &mustPollError{withDirectory(fmt.Sprintf("cannot watch it: %v", err), key), true}
	default:
		return nil // an invalid ignore file
	}
}

// exhausted reports whether the system has no watch or file descriptor left.
func exhausted(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// noWatches returns why the system gives no watch, and the remedy.
func noWatches(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("the user has no inotify watches left (%v); raise fs.inotify.max_user_watches with "+
			"`sysctl -w fs.inotify.max_user_watches=1048576` on the host; kbsync tries again", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Sprintf("too many files or inotify instances are open (%v); raise the limits with `ulimit -n 65536` and "+
			"`sysctl -w fs.inotify.max_user_instances=1024` on the host; kbsync tries again", err)
	default:
		return fmt.Sprintf("the system gives no watches: %v", err)
	}
}

// withDirectory adds the directory to a reason, unless it is the root.
func withDirectory(reason, key string) string {
	if key == "" {
		return reason
	}
	return fmt.Sprintf("%q: %s", key, reason)
}
