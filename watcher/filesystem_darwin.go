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

// foreignStamps reports whether the time stamps of the files in f come from another clock than this machine's. Those of FAT are rounded
// to two seconds, so they prove as little.
func foreignStamps(f *folder, _ node, _ uint64) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return true // as far as is known
	}
	return unreliableEvents(f) != "" || unix.ByteSliceToString(st.Fstypename[:]) == "msdos"
}
