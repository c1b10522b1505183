package replycx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// newTransport returns the client's own transport. It speaks HTTP/1.1: each upload
// then has its own connection, and net/http honours Expect: 100-continue.
func newTransport(timeouts Timeouts, caFile string) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: timeouts.Dial, KeepAlive: 30 * time.Second}
	buffers := &sync.Pool{New: func() any { return new([64 << 10]byte) }}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &conn{Conn: c, buffers: buffers, closed: make(chan struct{})}, nil
		},
		TLSHandshakeTimeout: timeouts.TLS,
		MaxIdleConnsPerHost: 64,
		// Shorter than any server's timeout: a request on a connection that the server is
		// closing at that moment has an unknown outcome.
		IdleConnTimeout:        4 * time.Second,
		ExpectContinueTimeout:  2 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		WriteBufferSize:        64 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate authorities: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificate authorities: %s holds no PEM certificate", caFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return t, nil
}

// conn copies request bodies through pooled buffers, and delays write errors so that
// an answer followed by a reset can be read.
type conn struct {
	net.Conn
	buffers *sync.Pool // of *[64 << 10]byte

	closing sync.Once
	closed  chan struct{}
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.delayError()
	}
	return n, err
}

// delayError holds a write error back for a moment. A server that refuses a body
// halfway answers and resets the connection; the transport would see the reset
// first and discard the answer.
func (c *conn) delayError() {
	timer := time.NewTimer(500 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-c.closed:
	case <-timer.C:
	}
}

func (c *conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// ReadFrom makes io.Copy use a pooled buffer instead of a new one for every request.
func (c *conn) ReadFrom(r io.Reader) (n int64, err error) {
	buf := c.buffers.Get().(*[64 << 10]byte)
	defer c.buffers.Put(buf)
	for {
		m, err := r.Read(buf[:])
		if m > 0 {
			w, werr := c.Write(buf[:m])
			n += int64(w)
			if werr != nil {
				return n, werr
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
