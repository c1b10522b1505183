package watcher

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbsync/kbsync/internal/retry"
)

// inNamespace runs the test again in a separate process with new kernel namespaces, so that mounts and limits affect no other
// process. It returns false in the original process.
func inNamespace(t *testing.T, flags uintptr) bool {
	t.Helper()
	const variable = "KBSYNC_TEST_NAMESPACE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	t.Parallel()
	attr := &syscall.SysProcAttr{Cloneflags: flags | syscall.CLONE_NEWUSER}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	run := func(name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), variable+"="+t.Name())
		cmd.SysProcAttr = attr
		return cmd.CombinedOutput()
	}
	if out, err := run("true"); err != nil {
		t.Skipf("this system does not allow new namespaces: %v %s", err, out)
	}
	out, err := run(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	if skipped := []byte("--- SKIP"); err == nil && bytes.Contains(out, skipped) {
		t.Skipf("%s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func mount(t *testing.T, source, target, kind, data string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("mount %s: %v", kind, err)
	}
	if target != "/" {
		// Unmount before the directory is removed.
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
}

// File systems are mounted over the root, and unmounted lazily and normally. Most of these cause no event.
func TestWatchFollowsMountsOverTheRoot(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	f := newWatchFixture(t)
	put(t, f.dir, "below.md")
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	follow := func(change string) {
		t.Helper()
		f.await(change, func() bool { return slices.Contains(f.dirty, "") })
		f.synced()
		put(t, f.dir, "sub/"+fmt.Sprint(f.fences)+".md")
		f.synced()
		f.dirty = nil
	}
	for range 3 {
		mount(t, "one", f.dir, "tmpfs", "", 0)
		follow("the mount over the root")
		put(t, f.dir, "above.md")
		f.synced()
		f.try(unix.Unmount(f.dir, unix.MNT_DETACH))
		follow("the lazy unmount")
		if _, ok := f.store.known["above.md"]; ok {
			t.Error("above.md is still known")
		}
	}
	// A file system with the same device number as an earlier one.
	mount(t, "two", f.dir, "tmpfs", "", 0)
	follow("the second mount")
	for range 3 {
		f.await("the unmount", func() bool { return unix.Unmount(f.dir, 0) == nil }) // busy during a check
		mount(t, "three", f.dir, "tmpfs", "", 0)
		follow("one file system in place of another")
	}
}

// Unmounting a file system inside the root ends its watches without an event.
func TestWatchFollowsUnmountInsideTheRoot(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	f := newWatchFixture(t)
	put(t, f.dir, "inside/below.md")
	mount(t, "one", f.path("inside"), "tmpfs", "", 0)
	put(t, f.dir, "inside/above.md")
	f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	f.try(unix.Unmount(f.path("inside"), 0))
	f.await("the unmount", func() bool { return slices.Contains(f.dirty, "") })
	f.synced()
	f.do("known inside/below.md")
	put(t, f.dir, "inside/late.md")
	f.synced()
	// A directory that is mounted twice has one watch.
	f.do("mkdir twice")
	mount(t, f.path("inside"), f.path("twice"), "", "", unix.MS_BIND)
	f.try(os.Rename(f.dir, f.dir+".away")) // makes the Watch look at the whole root again
	f.await("the root to be missed", func() bool { return f.watch.Stats().RootMissing })
	f.try(os.Rename(f.dir+".away", f.dir))
	f.await("polling", func() bool { return strings.Contains(f.watch.pollReason(), "events name only one of them") })
}

// A root on an overlay, such as a container's own layer, is polled, also if only a part of the root is on it.
func TestOverlayIsPolled(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	for _, at := range []string{"", "part"} {
		f := newWatchFixture(t)
		layers := f.base + "/layers"
		mount(t, "layers", f.base, "tmpfs", "", 0)
		put(t, f.base, "root/part/", "layers/lower/a.md", "layers/upper/", "layers/work/")
		put(t, f.dir, "b.md")
		mount(t, "overlay", f.path(at), "overlay", fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", layers, layers, layers), 0)
		f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond, Check: 10 * time.Millisecond}, nil)
		if reason := f.watch.pollReason(); !strings.Contains(reason, "overlay") || strings.Contains(reason, `"part/"`) != (at != "") {
			t.Errorf("reason %q", reason)
		}
		put(t, f.dir, "part/c.md")
		f.synced()
		if n := strings.Count(f.log.String(), "level="); n != 1 {
			t.Errorf("%d lines: %s", n, f.log.String())
		}
		f.watch.Close()
	}
}

// The real limit of the system. The root is watched again when the limit is raised.
func TestInotifyLimitFallsBackToPolling(t *testing.T) {
	if !inNamespace(t, 0) {
		return
	}
	const limit = "/proc/sys/user/max_inotify_watches" // of this namespace
	if err := os.WriteFile(limit, []byte("20"), 0); err != nil {
		t.Skip(err)
	}
	f := newWatchFixture(t)
	for i := range 15 {
		put(t, f.dir, "d"+strconv.Itoa(i)+"/a.md")
	}
	f.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, func(w *Watch) { w.attempts.policy = retry.Policy{Min: 300 * time.Millisecond, Max: time.Second} })
	if s := f.watch.Stats(); s.Directories != 16 || f.watch.pollReason() != "" {
		t.Fatalf("%+v, polling %q", s, f.watch.pollReason())
	}
	for i := range 15 {
		put(t, f.dir, "e"+strconv.Itoa(i)+"/a.md")
	}
	f.await("polling", func() bool { return strings.Contains(f.watch.pollReason(), "sysctl -w fs.inotify.max_user_watches=") })
	put(t, f.dir, "d0/b.md")
	f.synced()
	if n := strings.Count(f.log.String(), "level="); n != 1 || len(f.store.known) != 31+f.fences {
		t.Errorf("%d lines: %s, %d known", n, f.log.String(), len(f.store.known))
	}
	f.try(os.WriteFile(limit, []byte("1000"), 0))
	f.await("events", func() bool { return f.watch.pollReason() == "" && f.watch.Stats().Directories == 31 })
	put(t, f.dir, "e3/b.md")
	f.synced()
	if !strings.Contains(f.log.String(), "watched by events again") {
		t.Errorf("the log: %s", f.log.String())
	}
}

