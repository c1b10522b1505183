package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// signals cancels two contexts on SIGINT and SIGTERM, and the first one on SIGHUP as well: a closed terminal sends it, often twice, and
// a service manager may send it after SIGTERM, so it never cuts. SIGPIPE has no effect: a write to a closed pipe fails instead.
type signals struct {
	// soft ends with the first signal. Work that has not begun must not begin.
	soft context.Context
	// hard ends with the second SIGINT or SIGTERM. All work must end at once.
	hard context.Context

	cut     context.CancelFunc
	hangups chan os.Signal
	// reload receives each SIGHUP in place of soft while reloads is true.
	reload  chan os.Signal
	reloads atomic.Bool
	end     func()
}

func watchSignals(ctx context.Context) *signals {
	hard, cut := context.WithCancel(ctx)
	soft, stop := context.WithCancel(hard)
	s := &signals{soft: soft, hard: hard, cut: cut, hangups: make(chan os.Signal, 1), reload: make(chan os.Signal, 1)}
	arrived, pipes := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(arrived, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signal.Notify(s.hangups, syscall.SIGHUP)
	}
	signal.Notify(pipes, syscall.SIGPIPE) // signal.Ignore would hold for hooks, too
	done := make(chan struct{})
	var receivers sync.WaitGroup
	receivers.Go(func() {
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
	})
	receivers.Go(func() { s.receiveHangups(stop, done) })
	s.end = func() {
		for _, c := range []chan os.Signal{arrived, s.hangups, pipes} {
			signal.Stop(c)
		}
		close(done)
		receivers.Wait()
		stop()
		cut()
	}
	return s
}

// receiveHangups calls stop for each SIGHUP, or hands it to reload, until done is closed.
func (s *signals) receiveHangups(stop func(), done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case hangup := <-s.hangups:
			if !s.reloads.Load() {
				stop()
				continue
			}
			select {
			case s.reload <- hangup:
			default: // a reload is waiting already
			}
		}
	}
}

// reloadOnHangup makes SIGHUP a request to reload the config, also under nohup, and returns the channel that receives it.
func (s *signals) reloadOnHangup() <-chan os.Signal {
	s.reloads.Store(true)
	signal.Notify(s.hangups, syscall.SIGHUP)
	return s.reload
}
