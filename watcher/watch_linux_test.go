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
)

// inNamespace runs the rest of the test again as a process of its own, in new namespaces of the kernel, so that mounts and limits are
// nobody else's. It returns false in the process that started it.
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
		t.Skipf("no namespaces of one's own here: %v %s", err, out)
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
		// It has to go before the directory does.
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
}

// W8: file systems that are mounted over the root, unmounted lazily and in the ordinary way. Of most of that there is no event.
func TestWatchFollowsMountsOverTheRoot(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	l := newWatchFixture(t)
	put(t, l.dir, "below.md")
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	follow := func(what string) {
		t.Helper()
		l.await(what, func() bool { return slices.Contains(l.dirty, "") })
		l.synced()
		put(t, l.dir, "sub/"+fmt.Sprint(l.fences)+".md")
		l.synced()
		l.dirty = nil
	}
	for range 3 {
		mount(t, "one", l.dir, "tmpfs", "", 0)
		follow("what was mounted over the root")
		put(t, l.dir, "above.md")
		l.synced()
		l.try(unix.Unmount(l.dir, unix.MNT_DETACH))
		follow("the lazy unmount")
		if _, ok := l.store.known["above.md"]; ok {
			t.Error("it is still there")
		}
	}
	// A file system of the same number as the one that was there before.
	mount(t, "two", l.dir, "tmpfs", "", 0)
	follow("the second mount")
	for range 3 {
		l.await("the unmount", func() bool { return unix.Unmount(l.dir, 0) == nil }) // busy while it is looked at
		mount(t, "three", l.dir, "tmpfs", "", 0)
		follow("one file system in place of another")
	}
}

// W8: one inside of the root that is unmounted ends its watches without a word.
func TestWatchFollowsUnmountInsideTheRoot(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	l := newWatchFixture(t)
	put(t, l.dir, "inside/below.md")
	mount(t, "one", l.path("inside"), "tmpfs", "", 0)
	put(t, l.dir, "inside/above.md")
	l.begin(DirectoryOptions{}, WatchOptions{Check: 10 * time.Millisecond}, nil)
	l.try(unix.Unmount(l.path("inside"), 0))
	l.await("the unmount", func() bool { return slices.Contains(l.dirty, "") })
	l.synced()
	l.do("known inside/below.md")
	put(t, l.dir, "inside/late.md")
	l.synced()
	// What is mounted at two places has one watch.
	l.do("mkdir twice")
	mount(t, l.path("inside"), l.path("twice"), "", "", unix.MS_BIND)
	l.try(os.Rename(l.dir, l.dir+".away")) // to look at the whole again
	l.await("the root to be missed", func() bool { return l.watch.Stats().RootMissing })
	l.try(os.Rename(l.dir+".away", l.dir))
	l.await("polling", func() bool { return strings.Contains(l.watch.pollReason(), "events name only one of them") })
}

// W10: an overlay, as a container's own layer is one, is polled, be it for a part of the root.
func TestOverlayIsPolled(t *testing.T) {
	if !inNamespace(t, syscall.CLONE_NEWNS) {
		return
	}
	mount(t, "", "/", "", "", unix.MS_REC|unix.MS_PRIVATE)
	for _, at := range []string{"", "part"} {
		l := newWatchFixture(t)
		layers := l.base + "/layers"
		mount(t, "layers", l.base, "tmpfs", "", 0)
		put(t, l.base, "root/part/", "layers/lower/a.md", "layers/upper/", "layers/work/")
		put(t, l.dir, "b.md")
		mount(t, "overlay", l.path(at), "overlay", fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", layers, layers, layers), 0)
		l.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond, Check: 10 * time.Millisecond}, nil)
		if reason := l.watch.pollReason(); !strings.Contains(reason, "overlay") || strings.Contains(reason, `"part/"`) != (at != "") {
			t.Errorf("reason %q", reason)
		}
		put(t, l.dir, "part/c.md")
		l.synced()
		if n := strings.Count(l.log.String(), "level="); n != 1 {
			t.Errorf("%d lines: %s", n, l.log.String())
		}
		l.watch.Close()
	}
}

// W9: the system's own limit.
func TestInotifyLimitFallsBackToPolling(t *testing.T) {
	if !inNamespace(t, 0) {
		return
	}
	const limit = "/proc/sys/user/max_inotify_watches" // of this namespace
	if err := os.WriteFile(limit, []byte("20"), 0); err != nil {
		t.Skip(err)
	}
	l := newWatchFixture(t)
	for i := range 15 {
		put(t, l.dir, "d"+strconv.Itoa(i)+"/a.md")
	}
	l.begin(DirectoryOptions{}, WatchOptions{Poll: 20 * time.Millisecond}, nil)
	if s := l.watch.Stats(); s.Directories != 16 || l.watch.pollReason() != "" {
		t.Fatalf("%+v, polling %q", s, l.watch.pollReason())
	}
	for i := range 15 {
		put(t, l.dir, "e"+strconv.Itoa(i)+"/a.md")
	}
	l.await("polling", func() bool { return strings.Contains(l.watch.pollReason(), "sysctl -w fs.inotify.max_user_watches=") })
	put(t, l.dir, "d0/b.md")
	l.synced()
	if n := strings.Count(l.log.String(), "level="); n != 1 || len(l.store.known) != 31+l.fences {
		t.Errorf("%d lines: %s, %d known", n, l.log.String(), len(l.store.known))
	}
}
