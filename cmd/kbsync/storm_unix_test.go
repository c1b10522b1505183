//go:build unix

package main

import (
	"os"
	"syscall"
)

func hangUp(p *os.Process) error { return p.Signal(syscall.SIGHUP) }
