package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// clock is the time of the emulator: a base, and the duration by which it was
// advanced.
type clock struct {
	base     func() time.Time
	advanced atomic.Int64 // nanoseconds
}

// maxAdvance bounds the duration by which the clock is ahead, so that no time leaves
// the range of Unix nanoseconds.
const maxAdvance = 100 * 365 * 24 * time.Hour

// now returns the emulator's time.
func (e *Emulator) now() time.Time {
	return e.clock.base().Add(time.Duration(e.clock.advanced.Load()))
}

// Now returns the time of the emulator's clock.
func (e *Emulator) Now() time.Time { return e.now() }

// Advance moves the emulator's clock forward by d, and keeps the move in the file if
// there is one. The training of sources, the expiry of tokens and the times in answers
// follow the clock. Latencies, stalls and the retries of webhooks take real time. It
// fails if d is negative or the clock would be more than 100 years ahead.
func (e *Emulator) Advance(d time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return err
	}
	ahead := time.Duration(e.clock.advanced.Load())
	switch {
	case d < 0:
		return errors.New("the clock moves only forward: the duration must not be negative")
	case d > maxAdvance-ahead:
		return fmt.Errorf("the clock would be more than %d years ahead", maxAdvance/(365*24*time.Hour))
	}
	line := journalLine{Clock: int64(ahead + d)}
	if err := e.write(line); err != nil {
		return err
	}
	e.apply(line)
	return nil
}

func (e *Emulator) getClock(w http.ResponseWriter, _ *http.Request) {
	encode(http.StatusOK, map[string]any{
		"ok": true, "now": e.now().UTC(), "advanced": time.Duration(e.clock.advanced.Load()).String(),
	}).write(w)
}

func (e *Emulator) postClock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Advance string `json:"advance"`
	}
	err := readJSON(r, &body)
	var d time.Duration
	if err == nil {
		d, err = time.ParseDuration(body.Advance)
	}
	if err == nil {
		err = e.Advance(d)
	}
	if err != nil {
		badRequest(err.Error()).write(w)
		return
	}
	e.getClock(w, r)
}
