package watcher

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/kbsync/kbsync/state"
)

// Open opens the version of a document that was listed with this fingerprint. The reader yields exactly the fingerprint's size in
// bytes. If the file is another version, at the start or after the last byte, the error is state.ErrChanged, and the last bytes are
// not returned. If time stamps do not hold still, the content decides which version it is; see DirectoryTree. One goroutine may use
// the reader, which is an io.ReaderAt too. It fails when ctx ends.
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
	return d.openBelow(ctx, root, key, key, fp)
}

// openBelow opens a version by its name below a directory of the root.
func (d *Directory) openBelow(ctx context.Context, directory *os.Root, name, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	file, err := openRegular(directory, name)
	if err != nil {
		return nil, err
	}
	v := &version{ctx: ctx, directory: d, file: file, left: fp.Size}
	v.reading = reading{key: key, listed: fp, began: d.now()}
	if err := v.begin(); err != nil {
		file.Close()
		return nil, err
	}
	return v, nil
}

// openRegular opens a file. It follows links inside the root: the fingerprint shows whether they lead to the listed file.
func openRegular(root *os.Root, key string) (*os.File, error) {
	file, err := openThroughLinks(root, key)
	if err != nil {
		if leadsNowhere(err) && !errors.Is(err, fs.ErrNotExist) {
			// The file was replaced by a link, or a directory above it by a file.
			return nil, fmt.Errorf("open %q: %w: %w", key, state.ErrChanged, err)
		}
		return nil, fmt.Errorf("open: %w", err)
	}
	return file, nil
}

// A version reads one version of a document.
type version struct {
	ctx       context.Context
	directory *Directory
	file      *os.File
	reading
	hash     hash.Hash // nil if the fingerprint alone decides
	left     int64     // bytes that Read has not returned yet
	atEnd    bool      // the file had no more bytes
	verified bool
	err      error
}

// begin compares the open file with the listed version.
func (v *version) begin() error {
	i, err := v.info()
	if err != nil {
		return err
	}
	listed := v.listed
	listed.ETag = ""
	unsteady := v.directory.mayBeUnsteady(v.key, i.device)
	if i.kind != kindFile || i.fingerprint.Size != listed.Size || !unsteady && i.fingerprint != listed {
		return v.changed("")
	}
	if unsteady {
		v.hash = sha256.New()
	}
	v.before = i.fingerprint
	return nil
}

// info returns the metadata of the open file.
func (v *version) info() (info, error) {
	i, err := infoOfFile(v.file)
	if err != nil {
		return info{}, fmt.Errorf("read %q: %w", v.key, err)
	}
	if v.directory.stamp != nil {
		i.fingerprint = v.directory.stamp(v.key, i.fingerprint)
	}
	return i, nil
}

func (v *version) changed(why string) error {
	return fmt.Errorf("read %q: %w%s", v.key, state.ErrChanged, why)
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
	room := int(min(int64(len(p)), v.left+1)) // with a byte more, one read also shows that the file has ended
	n, err = v.file.Read(p[:room])
	if int64(n) > v.left {
		return 0, v.changed(longer)
	}
	v.left -= int64(n)
	if v.hash != nil {
		_, _ = v.hash.Write(p[:n]) // never fails
	}
	switch {
	case err == io.EOF:
		return 0, v.changed(": the file is shorter than listed")
	case err != nil:
		return 0, fmt.Errorf("read: %w", err)
	case v.left == 0:
		v.atEnd = n < room
		if err := v.verify(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

const longer = ": the file is longer than listed"

// verify checks that the bytes read are the whole version.
func (v *version) verify() error {
	if v.verified {
		return nil
	}
	if !v.atEnd {
		var more [1]byte
		switch n, err := v.file.Read(more[:]); {
		case n > 0:
			return v.changed(longer)
		case err != nil && err != io.EOF:
			return fmt.Errorf("read: %w", err)
		}
	}
	i, err := v.info()
	if err != nil {
		return err
	}
	v.after, v.ended = i.fingerprint, v.directory.now()
	if v.hash != nil {
		v.hash.Sum(v.sum[:0])
		err = v.directory.accept(&v.reading)
	} else if v.after != v.before {
		err = v.changed("")
	}
	if err != nil {
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
	return io.NewSectionReader(v.file, 0, v.listed.Size).ReadAt(p, offset)
}

func (v *version) Close() error { return v.file.Close() }
