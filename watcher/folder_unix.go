//go:build linux || darwin

package watcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbsync/kbsync/state"
)

// nonblock keeps the opening of a FIFO from waiting for a writer.
const nonblock = unix.O_NONBLOCK

// A folder is an open directory. Names are looked up by its descriptor and without following links, so that no replaced name
// leads a walk out of it.
type folder struct{ fd int }

// openFolder opens a directory of the root, following links that stay inside it.
func openFolder(root *os.Root, name string) (*folder, error) {
	f, err := throughLinks(root, name, func(name string) (*os.File, error) {
		return root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return &folder{fd}, nil
}

func (f *folder) close() { unix.Close(f.fd) }

// child opens a directory in f. If it was removed or replaced, the error is errGone.
func (f *folder) child(name string) (*folder, error) {
	for {
		fd, err := unix.Openat(f.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return &folder{fd}, nil
		case !errors.Is(err, unix.EINTR):
			return nil, gone(err)
		}
	}
}

// stat returns a name's metadata. Errors: errGone.
func (f *folder) stat(name string) (info, error) {
	var st unix.Stat_t
	for {
		switch err := unix.Fstatat(f.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil:
			return infoOfStat(&st), nil
		case !errors.Is(err, unix.EINTR):
			return info{}, gone(err)
		}
	}
}

// self returns the directory's own metadata.
func (f *folder) self() (info, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return info{}, err
	}
	return infoOfStat(&st), nil
}

func infoOfStat(st *unix.Stat_t) info {
	i := info{
		device:     uint64(st.Dev),
		dehydrated: dehydrated(st),
		fingerprint: state.Fingerprint{
			Size:  st.Size,
			MTime: st.Mtim.Nano(),
			CTime: st.Ctim.Nano(),
			Inode: st.Ino,
		},
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.kind = kindFile
	case unix.S_IFDIR:
		i.kind = kindDirectory
	case unix.S_IFLNK:
		i.kind = kindLink
	default:
		i.kind = kindOther
	}
	return i
}

// infoOf converts the result of os.Root.Stat.
func infoOf(fi fs.FileInfo) info {
	st := fi.Sys().(*syscall.Stat_t)
	return info{
		kind:        kindOf(fi.Mode()),
		device:      uint64(st.Dev),
		dehydrated:  dehydratedFile(st),
		fingerprint: state.Fingerprint{Size: fi.Size(), MTime: fi.ModTime().UnixNano(), CTime: changeTime(st), Inode: st.Ino},
	}
}

// identityOf returns device, inode and time of birth of the root. The inode alone does not suffice: systems soon reuse the inode
// of a removed directory.
func identityOf(root *os.Root) (string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return "", err
	}
	defer dir.Close()
	fi, err := dir.Stat()
	if err != nil {
		return "", err
	}
	i := infoOf(fi)
	return fmt.Sprintf("%d:%d:%d", i.device, i.fingerprint.Inode, birthTime(dir)), nil
}
