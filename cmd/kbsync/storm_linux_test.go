package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// shortOfFiles lets a process open no more files than it has open now, until restore is called.
func shortOfFiles(pid int) (restore func() error, err error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return nil, err
	}
	less := before
	less.Cur = uint64(len(open))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &less, nil); err != nil {
		return nil, err
	}
	return func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil) }, nil
}

// smallDisk returns a directory with a file system of its own that is soon full, or nothing if this user may not mount one.
func smallDisk(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		tb.Logf("no disk will be full, because this user cannot mount one: %v", err)
		return ""
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return dir
}
