package statuspage

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Loop is one of the process's loops, as far as its health goes.
type Loop struct {
	page  *Page
	name  string
	limit time.Duration
	last  time.Time
}

// Loop adds a loop to what /healthz looks at. The process counts as healthy while each loop ticks at least once a limit,
// counted from now, until its End. A loop that may be busy for longer than its limit ticks from within its work.
func (p *Page) Loop(name string, limit time.Duration) *Loop {
	l := &Loop{page: p, name: name, limit: limit, last: time.Now()}
	p.ticking.Lock()
	defer p.ticking.Unlock()
	p.loops[l] = struct{}{}
	return l
}

// Tick says that the loop goes on. It is cheap.
func (l *Loop) Tick() {
	l.page.ticking.Lock()
	defer l.page.ticking.Unlock()
	l.last = time.Now()
}

// End says that the loop ended as it should. More calls do nothing.
func (l *Loop) End() {
	l.page.ticking.Lock()
	defer l.page.ticking.Unlock()
	delete(l.page.loops, l)
}

// A loopView is a loop as the page shows it.
type loopView struct {
	Name     string    `json:"name"`
	TickedAt time.Time `json:"ticked_at"`
	Limit    float64   `json:"limit_seconds"`
	Healthy  bool      `json:"healthy"`
}

func (p *Page) loopViews(now time.Time) []loopView {
	p.ticking.Lock()
	defer p.ticking.Unlock()
	views := []loopView{}
	for l := range p.loops {
		views = append(views, loopView{l.name, l.last, l.limit.Seconds(), now.Sub(l.last) <= l.limit})
	}
	slices.SortFunc(views, func(a, b loopView) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.TickedAt.Compare(b.TickedAt)) })
	return views
}

func (p *Page) serveHealth(w http.ResponseWriter, _ *http.Request) {
	var reasons []string
	now := time.Now()
	for _, l := range p.loopViews(now) {
		if !l.Healthy {
			reasons = append(reasons, fmt.Sprintf("loop %s has not ticked for %s, and has to every %s", visible(l.Name), rough(now.Sub(l.TickedAt)), rough(seconds(l.Limit))))
		}
	}
	verdict(w, reasons)
}

// serveReady never depends on the API: a sidecar that loses it must stay where it is, with what it has found.
func (p *Page) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	known, err := p.opts.State.Syncs.All(ctx)
	if err != nil {
		p.log.Warn("the state cannot be read", "error", err)
		verdict(w, []string{"the state cannot be read"})
		return
	}
	scanned := map[string]time.Time{}
	for _, s := range known {
		scanned[s.Name] = s.ScannedAt
	}
	var reasons []string
	now := time.Now()
	for _, s := range p.syncs(known) {
		at := scanned[s.Name]
		switch lag := now.Sub(at); {
		case s.Halted:
			reasons = append(reasons, fmt.Sprintf("sync %s is halted until a person acts; kbsync status tells why", visible(s.Name)))
		case at.IsZero():
			reasons = append(reasons, fmt.Sprintf("sync %s was not scanned to the end yet", visible(s.Name)))
		case s.MaxLag > 0 && lag > s.MaxLag:
			reasons = append(reasons, fmt.Sprintf("the last complete scan of sync %s is %s old, and may be %s", visible(s.Name), rough(lag), rough(s.MaxLag)))
		}
	}
	verdict(w, reasons)
}

// verdict answers with 200, or with 503 and the reasons.
func verdict(w http.ResponseWriter, reasons []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(reasons) == 0 {
		_, _ = io.WriteString(w, "ok\n") // who asked is gone, then
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, strings.Join(reasons, "\n")+"\n")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
