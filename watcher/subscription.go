package watcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A subscription is a connection to a broker. One goroutine uses it; any goroutine may call the functions of its deliveries.
type subscription interface {
	// receive waits for the next message. After an error other than that of ctx, the subscription is closed.
	receive(ctx context.Context) (*delivery, error)
	// connectedAfter is how long receive must run without an error until the subscription counts as connected; zero if it
	// counts as connected at once.
	connectedAfter() time.Duration
	// lease is the time after which the broker delivers a message again unless it is renewed; zero if it cannot be renewed.
	lease() time.Duration
	// close returns the fetched messages to the broker, if that is possible, and ends the connection.
	close()
}

// maxHeldMessages is how many unacknowledged messages a feed holds at most.
const maxHeldMessages = 10_000

// dialTimeout bounds a connect, and separately a handshake.
const dialTimeout = 10 * time.Second

// parseSubscriptionURL parses an address. Beside an error, the returned URL is the part that a message may show.
func parseSubscriptionURL(address string) (*url.URL, url.Values, error) {
	u, err := url.Parse(address)
	if err != nil {
		scheme, _, _ := strings.Cut(address, ":")
		return &url.URL{Scheme: scheme}, nil, errors.New("it is not a URL; write one such as nats://host:4222/STREAM")
	}
	shown := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.User != nil:
		return shown, nil, errors.New("it has credentials in it; put them into the environment (docs/buckets.md)")
	case err != nil:
		return shown, nil, errors.New("it has parameters that cannot be read; write name=value pairs with & between them")
	case u.Fragment != "":
		return shown, nil, errors.New("it has a # in it; write %23 for the character")
	}
	for name, values := range query {
		for _, v := range values {
			if u, err := url.Parse(v); err == nil && u.User != nil {
				return shown, nil, fmt.Errorf("it has credentials in its parameter %s; put them into the environment (docs/buckets.md)", name)
			}
		}
	}
	return u, query, nil
}

// onlyParameters returns an error if the query has another parameter than the named ones.
func onlyParameters(query url.Values, names ...string) error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(names, name) {
			continue
		}
		if len(names) == 0 {
			return fmt.Errorf("it has the unknown parameter %s; it takes none", name)
		}
		return fmt.Errorf("it has the unknown parameter %s; it takes %s", name, strings.Join(names, ", "))
	}
	return nil
}
