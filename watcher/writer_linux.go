package watcher

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// hasWriter reports whether a process has the file open for writing. The kernel grants a read lease only if none has. It gives leases
// only to the owner of a file and to processes with CAP_LEASE; nothing is known about other files. The lease lasts some microseconds:
// a process that opens the file for writing meanwhile waits for its end.
func hasWriter(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
