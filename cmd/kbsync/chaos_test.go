package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/state"
)

// TestChaos changes a tree and the rules of its sync at random, while the API, the network, the database and the disk fail and the
// processes are killed and started again. After each round every fault ends, and what the emulator accepted is compared with the tree.
//
// The root of every second round is a bucket. On PostgreSQL several processes upload from it.
//
// By default the test makes one short round on each database with one and with four transfers, without the kills and faults after which an
// answer is lost: kbsync sends such documents again after a minute. CHAOS sets how long rounds with all faults go on, CHAOS_SEED the first seed,
// CHAOS_ROUND how long a round disturbs, and STATE the database.
func TestChaos(t *testing.T) {
	t.Parallel()
	if os.PathSeparator != '/' {
		t.Skip("this system cannot move directories that are watched")
	}
	duration := envDuration(t, "CHAOS", 0)
	setup := chaosSetup{disturb: envDuration(t, "CHAOS_ROUND", 2*time.Second), gentle: duration == 0}
	if !setup.gentle {
		setup.disturb = envDuration(t, "CHAOS_ROUND", 15*time.Second)
	}
	first, end := envInt(t, "CHAOS_SEED", 1), time.Now().Add(duration)
	total := &chaosFigures{}
	t.Cleanup(func() { t.Log(total) })
	for _, database := range databases() {
		for _, workers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", database, workers), func(t *testing.T) {
				t.Parallel()
				setup := setup
				setup.database, setup.workers = database, workers
				for setup.seed = uint64(first); ; setup.seed++ {
					if !t.Run(fmt.Sprint(setup.seed), func(t *testing.T) { chaosRound(t, setup, total) }) || time.Now().After(end) {
						return
					}
				}
			})
		}
	}
}

// A state that cannot be read for a moment holds back uploads for seconds, and is reported as an error until then only.
func TestUploadsResumeSoonAfterTheQueueCouldNotBeRead(t *testing.T) {
	t.Parallel()
	c := newUnreadable(t)
	defer c.show(t)
	c.startWatch()
	c.waitUntilSynced(30*time.Second, nil)
	c.hide("documents", "read queue")
	c.waitUntilLogged(c.log, "works again")
	c.write(c.root + "/after.md")
	c.waitUntilSynced(20*time.Second, nil)
	c.end()
}

// The same holds for the hooks: one that fails is called again.
func TestHooksResumeSoonAfterTheirMessagesCouldNotBeRead(t *testing.T) {
	t.Parallel()
	c := newUnreadable(t)
	defer c.show(t)
	calls := c.dir + "/calls"
	c.also = fmt.Sprintf("    hooks: {on_success: 'echo called >> %s; exit 1'}\n", calls) + c.also
	called := func(times int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			text, _ := os.ReadFile(calls) // missing before the first call
			if strings.Count(string(text), "called") >= times {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the hook was not called %d times", times)
			}
		}
	}
	c.startWatch()
	called(1)
	c.hide("outbox", "cannot read the messages to the hooks")
	called(2)
	c.end()
}

// newUnreadable returns a chaos on PostgreSQL whose tables can be hidden.
func newUnreadable(t *testing.T) *chaos {
	return newChaos(t, chaosSetup{database: "postgres", workers: 1, seed: 1, gentle: true})
}

// hide hides a table of the state until the watch has logged a text.
func (c *chaos) hide(table, text string) {
	c.Helper()
	database := strings.TrimSuffix(c.direct, withLease("", time.Second))
	pgtest.Exec(c, database, "ALTER TABLE "+table+" RENAME TO hidden")
	c.waitUntilLogged(c.log, text)
	pgtest.Exec(c, database, "ALTER TABLE hidden RENAME TO "+table)
}

// A chaosSetup is what a round depends on, beside time.
type chaosSetup struct {
	database string
	workers  int // transfers of the watch; on PostgreSQL beside so many processes less one
	seed     uint64
	disturb  time.Duration
	gentle   bool // no answer is lost
}

