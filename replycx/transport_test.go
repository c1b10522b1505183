package replycx

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// deadConn is a connection that the other side has closed unnoticed: after a number of
// bytes every write fails.
type deadConn struct {
	net.Conn
	takes  int
	closed chan struct{}
	once   sync.Once
}

func (c *deadConn) Write(p []byte) (int, error) {
	n := min(c.takes, len(p))
	c.takes -= n
	if n < len(p) {
		return n, syscall.ECONNRESET
	}
	return n, nil
}

func (c *deadConn) Read([]byte) (int, error) { <-c.closed; return 0, net.ErrClosed }
func (c *deadConn) Close() error             { c.once.Do(func() { close(c.closed) }); return nil }

// TestUploadOnADeadConnectionIsUnsent: header and content are written before the seal
// is called. If the transport buffered them, every idle connection that the server had
// closed would make the outcome of an upload unknown.
func TestUploadOnADeadConnectionIsUnsent(t *testing.T) {
	for _, takes := range []int{0, 1, 1000} {
		c, err := New("t", Options{BaseURL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		transport := c.http.Transport.(*http.Transport)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			buffers := &sync.Pool{New: func() any { return new([64 << 10]byte) }}
			return &conn{Conn: &deadConn{takes: takes, closed: make(chan struct{})}, buffers: buffers, closed: make(chan struct{})}, nil
		}
		sealed := false
		_, err = c.UploadSources(t.Context(), 1, []Part{TextPart("f", strings.Repeat("text ", 2000))}, &UploadOptions{Seal: func(context.Context) error { sealed = true; return nil }})
		if _, unsent := errors.AsType[*UnsentError](err); sealed || !unsent {
			t.Errorf("%d bytes written: sealed %v, unsent %v, error %v", takes, sealed, unsent, err)
		}
	}
}
