//go:build !linux && !darwin

package watcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbsync/kbsync/state"
)

// nonblock is nothing here: opening a file does not wait.
const nonblock = 0

// A folder is an open directory. Names are looked up in it without following links.
type folder struct{ root *os.Root }

// openFolder opens a directory of the root, following links that stay inside it.
func openFolder(root *os.Root, name string) (*folder, error) {
	sub, err := root.OpenRoot(name)
	if err != nil {
		return nil, gone(err)
	}
	return &folder{sub}, nil
}

func (f *folder) close() { f.root.Close() }

// child opens a directory in f. One that is not there any more, or is something else by now, is errGone.
func (f *folder) child(name string) (*folder, error) {
	sub, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, gone(err)
	}
	// OpenRoot follows a link that was swapped in, if it stays inside; what it leads to is not what was listed.
	before, err := f.root.Lstat(name)
	if err == nil {
		var after fs.FileInfo
		if after, err = sub.Stat("."); err == nil && !os.SameFile(before, after) {
			err = errGone
		}
	}
	if err != nil {
		sub.Close()
		return nil, gone(err)
	}
	return &folder{sub}, nil
}

// stat returns a name's metadata. Errors: errGone.
func (f *folder) stat(name string) (info, error) {
	fi, err := f.root.Lstat(name)
	if err != nil {
		return info{}, gone(err)
	}
	return infoOf(fi), nil
}

// self returns the directory's own metadata.
func (f *folder) self() (info, error) { return f.stat(".") }

// read returns all names in f, unsorted, with unknown kinds.
func (f *folder) read([]byte) ([]node, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, gone(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, gone(err)
	}
	nodes := make([]node, len(names))
	for i, name := range names {
		nodes[i].name = filepath.ToSlash(name)
	}
	return nodes, nil
}

// gone makes errGone of errors that say that a name is not there.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errGone) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

func infoOf(fi fs.FileInfo) info {
	return info{kind: kindOf(fi.Mode()), fingerprint: state.Fingerprint{Size: fi.Size(), MTime: fi.ModTime().UnixNano()}}
}
