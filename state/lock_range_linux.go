package state

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A lockRange locks bytes far behind the end of the database's file, one for each sync. A lock file may be removed while it
// is held, or the database may have two names, and then two processes hold two lock files; the inventory is one, and so is its
// byte. The kernel releases the lock with the process.
//
// Its locks are those of an open file description (F_OFD_SETLK). They have nothing to do with the locks of the process, which
// SQLite takes. But any close of the file by the process releases the latter, so the file stays open until SQLite has closed it.
type lockRange struct {
	mu   sync.Mutex
	file *os.File // nil until the first lock
}

// lock locks the byte at offset. Errors: errRemoved.
func (r *lockRange) lock(path string, offset int64) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		if r.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	err = r.set(unix.F_WRLCK, offset)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return errRemoved
	case errors.Is(err, unix.EINVAL):
		return nil // a kernel without such locks
	}
	return err
}

func (r *lockRange) unlock(offset int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	if err := r.set(unix.F_UNLCK, offset); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

func (r *lockRange) set(kind int16, offset int64) error {
	lock := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: offset, Len: 1}
	return unix.FcntlFlock(r.file.Fd(), unix.F_OFD_SETLK, &lock)
}

func (r *lockRange) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}
