package watcher

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// read returns all names in f, unsorted, with unknown kinds.
func (f *folder) read([]byte) ([]node, error) {
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	file := os.NewFile(uintptr(fd), "directory")
	defer file.Close()
	names, err := file.Readdirnames(-1)
	if err != nil {
		return nil, gone(err)
	}
	nodes := make([]node, len(names))
	for i, name := range names {
		nodes[i].name = name
	}
	return nodes, nil
}

func changeTime(st *syscall.Stat_t) int64 { return st.Ctimespec.Nano() }

// dataless is the flag of files that iCloud and other file providers have evicted (SF_DATALESS).
const dataless = 0x40000000

func dehydrated(st *unix.Stat_t) bool        { return st.Flags&dataless != 0 }
func dehydratedFile(st *syscall.Stat_t) bool { return st.Flags&dataless != 0 }

// birthTime returns the time of creation of a file in Unix nanoseconds; 0 if the file system does not report it.
func birthTime(f *os.File) int64 {
	fi, err := f.Stat()
	if err != nil {
		return 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Birthtimespec.Nano()
}
