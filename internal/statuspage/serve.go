package statuspage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/netutil"
)

// Listen listens on a host:port. Without a host it listens on the loopback: ":9090" means 127.0.0.1:9090. "0.0.0.0:9090" and
// "[::]:9090" mean all addresses of the machine. Port 0 means any free port. Log the Addr of the listener, not addr.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return nil, fmt.Errorf("listen: %q is not an address; write a host and a port, such as 127.0.0.1:9090", addr)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// maxConnections returns how many connections are open at once, for a limit of open files; 0 means that the limit is unknown. The rest of
// the files is for scans and uploads. Any program that reaches the address can open connections, even without the token.
func maxConnections(files uint64) int {
	const most = 64
	if files == 0 {
		return most
	}
	return int(min(max(files/8, 2), most))
}

// Serve serves requests on l until ctx ends. Then it waits a few seconds for the requests in progress, closes l and returns
// nil. It logs errors of single connections; log may be nil. Further connections wait while too many are open. A connection serves one
// request, so no client can hold it. Serve closes a connection without a request after five seconds.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	const grace = 3 * time.Second
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return withEnding(context.Background(), ctx.Done()) },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	server.SetKeepAlivesEnabled(false)
	limited := netutil.LimitListener(l, maxConnections(maxOpenFiles()))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(limited) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the status page: %w", err)
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(soon); err != nil {
		_ = server.Close() // cuts the remaining requests; none of them has to be completed
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the status page: %w", err)
	}
	return nil
}
