package statuspage

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthReportsLoopsThatDoNotTick(t *testing.T) {
	p := newFixture(t).page(Options{})
	synctest.Test(t, func(t *testing.T) {
		check := func(want string) {
			t.Helper()
			w := do(p, local("GET", "/healthz", ""))
			if got := strings.TrimSpace(w.Body.String()); got != want || (w.Code == 200) != (want == "ok") {
				t.Errorf("%d %q, want %q", w.Code, got, want)
			}
		}
		check("ok")
		scan := p.Loop("scan\nhandbook", time.Minute)
		track := p.Loop("track", time.Hour)
		check("ok")
		time.Sleep(time.Minute)
		check("ok")
		time.Sleep(time.Second)
		check(`loop "scan\nhandbook" has not responded for 61 s; the limit is 60 s`)
		scan.Tick()
		check("ok")
		time.Sleep(2 * time.Hour)
		check("loop \"scan\\nhandbook\" has not responded for 2 h; the limit is 60 s\nloop track has not responded for 2 h; the limit is 60 min")
		scan.End()
		scan.End()
		scan.Tick()
		track.Tick()
		check("ok")
		// Loops with the same name are independent.
		p.Loop("track", time.Minute)
		track.End()
		time.Sleep(time.Hour)
		check("loop track has not responded for 60 min; the limit is 60 s")
	})
}

func TestReadyReportsHaltedAndUnscannedSyncs(t *testing.T) {
	f := newFixture(t)
	var syncs []Sync
	p := f.page(Options{Syncs: func() []Sync { return syncs }})
	check := func(want ...string) {
		t.Helper()
		w := do(p, local("GET", "/readyz", ""))
		if want == nil {
			want = []string{"ok"}
		}
		if got := strings.TrimSpace(w.Body.String()); got != strings.Join(want, "\n") || (w.Code == 200) != (got == "ok") {
			t.Errorf("%d %q, want %q", w.Code, got, want)
		}
	}
	check()
	syncs = []Sync{{Name: "handbook"}, {Name: "website", MaxLag: time.Hour}}
	check("sync handbook has no complete scan yet", "sync website has no complete scan yet")
	h, s := f.sync("handbook"), f.sync("website")
	f.put(h, []string{"a.md"})
	check("sync website has no complete scan yet")
	f.put(s, nil)
	check()

	// An outage and failed documents do not affect readiness.
	f.must(f.store.Syncs.SetLastError(t.Context(), h.ID, "ReplyCX has not answered for 5 minutes"))
	batch, _ := f.seal(h, 1)
	_, err := f.store.Journal.MarkUncertain(t.Context(), batch, 0, "connection reset")
	f.must(err)
	f.must(f.store.Journal.Pause(t.Context(), h.Destination.ID, time.Now().Add(time.Hour)))
	check()

	syncs[0].Halted = true
	check("sync handbook is halted and needs a person; kbsync status shows the reason")
	syncs[0].Halted = false
	syncs[1].MaxLag = time.Nanosecond
	check("the last complete scan of sync website is a moment old; the limit is a moment")
	// A sync that the process does not run does not affect readiness.
	syncs = syncs[:1]
	check()
	syncs = nil

	all := f.page(Options{})
	f.sync("new")
	if w := do(all, local("GET", "/readyz", "")); w.Code != http.StatusServiceUnavailable || w.Body.String() != "sync new has no complete scan yet\n" {
		t.Errorf("all syncs of the state: %d %s", w.Code, w.Body)
	}
	f.close()
	check("cannot read the state")
}
