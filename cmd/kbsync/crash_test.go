package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// databases are the kinds of state that the tests with kills use. STATE names one of them.
func databases() []string {
	if only := os.Getenv("STATE"); only != "" {
		return []string{only}
	}
	return []string{"sqlite", "postgres"}
}

// TestKilledAtAnyMoment kills a sync again and again and then lets it end. No document may be lost. A content may be
// uploaded twice only if its batch was sealed and got no answer, and then kbsync must list it. KILL_TREE names another
// tree, KILLS sets the number of kills.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, database := range databases() {
		t.Run(database, func(t *testing.T) { killAtAnyMoment(t, database) })
	}
}

func killAtAnyMoment(t *testing.T, database string) {
	t.Parallel()
	root := os.Getenv("KILL_TREE")
	foreign := root != "" // such a tree has files whose training fails
	if !foreign {
		root = corpus(t, 1500, 2000)
		// Twins, and a file so large that kbsync hashes it while it sends it.
		for i := range 20 {
			if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("twin-%d.md", i)), []byte("twin"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "large.md"), bytes.Repeat([]byte("large "), 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixtureOn(t, database, root)
	sync := func() *exec.Cmd {
		return f.command("sync", f.root, "--knowledge-base", "876", "--include", "**", "--settle", "0s", "--rate", "off",
			"--poll-min", "20ms", "--poll-max", "200ms", "--lock-timeout", "10s", "--json")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for range envInt(t, "KILLS", 15) {
		cmd := sync()
		f.must(cmd.Start())
		// A process does most of its work in its first seconds, whatever the size of the tree.
		time.Sleep(50*time.Millisecond + time.Duration(random.Int64N(int64(700*time.Millisecond))))
		if cmd.Process.Kill() == nil {
			killed++
		}
		_ = cmd.Wait() // reports the kill
	}
	start := time.Now()
	var out, log bytes.Buffer
	cmd := sync()
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	t.Logf("%d kills, then one run of %v", killed, time.Since(start).Round(time.Millisecond))
	if code := cmd.ProcessState.ExitCode(); code != exitDone && (code != exitFailed || !foreign) {
		t.Fatalf("the run after the kills: %v\n%s%s", err, out.String(), log.String())
	}
	checkTreeUploaded(f, foreign)
}

// checkTreeUploaded checks that the state holds every document as completed and that the emulator accepted its content.
// Documents of a foreign tree may have failed.
func checkTreeUploaded(f *fixture, foreign bool) {
	f.Helper()
	store := f.openState()
	syncs, err := store.Syncs.All(f.Context())
	if err != nil || len(syncs) != 1 {
		f.Fatalf("syncs %v, %v", syncs, err)
	}
	accepted, possible := f.accepted(), f.possibleDuplicates(store)
	documents := 0
	for d, err := range store.Documents.All(f.Context(), syncs[0].ID) {
		f.must(err)
		if d.State == state.Skipped {
			continue
		}
		documents++
		data, err := os.ReadFile(filepath.Join(f.root, filepath.FromSlash(d.Key)))
		if err != nil {
			f.Error(err)
			continue
		}
		if d.State != state.Completed && (d.State != state.Failed || !foreign) {
			f.Errorf("%s is %v", d.Key, d.State)
		}
		if accepted[sha256.Sum256(data)] == 0 {
			f.Errorf("the content of %s was never accepted", d.Key)
		}
	}
	if documents == 0 {
		f.Error("the state holds no documents")
	}
	sources := 0
	for _, err := range store.Inventory.Sources(f.Context(), state.SourceFilter{}) {
		f.must(err)
		sources++
	}
	duplicated := f.checkDuplicates(accepted, possible, 2)
	f.Logf("%d documents, %d contents accepted, %d of them more than once, %d listed as possible duplicates, %d sources in the inventory",
		documents, len(accepted), duplicated, len(possible), sources)
}
