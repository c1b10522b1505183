//go:build linux || darwin

package statuspage

import "syscall"

// maxOpenFiles returns how many files the process may have open; 0 if that is unknown.
func maxOpenFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return limit.Cur
}
