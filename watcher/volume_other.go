//go:build !linux && !darwin && !windows

package watcher

// remoteVolume reports nothing: these systems have no volumes.
func remoteVolume(string) bool { return false }
