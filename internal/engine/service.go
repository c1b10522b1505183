package engine

import (
	"cmp"
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// stopMargin is the time that a stopping process may need beside the grace for its requests.
const stopMargin = 10 * time.Second

// A service reports to systemd how the process is, if a unit of Type=notify started it; elsewhere it does nothing.
type service struct {
	last     string        // status that was reported
	watchdog time.Duration // between two reports that the process is healthy; 0 for none
}

func newService() *service {
	s := &service{}
	// Without a WATCHDOG_USEC that can be read there is no watchdog.
	if every, err := sd.SdWatchdogEnabled(false); err == nil {
		s.watchdog = every / 2
	}
	return s
}

// notify sends a message. Nothing depends on its arrival.
func (s *service) notify(message string) { _, _ = sd.SdNotify(false, message) }

// status reports a line for systemctl status, if it has changed.
func (s *service) status(text string) {
	if text != s.last {
		s.last = text
		s.notify("STATUS=" + text)
	}
}

// reloading announces a reload, which ends with READY=1.
func (s *service) reloading() {
	s.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

// run reports until ended is closed: that the process lives while healthy says so, whatever the event loop waits for, and that it stops
// when ctx ends. The service manager then waits longer than grace, even if the stop timeout of its unit is shorter.
func (s *service) run(ctx context.Context, ended <-chan struct{}, healthy func() bool, grace func() time.Duration) {
	ticker := time.NewTicker(cmp.Or(s.watchdog, time.Hour))
	defer ticker.Stop()
	stopping := ctx.Done()
	for {
		select {
		case <-ended:
			return
		case <-stopping:
			s.notify(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", (grace() + stopMargin).Microseconds()))
			stopping = nil
		case <-ticker.C:
			if s.watchdog > 0 && healthy() {
				s.notify("WATCHDOG=1")
			}
		}
	}
}
