package statuspage

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	// maxStreams is how many streams of events may be open. Each holds a connection; see maxConnections.
	maxStreams = 16
	// streamLife is how long a stream is open before the browser connects again. It is shorter than the limit of Serve for a response.
	streamLife = 50 * time.Second
	// streamEvery is how often a stream looks for a change. The reading of the state that they share is not newer than minAge.
	streamEvery = minAge
	// reconnect is the pause of a browser between two streams, in milliseconds.
	reconnect = 1000
)

// serveEvents is a stream of server-sent events: an event when the content of the pages may have changed.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	if p.streams.Add(1) > maxStreams {
		p.streams.Add(-1)
		w.Header().Set("Retry-After", "30")
		http.Error(w, "Too many pages are open. This one is read again every 30 seconds.", http.StatusServiceUnavailable)
		return
	}
	defer p.streams.Add(-1)
	ctx, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	seen := r.Header.Get("Last-Event-ID")
	if _, err := fmt.Fprintf(w, "retry: %d\n\n", reconnect); err != nil || out.Flush() != nil {
		return
	}
	for {
		if now := p.contentID(ctx); now != seen && ctx.Err() == nil {
			seen = now
			if _, err := fmt.Fprintf(w, "id: %s\nevent: change\ndata: %s\n\n", now, now); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ending(ctx):
			return
		case <-time.After(streamEvery):
		}
	}
}

// contentID returns a text that changes with the content of the pages, but not with the time of day.
func (p *Page) contentID(ctx context.Context) string {
	o, err := p.overview(ctx)
	if err != nil {
		return "unreadable"
	}
	o.At = time.Time{}
	for i := range o.Syncs {
		o.Syncs[i].LagSeconds = 0
	}
	for i := range o.Loops {
		o.Loops[i].TickedAt = time.Time{}
	}
	data, err := json.Marshal(o)
	if err != nil {
		return "unreadable"
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))[:16]
}

type endingKey struct{}

// withEnding returns a context for requests that names the end of the server.
func withEnding(ctx context.Context, end <-chan struct{}) context.Context {
	return context.WithValue(ctx, endingKey{}, end)
}

// ending returns a channel that is closed when the server ends; nil if it is not known.
func ending(ctx context.Context) <-chan struct{} {
	end, _ := ctx.Value(endingKey{}).(<-chan struct{})
	return end
}
