//go:build !linux && !darwin

package watcher

import (
	"path/filepath"
	"runtime"
)

// Apart from Windows these systems have kqueue, where a watch needs an open file for every file.
const (
	watchPerFile      = true
	maxWatchedEntries = 2000
)

// unreliableEvents returns why the events of a directory are unreliable; empty if they are reliable.
func unreliableEvents(*folder) string {
	if runtime.GOOS == "windows" {
		return "on Windows, the directories above a watched one cannot be renamed"
	}
	return ""
}

// foreignStamps reports whether the time stamps of the files in f come from another clock than this machine's.
func foreignStamps(f *folder, _ node, _ uint64) bool {
	return remoteVolume(filepath.VolumeName(f.root.Name()))
}
