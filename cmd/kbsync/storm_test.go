package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestStorm changes a tree at random while kbsync watches it, and kills and restarts the watch now and then. In the end
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
	var log bytes.Buffer
	start := func() *exec.Cmd {
		cmd := f.command("watch", f.root, "--knowledge-base", "876", "--include", "**/*.md", "--settle", treeSettle.String(), "--rate", "off",
			"--batch-wait", "50ms", "--poll-min", "20ms", "--poll-max", "200ms", "--max-delete", "off", "--min-reupload-interval", "200ms",
			"--log-level", "debug")
		cmd.Stderr = &log
		f.must(cmd.Start())
		return cmd
	}
	cmd := start()
	defer func() {
		if t.Failed() {
			_ = cmd.Process.Kill() // it writes to the log
			_ = cmd.Wait()
			t.Logf("log of the watch:\n%s", lastLines(log.String(), 60))
		}
	}()
	killAt := map[int]bool{}
	for range kills {
		killAt[operations/4+f.random.IntN(operations/2)] = true
	}
	for i := range operations {
		f.change()
		if f.random.IntN(8) == 0 {
			time.Sleep(time.Duration(f.random.IntN(40)) * time.Millisecond)
		}
		if killAt[i] {
			f.must(cmd.Process.Kill())
			_ = cmd.Wait() // reports the kill
			cmd = start()
		}
	}
	f.waitUntilSynced(time.Minute, nil)
	f.must(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	most := 1
	if kills > 0 {
		most = 2 // a kill loses the answers to the batches that are sealed
	}
	f.checkUploads(most)
}
