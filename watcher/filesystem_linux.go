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
