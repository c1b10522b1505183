// Package atomicfile writes files that readers see whole or not at all.
package atomicfile

import (
	"io"
	"os"
	"path/filepath"
)

// Write replaces the file at path by the output of write. Only its owner may read and write it. After an error, or a crash at
// any moment, the file is as it was before.
func Write(path string, write func(io.Writer) error) (err error) {
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
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
