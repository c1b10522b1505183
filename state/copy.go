package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrNoCopy reports that the state is no file, so that kbsync cannot copy it.
var ErrNoCopy = errors.New("the state is not a file")

const (
	// backupMark is between the name of the state and the time in the name of a backup. A backup is never a document; see IsSideFile.
	backupMark   = ".backup-"
	backupTime   = "20060102T150405Z"
	keptBackups  = 3
	copyFileMode = 0o600
)

// Backup writes a consistent copy of the state to a file, while other processes may write to the state. Readers see the file
// whole or as it was before; only its owner may read it. Errors: ErrNoCopy.
func (s *Store) Backup(ctx context.Context, path string) error {
	if err := s.backup(ctx, path); err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	return nil
}

// BackupBeside writes a copy beside the state, unless the newest one there is younger than age, and removes all but the last
// three. It returns the path of the copy; empty if none was due, or the state is no file.
func (s *Store) BackupBeside(ctx context.Context, age time.Duration) (path string, err error) {
	path, err = s.backupBeside(ctx, age)
	if err != nil {
		return "", fmt.Errorf("back up state: %w", err)
	}
	return path, nil
}

// isFile reports whether the state is in a file. A state that is absent and opened for reading is in memory.
func (s *sqliteDB) isFile() bool { return s.path != "" && !strings.Contains(s.dsn, memoryVFS) }

func (s *sqliteDB) backup(ctx context.Context, path string) (err error) {
	if !s.isFile() {
		return ErrNoCopy
	}
	if target, err := os.Stat(path); err == nil {
		if own, err := os.Stat(s.path); err == nil && os.SameFile(own, target) {
			return errors.New("the copy would replace the state itself; name another file")
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := s.copyTo(ctx, f.Name()); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(copyFileMode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// copyTo writes a copy into an empty file, from a connection of its own: the one for writing is busy, and those for reading
// refuse the command.
func (s *sqliteDB) copyTo(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite", s.dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path)
	return remedy(err)
}

func (s *sqliteDB) backupBeside(ctx context.Context, age time.Duration) (string, error) {
	if !s.isFile() {
		return "", nil
	}
	at := time.Now().UTC()
	kept, err := s.backups()
	if err != nil {
		return "", err
	}
	if n := len(kept); n > 0 && age > 0 {
		// A time in the future was written with a wrong clock.
		if made, ok := s.backupTime(kept[n-1]); ok && !made.After(at) && at.Sub(made) < age {
			return "", nil
		}
	}
	path := s.path + backupMark + at.Format(backupTime)
	if err := s.backup(ctx, path); err != nil {
		return "", err
	}
	if kept, err = s.backups(); err != nil {
		return "", err
	}
	for _, old := range kept[:max(0, len(kept)-keptBackups)] {
		if old != path {
			err = errors.Join(err, os.Remove(old))
		}
	}
	return path, err
}

// backups returns the copies beside the state, the oldest first.
func (s *sqliteDB) backups() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(filepath.Dir(s.path), e.Name())
		if _, ok := s.backupTime(path); ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// backupTime returns when a copy beside the state was made; ok is false for another file.
func (s *sqliteDB) backupTime(path string) (at time.Time, ok bool) {
	text, ok := strings.CutPrefix(path, s.path+backupMark)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(backupTime, text)
	return at, err == nil
}

func (p *postgresDB) backup(context.Context, string) error { return ErrNoCopy }

func (p *postgresDB) backupBeside(context.Context, time.Duration) (string, error) { return "", nil }
