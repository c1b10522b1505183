package watcher

import "golang.org/x/sys/unix"

// On this system one watch covers a directory with all its files.
const (
	watchPerFile      = false
	maxWatchedEntries = 0
)

// unreliableEvents returns why the events of a directory are unreliable; empty if they are reliable.
func unreliableEvents(f *folder) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return ""
	}
	if kind := remote[uint32(st.Type)]; kind != "" {
		return "it is on " + kind + ", which does not report all changes"
	}
	return ""
}

// remote names the file systems whose files may change without an event, by the number in statfs: other hosts
// write to them, or they have a lower layer.
var remote = map[uint32]string{
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.SMB_SUPER_MAGIC:       "SMB",
	unix.SMB2_SUPER_MAGIC:      "SMB",
	unix.CIFS_SUPER_MAGIC:      "SMB",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.V9FS_MAGIC:            "9p",
	unix.OVERLAYFS_SUPER_MAGIC: "an overlay",
	unix.AFS_SUPER_MAGIC:       "AFS",
	unix.AFS_FS_MAGIC:          "AFS",
	unix.CEPH_SUPER_MAGIC:      "Ceph",
	unix.CODA_SUPER_MAGIC:      "Coda",
	unix.OCFS2_SUPER_MAGIC:     "OCFS2",
	unix.PROC_SUPER_MAGIC:      "proc",
	unix.SYSFS_MAGIC:           "sysfs",
	0x786f4256:                 "a VirtualBox folder",
	0x0bd00bd0:                 "Lustre",
	0x47504653:                 "GPFS",
	0x01161970:                 "GFS2",
}

// foreignStamps reports whether the time stamps of the file n of f, on this device, come from another clock than this machine's. Those
// of FAT are rounded to two seconds, so they prove as little.
func foreignStamps(f *folder, n node, _ uint64) bool {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !n.via {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat(f.fd, n.name, flags, 0)
	if err != nil {
		return true // as far as is known
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return true
	}
	switch kind := uint32(st.Type); kind {
	case unix.OVERLAYFS_SUPER_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		return false
	case unix.MSDOS_SUPER_MAGIC:
		return true
	default:
		return remote[kind] != ""
	}
}
