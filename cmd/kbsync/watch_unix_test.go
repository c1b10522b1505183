//go:build unix

package main

import (
	"fmt"
	"syscall"
)

func sendSignal(pid int, name string) error {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "KILL": syscall.SIGKILL}
	s, ok := signals[name]
	if !ok {
		return fmt.Errorf("no signal %s", name)
	}
	return syscall.Kill(pid, s)
}
