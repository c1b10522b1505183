package watcher

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may have. Linux allows as many.
const maxLinks = 40

// throughLinks calls open with a path in the root, and again with the path that its links lead to if it has more links than the eight
// that os.Root follows. A path that works for every other program must not look removed.
func throughLinks[T any](root *os.Root, name string, open func(string) (T, error)) (T, error) {
	got, err := open(name)
	if !errors.Is(err, syscall.ELOOP) {
		return got, err
	}
	target, failed := linkTarget(root, name)
	if failed != nil {
		return got, err
	}
	return open(target)
}

// openThroughLinks opens a file for reading. It does not wait for the writer of a FIFO.
func openThroughLinks(root *os.Root, key string) (*os.File, error) {
	return throughLinks(root, filepath.FromSlash(key), func(name string) (*os.File, error) {
		return root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	})
}

var errManyLinks = errors.New("too many links, or a link out of the root")

// linkTarget returns the path without links that name leads to. The root confines the path when it is used, whatever has changed by then.
func linkTarget(root *os.Root, name string) (string, error) {
	const separator = string(filepath.Separator)
	rest := strings.Split(name, separator)
	target := "."
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if target == "." {
				return "", errManyLinks
			}
			target = filepath.Dir(target)
			continue
		}
		next := filepath.Join(target, part)
		fi, err := root.Lstat(next)
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			target = next
			continue
		}
		text, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks || filepath.IsAbs(text) {
			return "", errManyLinks
		}
		rest = append(strings.Split(filepath.FromSlash(text), separator), rest...)
	}
	return target, nil
}
