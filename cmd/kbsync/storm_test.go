package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// disturbEvery is how many operations come between two disturbances, on average.
const disturbEvery = 50

// TestStorm changes a tree at random while kbsync watches it, and disturbs the watch: reloads, a log that no program reads, too few
// files, kills. In the end
// every document on the root must be in the knowledge base, no document may have been sent half-written, and only contents
// that kbsync lists as possible duplicates after a kill may have been sent twice. STORM_OPS, STORM_SEEDS and STORM_KILLS
// make the test longer; STORM_SEED sets the first seed.
func TestStorm(t *testing.T) {
	t.Parallel()
	if os.PathSeparator != '/' {
		t.Skip("this system cannot move directories that are watched")
	}
	first, seeds := envInt(t, "STORM_SEED", 1), envInt(t, "STORM_SEEDS", 2)
	for _, database := range databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			for seed := first; seed < first+seeds; seed++ {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					storm(t, database, uint64(seed), envInt(t, "STORM_OPS", 250), envInt(t, "STORM_KILLS", 1-seed%2))
				})
			}
		})
	}
}

func storm(t *testing.T, database string, seed uint64, operations, kills int) {
	f := newTreeFixture(t, database, seed)
	w := newStormWatch(f, seed)
	w.start()
	defer w.show(t)
	killAt := map[int]bool{}
	for range kills {
		killAt[operations/4+f.random.IntN(operations/2)] = true
	}
	for i := range operations {
		f.change()
		if f.random.IntN(8) == 0 {
			time.Sleep(time.Duration(f.random.IntN(40)) * time.Millisecond)
		}
		if w.random.IntN(disturbEvery) == 0 {
			w.disturb()
		}
		if killAt[i] {
			w.restart()
		}
	}
	w.endShortage()
	f.waitUntilSynced(time.Minute, nil)
	w.end()
	most := 1
	if kills > 0 {
		most = 2 // a kill loses the answers to the batches that are sealed
	}
	f.checkUploads(most)
}
