package statuspage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
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
