package watcher

import "golang.org/x/sys/unix"

// A watch takes an open file for every file here.
const (
	costly        = true
	costlyEntries = 2000
)

// unwatchable returns why events of a directory are not to be relied upon; empty if they are.
func unwatchable(f *folder) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return ""
	}
	switch kind := unix.ByteSliceToString(st.Fstypename[:]); kind {
	case "nfs", "smbfs", "webdav", "afpfs", "ftp", "macfuse", "osxfuse":
		return "it is on " + kind + ", which does not tell of all changes"
	}
	return ""
}
