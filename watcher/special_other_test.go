//go:build !linux && !darwin

package watcher

import (
	"testing"
	"time"
)

// special makes nothing here: there are no such files.
func special(*testing.T, string) {}

// cpuTime can't be told here.
func cpuTime() time.Duration { return 0 }
