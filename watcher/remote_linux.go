package watcher

import "golang.org/x/sys/unix"

// A watch is of a directory here, whatever it holds.
const (
	costly        = false
	costlyEntries = 0
)

// unwatchable returns why events of a directory are not to be relied upon; empty if they are. Of what others change on a server, and of
// what comes to light from a lower layer, there are none.
func unwatchable(f *folder) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return ""
	}
	if kind := remote[uint32(st.Type)]; kind != "" {
		return "it is on " + kind + ", which does not tell of all changes"
	}
	return ""
}

// remote are file systems whose files may change without an event, by statfs's number.
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
