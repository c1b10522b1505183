//go:build !linux

package main

import "testing"

// shortOfFiles does nothing: only Linux changes the limits of another process.
func shortOfFiles(int) (restore func() error, err error) { return nil, nil }

// smallDisk returns nothing: only Linux mounts a file system in memory.
func smallDisk(testing.TB) string { return "" }
