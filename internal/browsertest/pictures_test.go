package browsertest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// TestPictures writes pictures of the overview to the directory of KBSYNC_SHOTS, for a person to look at: of no document, of 50 and 5,000
// documents in step, of failures, of a halted guard and of an API that is away. Without the variable it does nothing.
func TestPictures(t *testing.T) {
	if os.Getenv("KBSYNC_SHOTS") == "" {
		return
	}
	halted := newSite(t, nil)
	halted.halted = true
	y := halted.sync("handbook")
	halted.put(y, handbook(50))
	halted.complete(y, 500)
	halted.must(halted.store.Syncs.SetLastError(t.Context(), y.ID, "the scan would remove 41 of 50 documents, more than max_delete allows (50%). If that is intended, "+
		"run kbsync sync --max-delete 41. If not, check the folder /srv/handbook."))
	website := halted.sync("website with a long name, in two parts")
	halted.put(website, handbook(5))

	away := newSite(t, nil)
	y = away.sync("handbook")
	away.put(y, handbook(50))
	away.complete(y, 30)
	batch, _ := away.seal(y, 5)
	_, err := away.store.Journal.MarkUncertain(t.Context(), batch, 0, "connection reset by peer")
	away.must(err)
	away.must(away.store.Journal.Pause(t.Context(), y.Destination.ID, time.Now().Add(10*time.Minute)))
	away.must(away.store.Syncs.SetLastError(t.Context(), y.ID, "upload sources: cannot reach api.reply.cx; check the network and the address of the API: dial tcp 203.0.113.7:443: connect: connection refused"))

	many := newSite(t, nil)
	y = many.sync("handbook")
	many.put(y, handbook(5000))
	for range 10 {
		many.complete(y, 500)
	}
	many.must(many.store.Syncs.AddSample(t.Context(), y.ID, state.Sample{At: time.Now().Add(-3 * time.Hour), Completed: 5000}))
	empty := newSite(t, nil)
	empty.sync("handbook")
	inStep := newSite(t, nil)
	y = inStep.sync("handbook")
	inStep.put(y, handbook(50))
	inStep.complete(y, 500)
	inStep.must(inStep.store.Syncs.AddSample(t.Context(), y.ID, state.Sample{At: time.Now().Add(-3 * time.Hour), Completed: 50}))
	troubled := newSite(t, nil)
	troubled.troubled("handbook", 50)
	for name, s := range map[string]*site{"0": empty, "50": inStep, "troubled": troubled, "halted": halted, "away": away, "5000": many} {
		for _, l := range []look{desk, deskDark, phone, phoneDark} {
			b := s.open(l)
			b.visit("/")
			b.shot(name + " " + l.name)
			if name == "troubled" {
				b.visit("/history")
				time.Sleep(time.Second) // the plots
				b.shot("history " + l.name)
			}
			if name == "5000" {
				b.visit("/documents?sync=handbook&q=grinder")
				b.shot(strings.Join([]string{name, "documents", l.name}, " "))
			}
			b.check(name)
		}
	}
}
