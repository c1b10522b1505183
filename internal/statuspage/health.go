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

// A Loop is a loop of the process whose liveness /healthz reports.
type Loop struct {
	page  *Page
	name  string
	limit time.Duration
	last  time.Time
}

// Loop adds a loop to /healthz. The process is healthy while the time since the last Tick of each loop, or since the call of
// Loop, is at most its limit. A loop whose work may take longer than the limit must call Tick during the work.
func (p *Page) Loop(name string, limit time.Duration) *Loop {
	l := &Loop{page: p, name: name, limit: limit, last: time.Now()}
	p.ticking.Lock()
	defer p.ticking.Unlock()
	p.loops[l] = struct{}{}
	return l
}

// Tick records that the loop is alive. It is cheap.
func (l *Loop) Tick() {
	l.page.ticking.Lock()
	defer l.page.ticking.Unlock()
	l.last = time.Now()
}

// End removes the loop, which ended as it should. Further calls do nothing.
func (l *Loop) End() {
	l.page.ticking.Lock()
	defer l.page.ticking.Unlock()
	delete(l.page.loops, l)
}

// A loopView is a loop in /status.json and on the page.
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
			reasons = append(reasons, fmt.Sprintf("loop %s has not responded for %s; the limit is %s", visible(l.Name), rough(now.Sub(l.TickedAt)), rough(seconds(l.Limit))))
		}
	}
	respondHealth(w, reasons)
}

// serveReady does not depend on the API: restarting or moving a sidecar does not repair an outage of ReplyCX.
func (p *Page) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	known, err := p.opts.State.Syncs.All(ctx)
	if err != nil {
		p.log.Warn("cannot read the state", "error", err)
		respondHealth(w, []string{"cannot read the state"})
		return
	}
	scanned := map[string]time.Time{}
	for _, s := range known {
		scanned[s.Name] = s.ScannedAt
	}
	var reasons []string
	now := time.Now()
	if p.opts.ReadOnly {
		known = nil // a process that only reads is ready if it can read
	}
	for _, s := range p.syncs(known) {
		at := scanned[s.Name]
		switch lag := now.Sub(at); {
		case s.Halted:
			reasons = append(reasons, fmt.Sprintf("sync %s is halted and needs a person; kbsync status shows the reason", visible(s.Name)))
		case at.IsZero():
			reasons = append(reasons, fmt.Sprintf("sync %s has no complete scan yet", visible(s.Name)))
		case s.MaxLag > 0 && lag > s.MaxLag:
			reasons = append(reasons, fmt.Sprintf("the last complete scan of sync %s is %s old; the limit is %s", visible(s.Name), rough(lag), rough(s.MaxLag)))
		}
	}
	respondHealth(w, reasons)
}

// respondHealth responds with 200, or with 503 and the reasons.
func respondHealth(w http.ResponseWriter, reasons []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(reasons) == 0 {
		_, _ = io.WriteString(w, "ok\n") // an error means that the client is gone
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, strings.Join(reasons, "\n")+"\n")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