// isBucket reports whether the root of the round is a bucket.
func (s chaosSetup) isBucket() bool { return (int(s.seed)+s.workers/4)%2 == 0 }

// stepsClocks reports whether the wall clocks of the processes step. In the other half of the rounds every wait lasts as long as it should.
func (s chaosSetup) stepsClocks() bool { return !s.gentle && s.seed%4 < 2 }

// chaosFigures are sums over all rounds.
type chaosFigures struct {
	mu                                                             sync.Mutex
	rounds, operations, rules, kills, faults, documents, contents  int
	reloads, shortages, lost, duplicates, listedDuplicates, listed int
}

func (c *chaosFigures) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("chaos: %d rounds, %d operations, %d changes of rules, %d reloads, %d shortages of files, %d kills, %d faults of API, network, "+
		"database and disk; %d documents at the ends of rounds, %d contents accepted, losses %d, duplicates %d, of which %d are listed (%d possible ones are listed in all)",
		c.rounds, c.operations, c.rules, c.reloads, c.shortages, c.kills, c.faults, c.documents, c.contents, c.lost, c.duplicates, c.listedDuplicates, c.listed)
}

// A chaos is a round.
type chaos struct {
	*stormWatch
	setup   chaosSetup
	direct  string // the state, without the proxy
	through string // the state, through the proxy of the database
	api, db *pgtest.Proxy
	disk    string        // a small file system with the state; empty if there is none
	bucket  *bucketServer // the root, with the documents of the tree; nil if the tree itself is the root
	workers []*exec.Cmd
	clock   string // the file with the step of the processes' clocks
	rules   int
	// counts
	operations, ruleChanges, faults, kills int
}

func chaosRound(t *testing.T, setup chaosSetup, total *chaosFigures) {
	c := newChaos(t, setup)
	defer c.show(t)
	defer c.showHistory()
	c.startAll()
	for began := time.Now(); time.Since(began) < setup.disturb; c.operations++ {
		c.change()
		c.publish()
		time.Sleep(time.Duration(c.random.IntN(30)) * time.Millisecond)
		switch c.random.IntN(25) {
		case 0:
			c.changeRules()
		case 1:
			c.note("disturb the watch")
			c.disturb()
		case 2, 3:
			c.fail()
		case 4:
			if !setup.gentle {
				c.killOne()
			}
		}
	}
	c.calm()
	c.reload() // an earlier one may have failed, for example because of too many open files
	retried := false
	// A document that was another one while it was read waits for five minutes, unless a scan finds that it has changed.
	c.waitUntilSynced(155*time.Second, func() {
		retried = true
		c.showDifferences()
		c.note("retry")
		out, err := c.command("retry", "storm", "--config", c.config, "--wait=false").CombinedOutput()
		if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
			c.Fatalf("%v: %s", err, out)
		}
	})
	c.checkStatus()
	c.stopWorkers()
	c.end()
	most := map[bool]int{false: 1, true: 2}[!setup.gentle]
	if retried {
		most++
	}
	c.checkUploads(most)
	c.checkLog()
	c.addTo(total)
}

// checkLog checks that only kbsync writes to its log, and none of the clients that it uses.
func (c *chaos) checkLog() {
	c.Helper()
	_, text, _ := strings.Cut(c.log.text(), "\n") // the first line may be cut, and the last one
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") && !strings.HasPrefix(line, "time=") {
			c.Errorf("foreign line in the log: %q", line)
		}
	}
}

