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

// special creates files that are not documents.
func special(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.md"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The path of a socket must be short.
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

// cpuTime returns the CPU time of the process.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
