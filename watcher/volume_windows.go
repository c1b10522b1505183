package watcher

import (
	"strings"

	"golang.org/x/sys/windows"
)

// remoteVolume reports whether a volume is on another machine, or may be.
func remoteVolume(name string) bool {
	if strings.HasPrefix(name, `\\`) {
		return true
	}
	path, err := windows.UTF16PtrFromString(name + `\`)
	return err != nil || windows.GetDriveType(path) == windows.DRIVE_REMOTE
}
