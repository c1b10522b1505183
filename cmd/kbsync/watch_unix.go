//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchRequests returns where a wish to read the config again arrives, and one to tell how things stand, until end is called.
func watchRequests() (reload, dump <-chan os.Signal, end func()) {
	hup, usr1 := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(usr1, syscall.SIGUSR1)
	return hup, usr1, func() {
		signal.Stop(hup)
		signal.Stop(usr1)
	}
}
