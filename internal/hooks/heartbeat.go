package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// heartbeatTimeout bounds a heartbeat.
const heartbeatTimeout = 10 * time.Second

// Heartbeat requests the URL of a sync once. Its error does not contain the URL, and is the cause of ctx if ctx ended.
func Heartbeat(ctx context.Context, url, userAgent string) error {
	bounded, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("heartbeat: its URL cannot be used")
	}
	req.Header.Set("User-Agent", userAgent)
	err = send(req, "heartbeat")
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// newClient returns a client that follows no redirects: a POST would become a GET of another address.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send makes a request and reads its status alone. No error contains the URL, because the URLs of webhooks are secrets.
func send(req *http.Request, action string) error {
	resp, err := newClient().Do(req)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", action, req.URL.Host, errors.Unwrap(err))
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only the status counts
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s at %s: HTTP status %d", action, req.URL.Host, resp.StatusCode)
	}
	return nil
}
