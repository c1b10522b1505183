package statuspage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestListenUsesTheLoopbackByDefault(t *testing.T) {
	for addr, want := range map[string]func(net.IP) bool{
		":0": net.IP.IsLoopback, "127.0.0.1:0": net.IP.IsLoopback, "localhost:0": net.IP.IsLoopback, "0.0.0.0:0": net.IP.IsUnspecified,
	} {
		l, err := Listen(t.Context(), addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if !want(l.Addr().(*net.TCPAddr).IP) {
			t.Errorf("%s listens on %v", addr, l.Addr())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []string{"", "9090", "localhost", "localhost:http", ":70000", "::1:9090"} {
		if l, err := Listen(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "such as 127.0.0.1:9090") {
			t.Errorf("%q: %v, %v", addr, l, err)
		}
	}
	l, err := Listen(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(t.Context(), l.Addr().String()); err == nil {
		t.Error("an address that is taken was given out")
	}
}

func TestServeCompletesRequestsInProgress(t *testing.T) {
	p := newFixture(t).page(Options{ReadLocally: true})
	l, err := Listen(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/", p)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, mux, nil) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	fetch := func(path string) (int, string, error) {
		resp, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	if code, body, err := fetch("/healthz"); err != nil || code != 200 || body != "ok\n" {
		t.Errorf("%d %q %v", code, body, err)
	}
	if code, body, err := fetch("/"); err != nil || code != 200 || !strings.Contains(body, "kbsync") {
		t.Errorf("%d %q %v", code, body, err)
	}
	// Serve completes a request in progress when the context ends.
	answered := make(chan error, 1)
	go func() {
		_, body, err := fetch("/slow")
		if err == nil && body != "done" {
			err = errors.New(body)
		}
		answered <- err
	}()
	<-entered
	cancel()
	close(leave)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := fetch("/healthz"); err == nil {
		t.Error("it still responds")
	}

	l, err = Listen(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), l, p, nil); err == nil {
		t.Error("serving a closed listener succeeds")
	}
}

// A pipeListener accepts connections in memory, so that time is that of a bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	open   atomic.Int64 // accepted, and not closed
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		l.open.Add(1)
		return &countedConn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	go func() {
		select {
		case l.conns <- server:
		case <-l.closed:
			server.Close()
		}
	}()
	return client
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error { c.closed(); return c.Conn.Close() }

// Someone opens connections and sends nothing. The process keeps its descriptors, and health checks soon get an answer.
func TestConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }), nil)
		}()
		most := maxConnections(maxOpenFiles())
		for range 2 * most {
			defer l.dial().Close()
		}
		synctest.Wait()
		if open := l.open.Load(); open != int64(most) {
			t.Errorf("%d connections are open, want %d", open, most)
		}
		began := time.Now()
		client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }}}
		for range 2 {
			resp, err := client.Get("http://127.0.0.1/healthz")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if resp.Body.Close(); err != nil || string(body) != "ok" || !resp.Close {
				t.Errorf("%q, %v, kept open: %v", body, err, !resp.Close)
			}
		}
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("the answer took %v", took)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestMaxConnectionsLeavesFiles(t *testing.T) {
	for files, want := range map[uint64]int{0: 64, 8: 2, 64: 8, 256: 32, 1024: 64, 1 << 63: 64} {
		if got := maxConnections(files); got != want {
			t.Errorf("%d of %d files, want %d", got, files, want)
		}
	}
}