// Mounting over a directory of the root and unmounting it is noticed at the next check, watched or polled, and orphans nothing.
func TestMountsInsideTheRootOrphanNothing(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	for _, polled := range []bool{false, true} {
		f := newWatchFixture(t)
		for i := range 8 {
			put(t, f.dir, fmt.Sprintf("beside/%d.md", i))
		}
		put(t, f.dir, "inside/1.md", "inside/2.md", "inside/deep/3.md")
		f.opts = ScanOptions{MaxDelete: Limit{Percent: 50, ByPercent: true, Always: 20}}
		f.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond, Poll: time.Hour, NoEvents: polled}, nil)
		scans := func(change string, guard Guard) {
			t.Helper()
			f.await(change, func() bool { return slices.Contains(f.dirty, "") })
			f.dirty = nil
			_, err := NewScanner(f.root, f.opts).ScanAll(t.Context(), f.store, (&scanFixture{dir: f.dir, store: f.store}).sync(), []string{""})
			f.watch.Scanned()
			if guard == "" && err != nil || guard != "" && !isGuard(err, guard) {
				t.Errorf("polled %v, after %s: got %v, want the guard %q", polled, change, err, guard)
			}
			for _, key := range []string{"inside/1.md", "inside/2.md", "inside/deep/3.md"} {
				if _, ok := f.store.known[key]; !ok {
					t.Fatalf("polled %v, after %s: %s is orphaned", polled, change, key)
				}
			}
		}
		mount(t, "one", f.path("inside"), "tmpfs", "", 0)
		scans("a mount over documents", GuardNewMount)
		f.try(unix.Unmount(f.path("inside"), 0))
		scans("its unmount", "")
		mount(t, f.path("inside"), f.path("inside"), "", "", unix.MS_BIND)
		scans("a mount of the same documents", "")
		mount(t, "two", f.path("inside/deep"), "tmpfs", "", 0)
		scans("a mount in it", GuardNewMount)
		f.try(unix.Unmount(f.path("inside/deep"), 0))
		scans("its unmount", "")
		mount(t, "three", f.path("beside"), "tmpfs", "", 0)
		scans("a mount over most of the documents", GuardNewMount)
		f.try(unix.Unmount(f.path("beside"), unix.MNT_DETACH))
		scans("its lazy unmount", "")
		f.watch.Close()
	}
}
