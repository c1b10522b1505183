//go:build !linux && !darwin && !windows

package watcher

import "io/fs"

// dehydrated reports that no file system of this system marks files whose content is in the cloud only.
func dehydrated(fs.FileInfo) bool { return false }
