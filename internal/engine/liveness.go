package engine

import (
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
)

const (
	livenessLimit = 2 * time.Minute  // a loop without a sign of life for this long hangs
	livenessEvery = 15 * time.Second // a loop that waits gives a sign of life this often
)

// A liveness records when a loop last made progress. The page and the service manager read it.
type liveness struct {
	loop *statuspage.Loop
	last atomic.Int64 // in Unix nanoseconds
}

func newLiveness(page *statuspage.Page, name string) *liveness {
	l := &liveness{loop: page.Loop(name, livenessLimit)}
	l.last.Store(time.Now().UnixNano())
	return l
}

// tick gives a sign of life. It is cheap enough for each document.
func (l *liveness) tick() {
	now := time.Now().UnixNano()
	if now-l.last.Load() < int64(time.Second) {
		return
	}
	l.last.Store(now)
	l.loop.Tick()
}

// end reports that the loop has ended.
func (l *liveness) end() { l.loop.End() }

// alive reports whether the loop gave a sign of life within the limit.
func (l *liveness) alive() bool { return time.Since(time.Unix(0, l.last.Load())) < livenessLimit }
