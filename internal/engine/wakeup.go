package engine

// A wakeup signals that there may be something to do. Signals that nothing has received yet are one.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// signal sends the signal. It never blocks.
func (w wakeup) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}
