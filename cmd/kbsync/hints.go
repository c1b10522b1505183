package main

import (
	"context"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/watcher"
)

// hints say which parts of a root may have changed: file events of a directory, notifications of a bucket.
type hints interface {
	Wake() <-chan struct{}
	// Take returns the prefixes that may have changed since the last Take.
	Take() []string
	// Recorded says that everything that was ever taken is recorded, but for what left covers.
	Recorded(left []string)
	// Missed tells how many changes a scan of everything found although nothing was dirty.
	Missed(n int)
	// Count tells the metrics what came since the last time.
	Count(m *statuspage.Metrics, sync string)
	Close() error
}

var (
	_ hints = (*events)(nil)
	_ hints = (*notifications)(nil)
)

// hints begins to listen to what tells of changes; nil if nothing does. The error is that of ctx.
func (k *keeper) hints(ctx context.Context) (hints, error) {
	// With the settle time as the delay, what was written at once has settled when it is scanned.
	delay := max(k.config.Settle, 20*time.Millisecond) + 5*time.Millisecond
	if k.cfg.Period != 0 {
		return nil, nil
	}
	switch root := k.root.place.(type) {
	case *watcher.Directory:
		watch, err := root.Watch(ctx, watcher.WatchOptions{Delay: delay, Logger: k.log()})
		if err != nil {
			return nil, err
		}
		return &events{Watch: watch}, nil
	case *watcher.Bucket:
		if k.config.Notifications == "" {
			return nil, nil
		}
		feed, err := root.Notifications(ctx, k.config.Notifications, watcher.FeedOptions{Name: k.config.Name, Delay: delay, Logger: k.log()})
		if err != nil {
			return nil, err
		}
		return &notifications{Feed: feed}, nil
	}
	return nil, nil
}

// events are those of a directory.
type events struct {
	*watcher.Watch
	overflows uint64
}

// Recorded does nothing: no event comes again.
func (*events) Recorded([]string) {}

func (e *events) Count(m *statuspage.Metrics, sync string) {
	for n := e.Stats().Overflows; e.overflows < n; e.overflows++ {
		m.Overflowed(sync)
	}
}

// notifications are those of a bucket.
type notifications struct {
	*watcher.Feed
	told watcher.FeedStats
}

// Missed does nothing: the bucket is listed at every rescan anyway.
func (*notifications) Missed(int) {}

func (n *notifications) Count(m *statuspage.Metrics, sync string) {
	now := n.Stats()
	m.Notified(sync, statuspage.Notifications{
		Taken: now.Taken - n.told.Taken, Elsewhere: now.Elsewhere - n.told.Elsewhere, Unknown: now.Unknown - n.told.Unknown,
		Connections: now.Connections - n.told.Connections, FailedAcks: now.FailedAcks - n.told.FailedAcks,
		Connected: now.Connected, Held: now.Held,
	})
	n.told = now
}
