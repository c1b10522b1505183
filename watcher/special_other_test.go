//go:build !linux && !darwin

package watcher

import (
	"testing"
	"time"
)

// special creates nothing: this system has no such files.
func special(*testing.T, string) {}

// cpuTime is unknown on this system.
func cpuTime() time.Duration { return 0 }