func newChaos(t *testing.T, setup chaosSetup) *chaos {
	f := newTreeFixture(t, setup.database, setup.seed)
	c := &chaos{stormWatch: newStormWatch(f, setup.seed), setup: setup}
	c.api, c.url = pgtest.NewProxy(t, c.url)
	if setup.database == "postgres" {
		c.db, c.through = pgtest.NewProxy(t, c.state)
	} else if dir := smallDisk(t); dir != "" {
		c.disk, c.state = dir, dir+"/kbsync.db"
	}
	c.direct = c.state
	if c.through == "" {
		c.through = c.state
	}
	if setup.isBucket() {
		c.bucket = newBucketServer(t)
		c.address, c.env = c.bucket.root, []string{"AWS_ACCESS_KEY_ID=chaos", "AWS_SECRET_ACCESS_KEY=secret"}
	}
	if setup.stepsClocks() {
		c.prepareClocks()
	}
	c.setRules()
	return c
}

// publish puts the files of the tree into the bucket.
func (c *chaos) publish() {
	c.Helper()
	if c.bucket == nil {
		return
	}
	objects := map[string][]byte{}
	c.must(filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(c.root, path)
		if err == nil {
			objects[key], err = os.ReadFile(path)
		}
		return err
	}))
	c.bucket.replace(objects)
}

// chaosRules are the rules of a sync, one set of them at a time: excludes of the config and the root's ignore file, with the documents
// that they leave out.
var chaosRules = []struct{ exclude, ignore, matches string }{
	{},
	{exclude: "**/f*3.md", matches: "f*3.md"},
	{ignore: "f*7.md\n", matches: "f*7.md"},
	{ignore: "*\n!f*[0-4].md\n!*/\n", matches: "*[5-9p].md"}, // keep.md is left out, too
	{exclude: "**/f*[12].md", ignore: "# nothing\n", matches: "f*[12].md"},
}

// setRules writes the rules that apply from now on.
func (c *chaos) setRules() {
	c.Helper()
	rules := chaosRules[c.rules]
	c.also = ""
	if rules.exclude != "" {
		c.also = fmt.Sprintf("    exclude: [%q]\n", rules.exclude)
	}
	if c.bucket != nil {
		c.also += "    rescan: 1s\n"
	}
	c.also += fmt.Sprintf("transfers: %d\n", c.setup.workers)
	file := c.root + "/.kbsyncignore"
	if rules.ignore == "" {
		if err := os.Remove(file); !errors.Is(err, os.ErrNotExist) {
			c.must(err)
		}
	} else {
		c.must(os.WriteFile(file+".new", []byte(rules.ignore), 0o600))
		c.must(os.Rename(file+".new", file))
	}
	c.publish()
	c.admits = func(key string) bool {
		out, _ := path.Match(rules.matches, path.Base(key))
		return !out
	}
}

func (c *chaos) changeRules() {
	c.Helper()
	c.rules = c.random.IntN(len(chaosRules))
	c.note("rules %d", c.rules)
	c.setRules()
	c.configure("debug", 50)
	c.reload()
	c.ruleChanges++
}

// calm ends all faults. Clocks that were stepped are set so far ahead that every wait which a process recorded is over.
func (c *chaos) calm() {
	c.Helper()
	c.note("calm")
	if c.setup.stepsClocks() {
		c.setClocks(2 * farthestStep)
	}
	c.endFaults()
}

func (c *chaos) endFaults() {
	c.Helper()
	c.endShortage()
	c.api.Restore()
	if c.db != nil {
		c.db.Restore()
	}
	if c.bucket != nil {
		c.bucket.fail(0)
	}
	c.must(c.emulator.SetFaults(nil))
	c.emptyDisk()
}

// checkStatus compares what kbsync status counts with the tree.
func (c *chaos) checkStatus() {
	c.Helper()
	out, err := c.command("status", "--json", "--config", c.config).Output()
	var status struct {
		Syncs []struct {
			Documents map[state.DocumentState]int `json:"documents"`
		} `json:"syncs"`
	}
	if err = errors.Join(err, json.Unmarshal(out, &status)); err != nil || len(status.Syncs) != 1 {
		c.Fatalf("%v: %s", err, out)
	}
	counts := maps.Clone(status.Syncs[0].Documents)
	delete(counts, state.Skipped)
	delete(counts, state.Removed)
	if want := len(c.documents()); counts[state.Completed] != want {
		c.Errorf("status counts %v, want %d completed", counts, want)
	}
	delete(counts, state.Completed)
	for s, n := range counts {
		if n != 0 {
			c.Errorf("status counts %d documents as %s, want none", n, s)
		}
	}
}

