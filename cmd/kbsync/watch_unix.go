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
