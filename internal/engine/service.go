package engine

import (
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

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

// ticker ticks as often as the service manager expects a report that the process is healthy; never without a watchdog.
func (s *service) ticker() *time.Ticker {
	if s.watchdog > 0 {
		return time.NewTicker(s.watchdog)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}
