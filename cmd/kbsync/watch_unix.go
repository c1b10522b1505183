//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// dumpRequests returns a channel that receives SIGUSR1, a request to log the status, until end is called.
func dumpRequests() (dump <-chan os.Signal, end func()) {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	return usr1, func() { signal.Stop(usr1) }
}

// isPrivate reports whether a file belongs to this user and no other user has a permission on it.
func isPrivate(fi os.FileInfo) bool {
	stat, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && fi.Mode().Perm()&0o077 == 0
}
