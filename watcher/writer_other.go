//go:build !linux

package watcher

import "os"

// hasWriter reports nothing: only Linux shows it cheaply.
func hasWriter(*os.File) bool { return false }
