package statuspage

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

func TestPageShowsSyncs(t *testing.T) {
	f := newFixture(t)
	p := f.page(Options{Version: "v1.2.3"})
	if body := get(t, p, "/"); !strings.Contains(body, "no syncs yet") {
		t.Errorf("an empty state shows %s", body)
	}
	s := f.sync("hand book")
	f.put(s, []string{"a.md", "b.md", "c.md"})
	ids := f.accept(s, 10)
	f.trained(s, state.TrainingCompleted, "", ids[:2]...)
	f.trained(s, state.TrainingFailed, "no text in it", ids[2])
	f.put(s, []string{"a.md"}, "b.md") // one superseded, one orphaned
	f.accept(s, 10)
	p.expireReading()
	body := get(t, p, "/")
	for _, want := range []string{
		"1 sync needs attention", "knowledge base 876", "account 51", "https://api.reply.cx", "/srv/hand book", "v1.2.3",
		"1 training", "1 failed", "no text in it",
		"kbsync sources &#39;hand book&#39; --left-behind", "1 superseded by an edit, 1 orphaned", "kbsync retry &#39;hand book&#39;",
		"accepted", "5.9 KiB",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(body, `class="button"`) {
		t.Error("a button without a trigger")
	}
	trigger := Options{State: f.store, ReadLocally: true, Sync: func(context.Context, string) error { return nil },
		Syncs: func() []Sync { return []Sync{{Name: "hand book"}} }}
	if !strings.Contains(get(t, f.page(trigger), "/"), `class="button"`) {
		t.Error("no button")
	}
	bare, err := New(trigger)
	f.must(err)
	if strings.Contains(get(t, bare, "/"), `class="button"`) {
		t.Error("a button without a token")
	}

	f.close()
	p.expireReading()
	for _, target := range []string{"/", "/status.json"} {
		if w := do(p, local("GET", target, "")); w.Code != http.StatusServiceUnavailable {
			t.Errorf("GET %s without a state: %d", target, w.Code)
		}
	}
}

// A trigger or the age of the reading makes the page look at the state again. It reads the state only if that was written to.
func TestReadingIsReused(t *testing.T) {
	f := newFixture(t)
	f.sync("handbook")
	syncs := []Sync{{Name: "handbook"}}
	p := f.page(Options{Sync: func(context.Context, string) error { return nil }, Syncs: func() []Sync { return syncs }})
	look := func(why string, want int) *reading {
		t.Helper()
		got, err := p.read(t.Context())
		f.must(err)
		if len(got.known) != want {
			t.Errorf("%s: %d syncs, want %d", why, len(got.known), want)
		}
		return got
	}
	first := look("at first", 1)
	f.sync("website")
	if look("at once", 1) != first {
		t.Error("read again at once")
	}
	p.expires = time.Now()
	second := look("later", 2)
	p.expires = time.Now()
	if third := look("later still", 2); &third.syncs[0] != &second.syncs[0] || !third.at.After(second.at) {
		t.Error("read again although nothing was written")
	}
	f.sync("price list")
	do(p, local("POST", "/-/sync?wrong=1", ""))
	look("a refused trigger", 2)
	do(p, local("POST", "/-/sync", ""))
	look("a trigger", 3)

	// Every request asks for the syncs of the process.
	for _, want := range []bool{true, false} {
		o, err := p.overview(t.Context())
		f.must(err)
		if o.Syncs[0].Name != "handbook" || o.Syncs[0].Configured != want || o.Syncs[1].Configured {
			t.Errorf("configured: %+v", o.Syncs)
		}
		syncs = nil
	}
}

func TestHealthOfASync(t *testing.T) {
	now := time.Now()
	fine := syncView{Configured: true, ScannedAt: &now, Documents: map[state.DocumentState]int{state.Completed: 5, state.Skipped: 1, state.Removed: 1}}
	for _, c := range []struct {
		change func(*syncView)
		want   health
		text   string
		all    string
	}{
		{func(*syncView) {}, good, "in sync", "all in sync"},
		{func(v *syncView) { v.Documents[state.Training] = 1 }, working, "syncing", "syncing"},
		{func(v *syncView) { v.ScannedAt = nil }, working, "first scan", "syncing"},
		{func(v *syncView) { v.Documents[state.Pending], v.Documents[state.Stuck] = 1, 1 }, warning, "needs attention", "1 sync needs attention"},
		{func(v *syncView) { v.BreakerOpen = true }, warning, "uploads held", "1 sync needs attention"},
		{func(v *syncView) { v.LastError = "no root" }, warning, "stopped", "1 sync needs attention"},
		{func(v *syncView) { v.Halted = true }, halted, "halted", "1 sync needs attention"},
		{func(v *syncView) { v.Configured = false; v.Halted = true }, idle, "not in the config", "all in sync"},
	} {
		v := fine
		v.Documents = map[state.DocumentState]int{}
		for st, n := range fine.Documents {
			v.Documents[st] = n
		}
		c.change(&v)
		o := overview{Syncs: []syncView{fine, v}}
		h, text := v.health()
		if _, all := o.health(); h != c.want || text != c.text || all != c.all {
			t.Errorf("%s %q, all %q; want %s %q, %q", h, text, all, c.want, c.text, c.all)
		}
	}
}

func TestLastSuccessIsTheScanOrTheFirstUnfinishedChange(t *testing.T) {
	scan, never := time.Unix(1000, 0), time.Time{}
	for _, c := range []struct{ scanned, unfinished, want time.Time }{
		{never, never, never},
		{never, scan, never},
		{scan, never, scan},
		{scan, scan.Add(-time.Hour), scan.Add(-time.Hour)},
		{scan, scan.Add(time.Hour), scan}, // an event reported it after the scan
	} {
		if got := lastSuccess(c.scanned, c.unfinished); !got.Equal(c.want) {
			t.Errorf("scanned %v, unfinished since %v: %v, want %v", c.scanned, c.unfinished, got, c.want)
		}
	}
}

func TestFormatting(t *testing.T) {
	for in, want := range map[string]string{
		"handbook": "handbook", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(x)": "'$(x)'", "-x": "-x", "ü": "'ü'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4.0 EiB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(in); got != want {
			t.Errorf("grouped(%d) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{0: "a moment", 90 * time.Second: "90 s", 100 * time.Minute: "100 min", 47 * time.Hour: "47 h", 480 * time.Hour: "20 days"} {
		if got := rough(in); got != want {
			t.Errorf("rough(%v) = %s, want %s", in, got, want)
		}
	}
}
