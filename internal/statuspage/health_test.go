package statuspage

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealth(t *testing.T) {
	p := newRig(t).page(Options{})
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
		check(`loop "scan\nhandbook" has not ticked for 61 s, and has to every 60 s`)
		scan.Tick()
		check("ok")
		time.Sleep(2 * time.Hour)
		check("loop \"scan\\nhandbook\" has not ticked for 2 h, and has to every 60 s\nloop track has not ticked for 2 h, and has to every 60 min")
		scan.End()
		scan.End()
		scan.Tick()
		track.Tick()
		check("ok")
		// One of the same name is another one.
		p.Loop("track", time.Minute)
		track.End()
		time.Sleep(time.Hour)
		check("loop track has not ticked for 60 min, and has to every 60 s")
	})
}

func TestReady(t *testing.T) {
	r := newRig(t)
	var syncs []Sync
	p := r.page(Options{Syncs: func() []Sync { return syncs }})
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
	check("sync handbook was not scanned to the end yet", "sync website was not scanned to the end yet")
	h, s := r.sync("handbook"), r.sync("website")
	r.put(h, []string{"a.md"})
	check("sync website was not scanned to the end yet")
	r.put(s, nil)
	check()

	// Neither an outage nor what failed keeps it from being ready.
	r.must(r.s.Syncs.SetLastError(t.Context(), h.ID, "ReplyCX has not answered for 5 minutes"))
	batch, _ := r.seal(h, 1)
	_, err := r.s.Journal.MarkUncertain(t.Context(), batch, 0, "connection reset")
	r.must(err)
	r.must(r.s.Journal.Pause(t.Context(), h.Destination.ID, time.Now().Add(time.Hour)))
	check()

	syncs[0].Halted = true
	check("sync handbook is halted until a person acts; kbsync status tells why")
	syncs[0].Halted = false
	syncs[1].MaxLag = time.Nanosecond
	check("the last complete scan of sync website is a moment old, and may be a moment")
	// A sync that the process does not work on counts for nothing.
	syncs = syncs[:1]
	check()
	syncs = nil

	all := r.page(Options{})
	r.sync("new")
	if w := do(all, local("GET", "/readyz", "")); w.Code != http.StatusServiceUnavailable || w.Body.String() != "sync new was not scanned to the end yet\n" {
		t.Errorf("all of the state: %d %s", w.Code, w.Body)
	}
	r.close()
	check("the state cannot be read")
}
