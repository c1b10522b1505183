package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A Lock is a held lock file. The kernel releases it when its process ends, however it ends.
type Lock struct {
	file *os.File
}

// Lock takes the sync's lock file, beside the state, and waits up to wait for it. The holder owns every claim of that
// sync, and calls Recover first. Errors: ErrLocked.
func (s *Store) Lock(ctx context.Context, name string, wait time.Duration) (*Lock, error) {
	return s.lock(ctx, name, wait)
}

func (s *db) lock(ctx context.Context, name string, wait time.Duration) (*Lock, error) {
	// A sync's name may have characters that a file's name may not.
	sum := sha256.Sum256([]byte(name))
	path := s.path + "." + hex.EncodeToString(sum[:6]) + ".lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		err = tryLock(f)
		if err == nil {
			break
		}
		if !errors.Is(err, errHeld) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, errors.Join(fmt.Errorf("sync %q: %w%s", name, ErrLocked, holder(f)), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(min(left, 100*time.Millisecond)):
		}
	}
	// The note is for people; the kernel keeps the lock.
	host, _ := os.Hostname()
	note := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().Format(time.RFC3339))
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(note), 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
		}
	}
	return &Lock{file: f}, nil
}

func holder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 256))
	if note := strings.TrimSpace(string(text)); err == nil && note != "" {
		return " (" + note + ")"
	}
	return ""
}

// Unlock releases the lock. The file stays: removing it would let two processes lock two files of one name.
func (l *Lock) Unlock() error { return l.file.Close() }
