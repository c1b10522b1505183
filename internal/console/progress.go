package console

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A Progress shows the progress of a run: bars on a terminal, log lines elsewhere, nothing on a quiet console. It counts all
// syncs of the run together. Its methods can be called by several goroutines at the same time.
type Progress struct {
	out   *Console
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

// StartProgress shows progress until End is called.
func (c *Console) StartProgress() *Progress {
	p := &Progress{out: c, began: time.Now(), done: make(chan struct{})}
	if c.Quiet {
		return p
	}
	every, show := lineEvery, p.line
	if c.terminal {
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

// End removes the bars. It may be called more than once.
func (p *Progress) End() {
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

// Step logs a step of the work, unless bars show it and -v is not set.
func (p *Progress) Step(message string, args ...any) {
	if p.bars == nil || p.out.Verbose > 0 {
		p.out.Log.Info(message, args...)
	}
}

// ShowsBars reports whether the progress is shown as bars. Only the bars need ExpectUpload and ExpectTraining.
func (p *Progress) ShowsBars() bool { return p.bars != nil }

// Listed counts a document of a listing.
func (p *Progress) Listed() { p.checked.Add(1) }

// ExpectUpload adds a document of the given size to the pending uploads.
func (p *Progress) ExpectUpload(size int64) {
	p.documents.Add(1)
	p.bytes.Add(size)
}

// ExpectTraining adds documents that are in training already.
func (p *Progress) ExpectTraining(documents int) { p.training.Add(int64(documents)) }

// Sent counts the bytes of requests, including those of requests that fail.
func (p *Progress) Sent(bytes int64) { p.sent.Add(bytes) }

// Uploaded counts uploaded documents, which are in training now.
func (p *Progress) Uploaded(documents int, bytes int64) {
	p.doneDocuments.Add(int64(documents))
	p.doneBytes.Add(bytes)
	p.training.Add(int64(documents))
}

// Trained counts documents whose training ended.
func (p *Progress) Trained(documents int) { p.trained.Add(int64(documents)) }

// line logs the counts.
func (p *Progress) line() {
	p.out.Log.Info("working", "listed", p.checked.Load(), "uploaded", p.doneDocuments.Load(), "bytes", p.doneBytes.Load(),
		"trained", p.trained.Load(), "for", time.Since(p.began))
}

// draw makes the bars.
func (p *Progress) draw() {
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
				Bytes(p.doneBytes.Load()), Bytes(p.bytes.Load()), pace(p.sent.Load(), p.doneBytes.Load(), p.bytes.Load(), time.Since(p.began)))
		}),
		bar("training", func(decor.Statistics) string {
			return fmt.Sprintf("%d/%d", min(p.trained.Load(), p.training.Load()), p.training.Load())
		}),
	}
}

// update redraws the bars. Their totals may still grow.
func (p *Progress) update() {
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
	text := Bytes(int64(perSecond)) + "/s"
	if left := total - done; left > 0 && done > 0 {
		text += "  " + Duration(time.Duration(float64(left)/(float64(done)/elapsed.Seconds())*float64(time.Second))) + " left"
	}
	return text
}
