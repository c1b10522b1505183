package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// progress shows the progress of a run: bars on a terminal, log lines elsewhere. It counts all syncs of the run together.
type progress struct {
	out   *output
	began time.Time

	checked       atomic.Int64 // documents listed
	documents     atomic.Int64 // documents to upload
	bytes         atomic.Int64 // bytes to upload
	doneDocuments atomic.Int64
	doneBytes     atomic.Int64
	sent          atomic.Int64 // bytes sent, including those of failed requests
	training      atomic.Int64 // documents in training
	trained       atomic.Int64

	bars    *mpb.Progress
	all     []*mpb.Bar
	restore func()
	done    chan struct{}
	group   sync.WaitGroup
	once    sync.Once
}

const (
	lineEvery = 10 * time.Second       // between two log lines
	barEvery  = 100 * time.Millisecond // between two updates of the bars
)

// startProgress shows progress until end is called.
func (a *app) startProgress() *progress {
	p := &progress{out: a.out, began: time.Now(), done: make(chan struct{})}
	if a.out.quiet {
		return p
	}
	every, show := lineEvery, p.line
	if a.out.terminal {
		p.draw()
		every, show = barEvery, p.update
	}
	p.group.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				show()
			case <-p.done:
				return
			}
		}
	})
	return p
}

// end removes the bars. It may be called more than once.
func (p *progress) end() {
	p.once.Do(func() {
		close(p.done)
		p.group.Wait()
		if p.bars == nil {
			return
		}
		for _, b := range p.all {
			b.Abort(true)
		}
		p.bars.Wait()
		p.restore()
	})
}

// say logs a step of the work, unless bars show it and -v is not set.
func (p *progress) say(message string, args ...any) {
	if p.bars == nil || p.out.verbose > 0 {
		p.out.log.Info(message, args...)
	}
}

// listed counts a document of a listing.
func (p *progress) listed() { p.checked.Add(1) }

// expect counts the pending work of a sync before its uploads begin. Only the bars need it.
func (p *progress) expect(ctx context.Context, store *state.Store, syncID int64) error {
	if p.bars == nil {
		return nil
	}
	outstanding, err := store.Documents.Outstanding(ctx, syncID)
	if err != nil {
		return err
	}
	p.training.Add(int64(outstanding[state.Training]))
	if outstanding[state.Pending] == 0 {
		return nil
	}
	for d, err := range store.Documents.All(ctx, syncID, state.Pending) {
		if err != nil {
			return err
		}
		p.documents.Add(1)
		p.bytes.Add(d.Fingerprint.Size)
	}
	return nil
}

// engine returns the functions that a run calls.
func (p *progress) engine(store *state.Store) engine.Progress {
	return engine.Progress{
		Step:   p.say,
		Listed: p.listed,
		Expect: func(ctx context.Context, syncID int64) error { return p.expect(ctx, store, syncID) },
		Upload: ingest.Progress{
			Sent: func(bytes int64) { p.sent.Add(bytes) },
			Done: func(documents int, bytes int64) {
				p.doneDocuments.Add(int64(documents))
				p.doneBytes.Add(bytes)
				p.training.Add(int64(documents))
			},
		},
		Trained: p.tracked,
	}
}

// tracked counts the documents whose training ended with a status answer.
func (p *progress) tracked(r tracker.Result) {
	p.trained.Add(int64(r.Completed + r.Failed + r.Stuck))
}

// line logs the counts.
func (p *progress) line() {
	p.out.log.Info("working", "listed", p.checked.Load(), "uploaded", p.doneDocuments.Load(), "bytes", p.doneBytes.Load(),
		"trained", p.trained.Load(), "for", time.Since(p.began))
}

// draw makes the bars.
func (p *progress) draw() {
	p.bars = mpb.New(mpb.WithOutput(p.out.bars.w), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barEvery))
	p.restore = p.out.bars.divert(p.bars)
	bar := func(name string, counts func(decor.Statistics) string) *mpb.Bar {
		return p.bars.AddBar(0,
			mpb.PrependDecorators(decor.Name(name, decor.WC{W: 10, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.Any(counts, decor.WCSyncSpaceR)),
		)
	}
	p.all = []*mpb.Bar{
		bar("checking", func(decor.Statistics) string { return fmt.Sprintf("%d documents", p.checked.Load()) }),
		bar("uploading", func(decor.Statistics) string {
			return fmt.Sprintf("%d/%d  %s/%s  %s", p.doneDocuments.Load(), max(p.documents.Load(), p.doneDocuments.Load()),
				bytesOf(p.doneBytes.Load()), bytesOf(p.bytes.Load()), pace(p.sent.Load(), p.doneBytes.Load(), p.bytes.Load(), time.Since(p.began)))
		}),
		bar("training", func(decor.Statistics) string {
			return fmt.Sprintf("%d/%d", min(p.trained.Load(), p.training.Load()), p.training.Load())
		}),
	}
}

// update redraws the bars. Their totals may still grow.
func (p *progress) update() {
	for i, v := range [][2]int64{
		{p.checked.Load(), p.checked.Load() + 1},
		{p.doneBytes.Load(), max(p.bytes.Load(), 1)},
		{p.trained.Load(), max(p.training.Load(), 1)},
	} {
		// The total is one higher, because a full bar would end.
		p.all[i].SetTotal(v[1]+1, false)
		p.all[i].SetCurrent(min(v[0], v[1]))
	}
}

// pace returns the rate of the upload and, if it is known, the remaining time.
func pace(sent, done, total int64, elapsed time.Duration) string {
	if sent == 0 || elapsed < time.Second {
		return ""
	}
	perSecond := float64(sent) / elapsed.Seconds()
	text := bytesOf(int64(perSecond)) + "/s"
	if left := total - done; left > 0 && done > 0 {
		text += "  " + shortDuration(time.Duration(float64(left)/(float64(done)/elapsed.Seconds())*float64(time.Second))) + " left"
	}
	return text
}