// addTo adds the round to the sums.
func (c *chaos) addTo(total *chaosFigures) {
	accepted, possible := c.accepted(), c.possibleDuplicates(c.openState())
	total.mu.Lock()
	defer total.mu.Unlock()
	total.rounds++
	total.operations += c.operations
	total.rules += c.ruleChanges
	total.reloads += c.reloads
	total.shortages += c.shortages
	total.kills += c.kills
	total.faults += c.faults
	total.contents += len(accepted)
	total.listed += len(possible)
	for sum, n := range accepted {
		if n > 1 {
			total.duplicates++
			if possible[sum] {
				total.listedDuplicates++
			}
		}
	}
	for _, sum := range c.documents() {
		total.documents++
		if accepted[sum] == 0 {
			total.lost++
		}
	}
}

// showHistory prints how to repeat a round that failed, and what happened to the documents that are named in the last difference and to
// the processes.
func (c *chaos) showHistory() {
	if !c.Failed() {
		return
	}
	wrong := c.showDifferences()
	var lines []string
	for i, line := range c.history {
		concerns := !strings.Contains(line, "document ") || len(wrong) == 0
		for _, name := range wrong {
			concerns = concerns || strings.Contains(line, name)
		}
		if concerns {
			lines = append(lines, fmt.Sprintf("%d: %s", i, line))
		}
	}
	c.showUploads()
	c.Logf("to repeat: CHAOS=1s CHAOS_ROUND=%v CHAOS_SEED=%d STATE=%s make chaos (gentle: %v, %d workers)\n%s",
		c.setup.disturb, c.setup.seed, c.setup.database, c.setup.gentle, c.setup.workers, lastLines(strings.Join(lines, "\n"), 200))
}

// showDifferences prints what the state knows about some documents that differ from the root, and returns the names of all of them.
func (c *chaos) showDifferences() (names []string) {
	store := c.openState()
	sync, err := store.Syncs.Get(c.Context(), "storm")
	c.must(err)
	for _, line := range c.differences(store, c.documents()) {
		key, _, _ := strings.Cut(line, " is ")
		if names = append(names, path.Base(key)); len(names) > 5 {
			continue
		}
		d, err := store.Documents.Get(c.Context(), sync.ID, key)
		c.Logf("%s: %+v, %v", line, d, err)
		if err == nil {
			events, err := store.Documents.History(c.Context(), d.ID)
			c.Logf("its history: %+v, %v", events, err)
		}
	}
	return names
}

// showUploads prints the processes, the last uploads and the breaker as the state has them, and the end of the log of each worker.
func (c *chaos) showUploads() {
	store := c.openState()
	owners, err := store.Syncs.Owners(c.Context())
	c.must(err)
	for _, o := range owners {
		c.Logf("owner %+v", o)
	}
	syncs, err := store.Syncs.All(c.Context())
	c.must(err)
	for _, s := range syncs {
		streak, pausedUntil, err := store.Journal.Breaker(c.Context(), s.Destination.ID)
		c.must(err)
		c.Logf("breaker: %d answers lost in a row, paused until %v", streak, pausedUntil)
	}
	batches, err := store.Journal.Recent(c.Context(), 30)
	c.must(err)
	for _, b := range batches {
		c.Logf("upload %+v", b)
	}
	for i, w := range c.workers {
		c.Logf("the log of worker %d ends with\n%s", i, lastLines(w.Stderr.(*syncedLog).text(), 40))
	}
}
