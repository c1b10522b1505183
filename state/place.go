package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A placedFile is an open file of the state, and the path that leads to it as long as it is in its place.
type placedFile struct {
	path string
	info fs.FileInfo
}

// placeFile returns the file at path.
func placeFile(path string) (placedFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return placedFile{}, err
	}
	// Windows reads the identity of a file when it is first compared, and by its path.
	_ = os.SameFile(info, info)
	return placedFile{path, info}, nil
}

// check returns an error if the path leads to another file now, or to none.
func (f placedFile) check() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if !os.SameFile(f.info, info) {
		return fmt.Errorf("%s is another file", f.path)
	}
	return nil
}

// place notes the database's file before SQLite opens it. given is the path as the user wrote it: if a link in it changes, the
// next process opens another state.
func (s *sqliteDB) place(given string) error {
	f, err := placeFile(given)
	if err != nil {
		return err
	}
	s.files = []placedFile{f}
	return nil
}

// placeLogs notes the files of SQLite's write-ahead log. It fails if the database was replaced while SQLite opened it.
func (s *sqliteDB) placeLogs() error {
	if s.files == nil {
		return nil // opened for reading
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		f, err := placeFile(s.path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
	}
	return s.filesInPlace()
}

// filesInPlace checks that every file of the state is where it was opened. Errors: ErrMoved.
func (s *sqliteDB) filesInPlace() error {
	for _, f := range s.files {
		if err := f.check(); err != nil {
			return fmt.Errorf("%w: %w; end kbsync, put the state's files back, and start it again", ErrMoved, err)
		}
	}
	return nil
}

// heldInPlace checks that this process may still write the truth about the sync of that name: other processes find the files
// that it writes to, and the lock file that it holds. A process without the lock passes. Errors: ErrMoved, ErrLockLost.
func (s *sqliteDB) heldInPlace(name string) error {
	if err := s.filesInPlace(); err != nil {
		return err
	}
	l := s.heldLock(name)
	if l == nil {
		return nil
	}
	if err := l.placed.check(); err != nil {
		return fmt.Errorf("sync %q: %w: %w; end kbsync and start it again", name, ErrLockLost, err)
	}
	return nil
}

func (s *sqliteDB) inPlace(t *tx, syncID int64) error {
	var name string
	if err := t.one(`SELECT name FROM syncs WHERE id = $1`, []any{syncID}, &name); err != nil {
		return err
	}
	return s.heldInPlace(name)
}

// resolveLinks returns the path without symbolic links. What does not exist yet has none.
func resolveLinks(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	dir := filepath.Dir(path)
	if !errors.Is(err, fs.ErrNotExist) || dir == path {
		return resolved, err
	}
	if dir, err = resolveLinks(dir); err != nil {
		return "", err
	}
	path = filepath.Join(dir, filepath.Base(path))
	target, err := os.Readlink(path)
	if err != nil {
		return path, nil // neither a file nor a link
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return resolveLinks(target)
}
