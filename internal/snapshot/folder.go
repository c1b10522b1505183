package snapshot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/kbsync/kbsync/internal/atomicfile"
)

// A folder is a directory in the place of a bucket. gocloud.dev's would let other users read the files.
type folder string

func openFolder(u *url.URL) (objects, error) {
	if u.Host != "" || u.Path == "" || u.RawQuery != "" {
		return nil, errors.New("the URL of a folder has three slashes, its absolute path, and prefix as its only parameter: file:///mnt/backups")
	}
	dir := u.Path
	if len(dir) > 2 && dir[2] == ':' { // file:///C:/backups
		dir = dir[1:]
	}
	return folder(filepath.FromSlash(dir)), nil
}

func (f folder) path(key string) string { return filepath.Join(string(f), filepath.FromSlash(key)) }

func (f folder) put(_ context.Context, key string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(f.path(key)), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(f.path(key), write)
}

func (f folder) keys(_ context.Context, prefix string) (keys []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(f.path(prefix)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if key := path.Join(path.Dir(prefix), e.Name()); strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, err
}

func (f folder) open(_ context.Context, key string) (io.ReadCloser, error) {
	return os.Open(f.path(key))
}

func (f folder) remove(_ context.Context, key string) error { return os.Remove(f.path(key)) }

func (f folder) close() error { return nil }
