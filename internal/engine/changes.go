package engine

import (
	"context"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/watcher"
)

// A changeSource reports the parts of a root that may have changed: from the file events of a directory, or the notifications of a
// bucket.
type changeSource interface {
	// Wake receives a value when there may be something to take.
	Wake() <-chan struct{}
	// Take returns the prefixes that may have changed since the last Take.
	Take() []string
	// Recorded reports that the state has recorded everything that was ever taken, except below the prefixes left.
	Recorded(left []string)
	Close() error
}

var (
	_ changeSource = (*fileEvents)(nil)
	_ changeSource = (*notifications)(nil)
)

// fileEvents are the changes of a directory.
type fileEvents struct {
	*watcher.Watch
	overflows uint64 // counted before
}

// Recorded does nothing: an event is never delivered again.
func (*fileEvents) Recorded([]string) {}

// notifications are the changes of a bucket.
type notifications struct {
	*watcher.Feed
	counted watcher.FeedStats
}

// openChanges starts to listen for changes; it returns nil if only time decides when to scan. The error is that of ctx.
func (l *loops) openChanges(ctx context.Context) (changeSource, error) {
	if l.opts.Config.Period != 0 {
		return nil, nil
	}
	// With the settle time as the delay, files that were written at once have settled when they are scanned.
	delay := max(l.config.Settle, 20*time.Millisecond) + 5*time.Millisecond
	switch root := l.root.Root.(type) {
	case *watcher.Directory:
		watch, err := root.Watch(ctx, watcher.WatchOptions{Delay: delay, Logger: l.logger})
		if err != nil {
			return nil, err
		}
		return &fileEvents{Watch: watch}, nil
	case *watcher.Bucket:
		if l.config.Notifications == "" {
			return nil, nil
		}
		feed, err := root.Notifications(ctx, l.config.Notifications, watcher.FeedOptions{Name: l.config.Name, Delay: delay, Logger: l.logger})
		if err != nil {
			return nil, err
		}
		return &notifications{Feed: feed}, nil
	}
	return nil, nil
}

// scannedAll reports the end of a scan of the whole root, after which a polled root waits until its next one.
func scannedAll(source changeSource) {
	if e, ok := source.(*fileEvents); ok {
		e.Scanned()
	}
}

// rootMissing reports whether the watch of a directory has not found it yet.
func rootMissing(source changeSource) bool {
	e, ok := source.(*fileEvents)
	return ok && e.Stats().RootMissing
}

// countMissed reports the changes that a full scan found without an event, so that a watch which misses events polls instead. A
// bucket with notifications is listed at every rescan anyway.
func countMissed(source changeSource, n int) {
	if e, ok := source.(*fileEvents); ok {
		e.Missed(n)
	}
}

// countChanges adds the changes since the last call to the metrics.
func countChanges(source changeSource, m *statuspage.Metrics, sync string) {
	switch s := source.(type) {
	case *fileEvents:
		for n := s.Stats().Overflows; s.overflows < n; s.overflows++ {
			m.Overflowed(sync)
		}
	case *notifications:
		now, before := s.Stats(), s.counted
		m.Notified(sync, statuspage.Notifications{
			Taken: now.Taken - before.Taken, Elsewhere: now.Elsewhere - before.Elsewhere, Unknown: now.Unknown - before.Unknown,
			Connections: now.Connections - before.Connections, FailedAcks: now.FailedAcks - before.FailedAcks,
			Connected: now.Connected, Held: now.Held,
		})
		s.counted = now
	}
}
