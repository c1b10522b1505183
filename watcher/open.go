package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbsync/kbsync/state"
)

// Open opens the version of a document that was listed with this fingerprint. The reader yields exactly as many bytes as that says.
// If what is there is another version, at the beginning or when the last byte has been read, the error is state.ErrChanged, and the
// last bytes are not given out. The reader is for one goroutine, and fails when ctx has ended.
//
// Errors: state.ErrChanged, ErrRootMissing, fs.ErrNotExist.
func (d *Directory) Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validKey(key) {
		return nil, fmt.Errorf("open %q: %w", key, fs.ErrNotExist)
	}
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := openVersion(root, key, fp)
	if err != nil {
		return nil, err
	}
	return &version{ctx: ctx, file: file, key: key, fingerprint: fp, left: fp.Size}, nil
}

// openVersion opens a file and makes sure that it is the one that was listed. Links are followed inside the root: the fingerprint
// tells whether they lead to what was listed.
func openVersion(root *os.Root, key string, fp state.Fingerprint) (*os.File, error) {
	file, err := root.OpenFile(filepath.FromSlash(key), os.O_RDONLY|nonblock, 0)
	if err != nil {
		if leadsNowhere(err) && !errors.Is(err, fs.ErrNotExist) {
			// A link was put there, or a directory on its way became a file.
			return nil, fmt.Errorf("open %q: %w: %w", key, state.ErrChanged, err)
		}
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := compare(file, key, fp); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// compare says whether an open file has this fingerprint.
func compare(file *os.File, key string, fp state.Fingerprint) error {
	i, err := infoOfFile(file)
	if err != nil {
		return fmt.Errorf("read %q: %w", key, err)
	}
	fp.ETag = ""
	if i.kind != kindFile || i.fingerprint != fp {
		return fmt.Errorf("read %q: %w", key, state.ErrChanged)
	}
	return nil
}

// A version reads one version of a document.
type version struct {
	ctx         context.Context
	file        *os.File
	key         string
	fingerprint state.Fingerprint
	left        int64 // bytes that were not given out yet
	verified    bool
	err         error
}

func (v *version) Read(p []byte) (n int, err error) {
	if v.err != nil {
		return 0, v.err
	}
	defer func() { v.err = err }()
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	if v.left == 0 {
		if err := v.verify(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err = v.file.Read(p[:min(int64(len(p)), v.left)])
	v.left -= int64(n)
	switch {
	case err == io.EOF:
		return 0, fmt.Errorf("read %q: %w: it is shorter", v.key, state.ErrChanged)
	case err != nil:
		return 0, fmt.Errorf("read: %w", err)
	case v.left == 0:
		if err := v.verify(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// verify makes sure that all that was read is the version, and all of it.
func (v *version) verify() error {
	if v.verified {
		return nil
	}
	var more [1]byte
	switch n, err := v.file.Read(more[:]); {
	case n > 0:
		return fmt.Errorf("read %q: %w: it is longer", v.key, state.ErrChanged)
	case err != nil && err != io.EOF:
		return fmt.Errorf("read: %w", err)
	}
	if err := compare(v.file, v.key, v.fingerprint); err != nil {
		return err
	}
	v.verified = true
	return nil
}

func (v *version) Close() error { return v.file.Close() }
