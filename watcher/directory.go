package watcher

import (
	"context"
	"io"
	"iter"

	"github.com/kbsync/kbsync/state"
)

// DirectoryOptions of a Directory.
type DirectoryOptions struct {
	Filter    *Filter // nil: the zero FilterOptions
	CopyLinks bool    // follow symbolic links that stay inside the root
}

// A Directory is a root on a file system.
type Directory struct{}

// NewDirectory returns the root at path. It touches no disk: the path, which may be a symbolic link, is opened anew for each
// listing.
func NewDirectory(path string, opts DirectoryOptions) *Directory { panic("later") }

// Identity returns the device and the inode that the path leads to now. Errors: ErrRootMissing.
func (d *Directory) Identity(ctx context.Context) (string, error) { panic("later") }

// List is that of Root.
func (d *Directory) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] { panic("later") }

// Open opens the version of a document that was listed with this fingerprint. It reads exactly as many bytes as that says, and
// fails with an error that is state.ErrChanged if what is there, at the beginning or at the end, is not that version; the last
// bytes are given out only then. Errors: state.ErrChanged, ErrRootMissing, fs.ErrNotExist.
func (d *Directory) Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	panic("later")
}

// Explain says what a scan makes of the key.
func (d *Directory) Explain(ctx context.Context, key string) (Explanation, error) { panic("later") }

// Close gives up what is kept open between calls. The Directory may be used again.
func (d *Directory) Close() error { panic("later") }
