package state

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A fileLock is a held lock file. The kernel releases it when its process ends, however it ends.
type fileLock struct {
	db     *sqliteDB
	name   string
	path   string
	offset int64 // of the byte of the database's file that belongs to the sync, see lockRange
	file   *os.File
	placed placedFile
}

// errRemoved is like errHeld. It is the error for a lock whose file was removed while another process held it.
var errRemoved = fmt.Errorf("%w (its lock file was removed)", errHeld)

// The name of a lock file is that of the state, a dot, the first bytes of a hash in hexadecimal digits, and the suffix.
const (
	lockNameSize = 6
	lockSuffix   = ".lock"
)

// lock takes the sync's lock file, beside the state.
func (s *sqliteDB) lock(ctx context.Context, name string, wait time.Duration) (release func() error, err error) {
	l, err := s.lockFile(ctx, name, wait)
	if err != nil {
		return nil, err
	}
	return l.Unlock, nil
}

func (s *sqliteDB) lockFile(ctx context.Context, name string, wait time.Duration) (*fileLock, error) {
	// A sync's name may have characters that a file's name may not.
	sum := sha256.Sum256([]byte(name))
	l := &fileLock{
		db: s, name: name, path: s.path + "." + hex.EncodeToString(sum[:lockNameSize]) + lockSuffix,
		// SQLite locks bytes at 1 GiB.
		offset: 1<<62 | int64(binary.BigEndian.Uint64(sum[:])>>16),
	}
	deadline := time.Now().Add(wait)
	for {
		err := l.try()
		if err == nil {
			break
		}
		if !errors.Is(err, errHeld) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", l.path, err), l.close())
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, errors.Join(fmt.Errorf("sync %q: %w%s", name, ErrLocked, l.holder(err)), l.close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), l.close())
		case <-time.After(min(left, 100*time.Millisecond)):
		}
	}
	if err := l.note(); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), l.Unlock())
	}
	return l, nil
}

// maxReopened is how often an attempt opens a lock file that is removed again and again.
const maxReopened = 10

// try makes one attempt. Errors: errHeld.
func (l *fileLock) try() (err error) {
	for range maxReopened {
		if l.file == nil {
			if l.file, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
				return err
			}
		}
		if err := tryLock(l.file); err != nil {
			return err
		}
		info, err := l.file.Stat()
		if err != nil {
			return err
		}
		l.placed = placedFile{l.path, info}
		if l.placed.check() == nil {
			return l.own()
		}
		// The file was removed after it was opened: the next process would lock another one.
		if err := l.close(); err != nil {
			return err
		}
	}
	return errRemoved
}

// own finds out whether another lock file of the sync, which was removed, is still held. Errors: errRemoved.
func (l *fileLock) own() error {
	if !l.db.addLock(l) {
		return errors.Join(errRemoved, l.close())
	}
	if err := l.db.ranges.lock(l.db.path, l.offset); err != nil {
		l.db.removeLock(l)
		return errors.Join(err, l.close())
	}
	return nil
}

// note writes a note for people; the kernel keeps the lock.
func (l *fileLock) note() error {
	host, _ := os.Hostname()
	note := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().Format(time.RFC3339))
	if err := l.file.Truncate(0); err != nil {
		return nil // the lock is held all the same
	}
	_, err := l.file.WriteAt([]byte(note), 0)
	return err
}

// holder names the process that holds the lock, if it is known.
func (l *fileLock) holder(err error) string {
	if errors.Is(err, errRemoved) {
		return " (its lock file was removed while it works)"
	}
	if l.file == nil {
		return ""
	}
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 256))
	if note := strings.TrimSpace(string(text)); err == nil && note != "" {
		return " (" + note + ")"
	}
	return ""
}

// close closes the lock file, which releases it.
func (l *fileLock) close() error {
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}

// Unlock releases the lock. The file stays: removing it would let two processes lock two files of one name.
func (l *fileLock) Unlock() error {
	if l.db == nil {
		return nil
	}
	l.db.removeLock(l)
	return errors.Join(l.db.ranges.unlock(l.offset), l.close())
}

// addLock notes a held lock. It returns false if this store holds another lock of the sync.
func (s *sqliteDB) addLock(l *fileLock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[l.name] != nil {
		return false
	}
	s.locks[l.name] = l
	return true
}

func (s *sqliteDB) removeLock(l *fileLock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[l.name] == l {
		delete(s.locks, l.name)
	}
}

// heldLock returns the lock of a sync, or nil if this store does not hold it.
func (s *sqliteDB) heldLock(name string) *fileLock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks[name]
}
