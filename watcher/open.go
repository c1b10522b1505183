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

// Open opens the version of a document that was listed with this fingerprint. The reader yields exactly the fingerprint's size in
// bytes. If the file is another version, at the start or after the last byte, the error is state.ErrChanged, and the last bytes are
// not returned. One goroutine may use the reader, which is an io.ReaderAt too. It fails when ctx ends.
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

// openVersion opens a file and checks that it is the listed version. It follows links inside the root: the fingerprint shows
// whether they lead to the listed file.
func openVersion(root *os.Root, key string, fp state.Fingerprint) (*os.File, error) {
	file, err := root.OpenFile(filepath.FromSlash(key), os.O_RDONLY|nonblock, 0)
	if err != nil {
		if leadsNowhere(err) && !errors.Is(err, fs.ErrNotExist) {
			// The file was replaced by a link, or a directory above it by a file.
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

// compare returns state.ErrChanged if an open file does not have this fingerprint.
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
	left        int64 // bytes that Read has not returned yet
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
		return 0, fmt.Errorf("read %q: %w: the file is shorter than listed", v.key, state.ErrChanged)
	case err != nil:
		return 0, fmt.Errorf("read: %w", err)
	case v.left == 0:
		if err := v.verify(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// verify checks that the bytes read are the whole version.
func (v *version) verify() error {
	if v.verified {
		return nil
	}
	var more [1]byte
	switch n, err := v.file.Read(more[:]); {
	case n > 0:
		return fmt.Errorf("read %q: %w: the file is longer than listed", v.key, state.ErrChanged)
	case err != nil && err != io.EOF:
		return fmt.Errorf("read: %w", err)
	}
	if err := compare(v.file, v.key, v.fingerprint); err != nil {
		return err
	}
	v.verified = true
	return nil
}

// ReadAt reads bytes of the version at any offset. It does not move Read, and does not check that the file is still the version.
func (v *version) ReadAt(p []byte, offset int64) (int, error) {
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	return io.NewSectionReader(v.file, 0, v.fingerprint.Size).ReadAt(p, offset)
}

func (v *version) Close() error { return v.file.Close() }
