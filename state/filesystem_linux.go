package state

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// refuseNetwork refuses a directory on a network file system. SQLite's write-ahead log needs memory that all processes
// share, and the locks of such file systems are not reliable enough for an inventory that cannot be rebuilt.
func refuseNetwork(dir string) error {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	switch fileSystem(dir) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC:
		return fmt.Errorf("%s is on a network file system, where the state is not safe; put it on a local disk with --state", dir)
	}
	return nil
}

// fileSystem returns the magic number of the file system, or 0 if it cannot be read: opening the file reports the cause.
func fileSystem(dir string) uint32 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return uint32(st.Type)
}

// ephemeralReason names the kind of a file system that the next start of the machine or the container empties.
func ephemeralReason(dir string) string {
	switch fileSystem(dir) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return "in memory (tmpfs), which is gone with the next start of the machine or the container"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "on an overlay, which as a container's own layer is gone with the container"
	}
	return ""
}
