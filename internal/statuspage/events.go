package statuspage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	// maxStreams is how many streams of events may be open. Each holds a connection, and they have a quarter of maxConnections at most.
	maxStreams = 16
	// streamLife is how long a stream is open before the browser connects again. It is shorter than the limit of Serve for a response.
	streamLife = 50 * time.Second
	// streamEvery is how often a stream looks for a change. The reading of the state that they share is not newer than minAge.
	streamEvery = minAge
	// reconnect is the pause of a browser between two streams, in milliseconds.
	reconnect = 1000
)

// serveEvents is a stream of server-sent events: an event when the content of the pages may have changed. The parameter since is the id of
// the content that the browser has.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	if p.streams.Add(1) > int32(min(maxStreams, maxConnections(maxOpenFiles())/4)) {
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
	seen := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("since"))
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

// contentID returns the id of the present content.
func (p *Page) contentID(ctx context.Context) string {
	o, err := p.overview(ctx)
	if err != nil {
		return "unreadable"
	}
	return o.id()
}

// id returns a text that changes with the content, but not with the time of day.
func (o *overview) id() string {
	content := *o
	content.At, content.Syncs, content.Loops = time.Time{}, slices.Clone(o.Syncs), slices.Clone(o.Loops)
	for i := range content.Syncs {
		content.Syncs[i].LagSeconds = 0
	}
	for i := range content.Loops {
		content.Loops[i].TickedAt = time.Time{}
	}
	data, err := json.Marshal(content)
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
