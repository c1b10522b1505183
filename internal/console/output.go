package console

import (
	"io"
	"sync/atomic"
)

// An output is stdout. After its reader has ended, as in kbsync sources | head, it drops what is printed: the work goes on, and its
// result decides the exit code. Any other error, such as a full disk, is returned.
type output struct {
	w      io.Writer
	closed atomic.Bool
}

func (o *output) Write(p []byte) (int, error) {
	if o.closed.Load() {
		return len(p), nil
	}
	n, err := o.w.Write(p)
	if err != nil && isClosedPipe(err) {
		o.closed.Store(true)
		return len(p), nil
	}
	return n, err
}

// Closed reports whether the reader of stdout has ended. A command that prints until it is interrupted ends then.
func (c *Console) Closed() bool { return c.output.closed.Load() }
