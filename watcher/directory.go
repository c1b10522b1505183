package watcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/kbsync/kbsync/state"
)

// DirectoryOptions configure a Directory.
type DirectoryOptions struct {
	Filter    *Filter // nil for the filter of the zero FilterOptions
	CopyLinks bool    // follow symbolic links that stay inside the root
	// Settle is the least time between two readings that must agree if time stamps do not hold still.
	Settle time.Duration
}

// A Directory is a root on a file system. Several goroutines may use it.
//
// Each listing and each Open opens the path again, and so follows a mount, a replaced directory or a link with another target.
// Nothing stays open between calls, so the file system can be unmounted. The path may be a symbolic link, as with git-sync. All
// other accesses start from the opened directory and never leave it, even if a name is replaced by a link at the same time.
//
// Only regular files are documents. Symbolic links are left out unless CopyLinks is set. A ..data link identifies a directory as a mounted
// Kubernetes ConfigMap: links in it through ..data are followed, and names that begin with two dots are left out. The links of git-sync to
// its worktrees are followed as well, and the worktrees are left out.
type Directory struct {
	path   string
	filter *Filter
	links  bool
	now    func() time.Time
	unsteady
	// A test sets fault to fail the reading of a directory or of a file's metadata, by its key; stamp to change the fingerprint of
	// a file, as a file server does; foreign to say that the stamps are those of another clock; and finds to give the name in a
	// directory that another name finds, as a file system that ignores case does.
	fault   func(key string) error
	stamp   func(key string, fp state.Fingerprint) state.Fingerprint
	foreign func(f *folder, n node, device uint64) bool
	finds   func(f *folder, name string) string
}

var _ Root = (*Directory)(nil)

// NewDirectory returns the root at path. It does not access the path.
func NewDirectory(path string, opts DirectoryOptions) *Directory {
	d := &Directory{path: path, filter: opts.Filter, links: opts.CopyLinks, now: time.Now, foreign: foreignStamps}
	d.settle = max(opts.Settle, racy)
	if d.filter == nil {
		d.filter = &Filter{}
	}
	return d
}

// Identity returns the device, the inode and the time of birth of the directory at the path. Errors: ErrRootMissing.
func (d *Directory) Identity(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	root, err := d.open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	identity, err := identityOf(root)
	if err != nil {
		return "", fmt.Errorf("open root %s: %w", d.path, err)
	}
	return identity, nil
}

// open opens the path.
func (d *Directory) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, d.openError(err)
	}
	return root, nil
}

func (d *Directory) openError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", d.path, ErrRootMissing)
	}
	if info, statErr := os.Stat(d.path); errors.Is(err, syscall.ENOTDIR) || statErr == nil && !info.IsDir() {
		return fmt.Errorf("root %s is a file; write its directory, and select the file by an include", d.path)
	}
	return fmt.Errorf("open root: %w", err)
}

// infoOfFile returns the metadata of an open file.
func infoOfFile(f *os.File) (info, error) {
	fi, err := f.Stat()
	if err != nil {
		return info{}, err
	}
	return infoOf(fi), nil
}

// An info is the part of a file's metadata that a listing uses.
type info struct {
	kind        kind
	device      uint64
	dehydrated  bool // the content is in the cloud only, and reading the file would download it
	fingerprint state.Fingerprint
}

// validName reports whether name can be a name in a directory.
func validName(name string) bool {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return false
	}
	return runtime.GOOS != "windows" || filepath.IsLocal(name) && !strings.ContainsAny(name, `\:`)
}

// validKey reports whether key can be the key of a document in a directory.
func validKey(key string) bool {
	for name := range strings.SplitSeq(key, "/") {
		if !validName(name) {
			return false
		}
	}
	return true
}

// errFile ends a walk that looks for a file.
var errFile = errors.New("there is a file")

// Vacant reports whether key, with a slash at its end, is a directory without any file below it, whatever the filter says.
func (d *Directory) Vacant(ctx context.Context, key string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	root, err := d.open()
	if err != nil {
		return false, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), strings.TrimSuffix(key, "/"), func(_ string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !e.IsDir():
			return errFile
		}
		return ctx.Err()
	})
	switch {
	case errors.Is(err, errFile), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrInvalid):
		return false, nil // no valid name for Go is no mount point either
	case err != nil:
		return false, fmt.Errorf("look at the directory %q: %w", key, err)
	}
	return true, nil
}
