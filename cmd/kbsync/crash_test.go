package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// killing is a sync of a tree into an emulator in this process, by processes that can be killed.
type killing struct {
	testing.TB
	root, dir string
	emulator  *emulator.Emulator
	url       string
}

func newKilling(tb testing.TB, root string) *killing {
	e, err := emulator.New(emulator.Options{Train: time.Millisecond})
	if err != nil {
		tb.Fatal(err)
	}
	url, err := e.Start("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &killing{TB: tb, root: root, dir: tb.TempDir(), emulator: e, url: url}
}

func (k *killing) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		k.Fatal(err)
	}
	// testscript.Main makes the test's binary the program that it is called as.
	cmd := exec.Command(self, append(args, "--state", filepath.Join(k.dir, "kbsync.db"))...)
	cmd.Args[0] = "kbsync"
	cmd.Env = append(plainEnviron(), "HOME="+k.dir, "REPLYCX_TOKEN="+k.emulator.Token(51), "KBSYNC_API_URL="+k.url)
	return cmd
}

// plainEnviron is the environment without settings, and without those of the tests, which are none.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KBSYNC_") })
}

func (k *killing) sync() *exec.Cmd {
	return k.command("sync", k.root, "--knowledge-base", "876", "--include", "**", "--settle", "0s", "--rate", "off", "--poll-min", "20ms", "--poll-max", "200ms", "--json")
}

// TestKilledAtAnyMoment (C1, C2): a sync that is killed again and again ends all the same; no document is lost, and there is no
// duplicate but in batches that were sealed and have no answer, and these are listed. KILL_TREE names another tree
// than the test's own, KILLS another number of kills.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	root, kills := os.Getenv("KILL_TREE"), 15
	if root == "" {
		root = corpus(t, 1500, 2000)
		// Twins, and one that is hashed while it is sent.
		for i := range 20 {
			if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("twin-%d.md", i)), []byte("twin"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "large.md"), bytes.Repeat([]byte("large "), 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	k := newKilling(t, root)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for range kills {
		cmd := k.sync()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Most of the work is done in the first seconds of a process, whatever the tree.
		time.Sleep(50*time.Millisecond + time.Duration(chance.Int64N(int64(700*time.Millisecond))))
		if cmd.Process.Kill() == nil {
			killed++
		}
		_ = cmd.Wait() // it says that it was killed
	}
	start := time.Now()
	var out, log bytes.Buffer
	cmd := k.sync()
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	t.Logf("%d kills, then one run of %v", killed, time.Since(start).Round(time.Millisecond))
	// A foreign tree has files that no training can read.
	if code := cmd.ProcessState.ExitCode(); code != exitDone && (code != exitFailed || os.Getenv("KILL_TREE") == "") {
		t.Fatalf("the run after the kills: %v\n%s%s", err, out.String(), log.String())
	}
	k.verify()
}

// verify compares what was accepted with what is on the root, by content.
func (k *killing) verify() {
	k.Helper()
	accepted := map[[sha256.Size]byte]int{}
	for _, a := range k.emulator.Accepted() {
		accepted[a.SHA256]++
	}
	store, err := state.Open(k.Context(), state.Options{Path: filepath.Join(k.dir, "kbsync.db")})
	if err != nil {
		k.Fatal(err)
	}
	defer store.Close()
	syncs, err := store.Syncs.All(k.Context())
	if err != nil || len(syncs) != 1 {
		k.Fatalf("syncs %v, %v", syncs, err)
	}
	possible := map[[sha256.Size]byte]bool{}
	for p, err := range store.Inventory.PossibleDuplicates(k.Context(), 0) {
		if err != nil {
			k.Fatal(err)
		}
		possible[p.SHA256] = true
	}
	sources := 0
	for _, err := range store.Inventory.Sources(k.Context(), state.SourceFilter{}) {
		if err != nil {
			k.Fatal(err)
		}
		sources++
	}
	documents, doubled := 0, 0
	for d, err := range store.Documents.All(k.Context(), syncs[0].ID) {
		if err != nil {
			k.Fatal(err)
		}
		if d.State == state.Skipped {
			continue
		}
		documents++
		data, err := os.ReadFile(filepath.Join(k.root, filepath.FromSlash(d.Key)))
		if err != nil {
			k.Error(err)
			continue
		}
		sum := sha256.Sum256(data)
		if d.State != state.Completed && (d.State != state.Failed || os.Getenv("KILL_TREE") == "") {
			k.Errorf("%s is %v", d.Key, d.State)
		}
		if accepted[sum] == 0 {
			k.Errorf("%s was never accepted as it is", d.Key)
		}
	}
	for sum, n := range accepted {
		if n == 1 {
			continue
		}
		doubled++
		if n > 2 || !possible[sum] {
			k.Errorf("content %x was accepted %d times; listed as a possible duplicate: %v", sum[:6], n, possible[sum])
		}
	}
	if documents == 0 {
		k.Error("there are no documents")
	}
	k.Logf("%d documents, %d contents accepted, %d of them twice, %d listed as possible duplicates, %d sources in the inventory", documents, len(accepted), doubled, len(possible), sources)
}
