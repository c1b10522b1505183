package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kbsync/kbsync/internal/engine"
)

// signals turns SIGINT and SIGTERM into the ends of two contexts.
type signals struct {
	// soft ends with the first signal: nothing new is begun.
	soft context.Context
	// hard ends with the second one: all that is going on is cut.
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
		// A third one is the system's affair: it ends the process whatever hangs.
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

// graceful returns the context for work that is let to finish after the first signal: it ends with the second one, or
// when the grace after the first is over.
func (s *signals) graceful(grace time.Duration) (context.Context, context.CancelFunc) {
	return engine.Graceful(s.soft, s.hard, grace)
}
