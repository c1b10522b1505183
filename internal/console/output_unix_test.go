//go:build unix

package console

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// failing is a stream whose writes fail.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestStreamsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err        error
		wantClosed bool
	}{
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, true},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, false},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EIO}, false},
	} {
		c := New(failing{test.err}, failing{test.err}, false)
		_, err := fmt.Fprintln(c.Stdout, "a result")
		if c.Closed() != test.wantClosed || (err == nil) != test.wantClosed || err != nil && !errors.Is(err, test.err) {
			t.Errorf("%v: stdout is closed: %v, and the error is %v", test.err, c.Closed(), err)
		}
		if _, err := fmt.Fprintln(c.Stderr, "a note"); err != nil {
			t.Errorf("%v: stderr fails with %v", test.err, err)
		}
	}
}
