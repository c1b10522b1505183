package watcher

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kbsync/kbsync/state"
)

// Neighbours returns a function that opens documents as Open does, at a lower cost if one document mostly lies in the directory
// of the one before: it keeps that directory open. One goroutine may use it. Call end soon, because until then the file system
// cannot be unmounted.
func (d *Directory) Neighbours() (open func(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error), end func()) {
	n := &neighbours{root: d}
	return n.open, n.leave
}

// Writers implements DirectoryTree. The function knows only of this machine's processes, and on Linux only for files of this user, or
// with CAP_LEASE. It costs least if each document lies in the directory of the one before.
func (d *Directory) Writers() (hasWriter func(ctx context.Context, key string) bool, end func()) {
	n := &neighbours{root: d}
	return n.hasWriter, n.leave
}

type neighbours struct {
	root      *Directory
	key       string   // of the open directory, with a slash at its end
	directory *os.Root // nil if none is open
}

func (n *neighbours) open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	if ctx.Err() == nil && validKey(key) && n.enter(key[:strings.LastIndexByte(key, '/')+1]) {
		if r, err := n.root.openBelow(ctx, n.directory, key[len(n.key):], key, fp); err == nil {
			return r, nil
		}
	}
	// The document may be a link to another directory, or the directory may have been replaced: only the whole path decides.
	return n.root.Open(ctx, key, fp)
}

// hasWriter reports whether a process has a document open for writing.
func (n *neighbours) hasWriter(ctx context.Context, key string) bool {
	if ctx.Err() != nil || !validKey(key) {
		return false
	}
	file := n.file(key)
	if file == nil {
		return false
	}
	defer file.Close()
	return hasWriter(file)
}

// file opens a document of whatever version; nil if that fails.
func (n *neighbours) file(key string) *os.File {
	for _, directory := range []string{key[:strings.LastIndexByte(key, '/')+1], ""} {
		if !n.enter(directory) {
			continue
		}
		if file, err := openThroughLinks(n.directory, key[len(directory):]); err == nil {
			return file
		}
	}
	return nil
}

// enter opens a directory if it is not the open one.
func (n *neighbours) enter(key string) bool {
	if n.directory != nil && n.key == key {
		return true
	}
	n.leave()
	root, err := n.root.open()
	if err != nil {
		return false
	}
	if key == "" {
		n.directory, n.key = root, ""
		return true
	}
	defer root.Close()
	n.directory, err = root.OpenRoot(filepath.FromSlash(strings.TrimSuffix(key, "/")))
	if n.key = key; err != nil {
		n.directory = nil
	}
	return err == nil
}

func (n *neighbours) leave() {
	if n.directory != nil {
		n.directory.Close() // only read
		n.directory = nil
	}
}
