//go:build unix && !linux

package pgtest

import "syscall"

// endWithParent does nothing: a server outlives a process of tests that is killed.
func endWithParent(*syscall.SysProcAttr) {}
