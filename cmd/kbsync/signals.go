package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals cancels two contexts on SIGINT and SIGTERM.
type signals struct {
	// soft ends with the first signal. Work that has not begun must not begin.
	soft context.Context
	// hard ends with the second signal. All work must end at once.
	hard context.Context

	cut context.CancelFunc
	end func()
}

func watchSignals(ctx context.Context) *signals {
	hard, cut := context.WithCancel(ctx)
	soft, stop := context.WithCancel(hard)
	arrived := make(chan os.Signal, 2)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for _, then := range []context.CancelFunc{stop, cut} {
			select {
			case <-arrived:
				then()
			case <-done:
				return
			}
		}
		// The default action of a third signal ends the process, even if it hangs.
		signal.Stop(arrived)
	}()
	return &signals{soft: soft, hard: hard, cut: cut, end: func() {
		signal.Stop(arrived)
		close(done)
		<-finished
		stop()
		cut()
	}}
}
