//go:build !linux && !darwin

package watcher

import "runtime"

// What is not Windows here has kqueue or the like, where a watch takes an open file for every file.
const (
	costly        = true
	costlyEntries = 2000
)

// unwatchable returns why events of a directory are not to be relied upon; empty if they are.
func unwatchable(*folder) string {
	if runtime.GOOS == "windows" {
		return "on Windows, a watched directory keeps its user from renaming those above it"
	}
	return ""
}
