package watcher

import (
	"io/fs"
	"syscall"
)

// onlineOnly are the attributes of files that OneDrive and other clients keep in the cloud: offline, recall on open, recall on data
// access.
const onlineOnly = 0x1000 | 0x40000 | 0x400000

// dehydrated reports whether the content of a file is in the cloud only.
func dehydrated(fi fs.FileInfo) bool {
	data, ok := fi.Sys().(*syscall.Win32FileAttributeData)
	return ok && fi.Mode().IsRegular() && data.FileAttributes&onlineOnly != 0
}
