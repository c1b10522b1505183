//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchRequests returns channels that receive SIGHUP, a request to reload the config, and SIGUSR1, a request to log the
// status. They receive signals until end is called.
func watchRequests() (reload, dump <-chan os.Signal, end func()) {
	hup, usr1 := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(usr1, syscall.SIGUSR1)
	return hup, usr1, func() {
		signal.Stop(hup)
		signal.Stop(usr1)
	}
}
