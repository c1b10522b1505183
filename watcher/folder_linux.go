package watcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// read returns all names in f, unsorted, with the kinds that the file system reports. The caller reuses the buffer.
//
// It does not use os.File.ReadDir, which looks up unreported kinds by path and omits a name if that fails; the omission would
// look like a removal.
func (f *folder) read(buffer []byte) ([]node, error) {
	var nodes []node
	var names []byte // the names of all nodes, concatenated to save allocations
	var ends []int
	for {
		n, err := unix.Getdents(f.fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, gone(err)
		}
		if n == 0 {
			break
		}
		for entries := buffer[:n]; len(entries) > 0; {
			// struct linux_dirent64: inode and offset, 8 bytes each, length, 2 bytes, kind, 1 byte, and the name up to a NUL.
			length := int(binary.NativeEndian.Uint16(entries[16:]))
			entry := entries[:length]
			entries = entries[length:]
			name, _, _ := bytes.Cut(entry[19:], []byte{0})
			if string(name) == "." || string(name) == ".." {
				continue
			}
			k := kindOther
			switch entry[18] {
			case unix.DT_UNKNOWN:
				k = kindUnknown
			case unix.DT_REG:
				k = kindFile
			case unix.DT_DIR:
				k = kindDirectory
			case unix.DT_LNK:
				k = kindLink
			}
			names = append(names, name...)
			ends = append(ends, len(names))
			nodes = append(nodes, node{kind: k})
		}
	}
	all, begin := string(names), 0
	for i, end := range ends {
		nodes[i].name = all[begin:end]
		begin = end
	}
	return nodes, nil
}

func changeTime(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

// No file system of Linux marks files whose content is in the cloud only.
func dehydrated(*unix.Stat_t) bool        { return false }
func dehydratedFile(*syscall.Stat_t) bool { return false }

// birthTime returns the time of creation of a file in Unix nanoseconds; 0 if the file system does not report it.
func birthTime(f *os.File) int64 {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
