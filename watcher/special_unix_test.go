//go:build linux || darwin

package watcher

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// special makes files that are no documents.
func special(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.md"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The name of a socket has to be short.
	t.Chdir(dir)
	l, err := net.Listen("unix", "socket.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	link(t, "/dev/zero", filepath.Join(dir, "device.md"))
	if _, err := os.Stat("/proc/version"); err == nil {
		link(t, "/proc/version", filepath.Join(dir, "proc.md"))
	}
}

// cpuTime returns what the process has used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
