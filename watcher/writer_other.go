//go:build !linux

package watcher

import "os"

// hasWriter reports nothing: only Linux tells cheaply.
func hasWriter(*os.File) bool { return false }
