package main

import (
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// A service tells systemd how the process is, where it was started by a unit of Type=notify; elsewhere it tells nobody.
type service struct {
	changed bell   // there may be something to tell
	last    string // status that was told
	pets    time.Duration
}

func newService() *service {
	s := &service{changed: newBell()}
	// Without a WATCHDOG_USEC that can be read there is no watchdog.
	if every, err := sd.SdWatchdogEnabled(false); err == nil {
		s.pets = every / 2
	}
	return s
}

// say sends a message. That nobody hears it is no matter.
func (s *service) say(message string) { _, _ = sd.SdNotify(false, message) }

// status tells a line for systemctl status, if it is another one than before.
func (s *service) status(text string) {
	if text != s.last {
		s.last = text
		s.say("STATUS=" + text)
	}
}

// reloading announces a reload, whose end is READY=1.
func (s *service) reloading() {
	s.say(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

// watchdog ticks as often as the manager is to hear that the process is well: never, if it does not want to.
func (s *service) watchdog() *time.Ticker {
	if s.pets > 0 {
		return time.NewTicker(s.pets)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}
