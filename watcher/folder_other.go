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

// nonblock is empty: opening a file never blocks on this system.
const nonblock = 0

// A folder is an open directory. Names are looked up in it without following links.
type folder struct{ root *os.Root }

// openFolder opens a directory of the root, following links that stay inside it.
func openFolder(root *os.Root, name string) (*folder, error) {
	sub, err := throughLinks(root, name, root.OpenRoot)
	if err != nil {
		return nil, gone(err)
	}
	return &folder{sub}, nil
}

func (f *folder) close() { f.root.Close() }

// child opens a directory in f. If it was removed or replaced, the error is errGone.
func (f *folder) child(name string) (*folder, error) {
	sub, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, gone(err)
	}
	// If the name was replaced by a link inside the root, OpenRoot follows it to a directory that was not listed.
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

// gone adds errGone to errors that mean that a name was removed.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errGone) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

func infoOf(fi fs.FileInfo) info {
	return info{kind: kindOf(fi.Mode()), dehydrated: dehydrated(fi), fingerprint: state.Fingerprint{Size: fi.Size(), MTime: fi.ModTime().UnixNano()}}
}
