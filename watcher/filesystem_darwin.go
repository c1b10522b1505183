package watcher

import "golang.org/x/sys/unix"

// On this system a watch needs an open file for every file.
const (
	watchPerFile      = true
	maxWatchedEntries = 2000
)

// unreliableEvents returns why the events of a directory are unreliable; empty if they are reliable.
func unreliableEvents(f *folder) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return ""
	}
	switch kind := unix.ByteSliceToString(st.Fstypename[:]); kind {
	case "nfs", "smbfs", "webdav", "afpfs", "ftp", "macfuse", "osxfuse":
		return "it is on " + kind + ", which does not report all changes"
	}
	return ""
}
