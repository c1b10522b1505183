package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// fail does something to the API, the network, the database, the disk, the bucket or the clocks that must cost no document.
func (c *chaos) fail() {
	c.Helper()
	c.faults++
	switch c.random.IntN(8) {
	case 0, 1:
		faults := c.someFaults()
		c.note("faults of the API: %+v", faults.Rules)
		c.must(c.emulator.SetFaults(faults))
	case 2:
		c.note("a slow network")
		c.api.Limit(2_000 + c.random.IntN(50_000))
	case 3:
		c.failNetwork()
	case 4:
		c.note("the network is well again")
		c.api.Restore()
		if c.db != nil {
			c.db.Restore()
		}
	case 5:
		c.fillDisk()
	case 6:
		c.failBucket()
	default:
		c.stepClocks()
	}
}

// failBucket makes some requests to the bucket fail. Its client tries each three times, so a part of them fails for good.
func (c *chaos) failBucket() {
	if c.bucket != nil {
		requests := 1 + c.random.IntN(20)
		c.note("%d requests to the bucket fail", requests)
		c.bucket.fail(requests)
	}
}

// failNetwork breaks the connections to the API or the database, or lets no byte pass for a while. If no answer may be lost, the API's
// bytes are only late.
func (c *chaos) failNetwork() {
	proxy, name := c.api, "API"
	if c.db != nil && c.random.IntN(2) == 0 {
		proxy, name = c.db, "database"
	}
	kind := c.random.IntN(3)
	if c.setup.gentle && name == "API" {
		kind = 2
	}
	c.note("network of the %s: %s", name, [...]string{"reset", "cut", "stalled"}[kind])
	switch kind {
	case 0:
		proxy.Reset()
	case 1:
		proxy.Cut()
		time.Sleep(time.Duration(c.random.IntN(700)) * time.Millisecond)
		proxy.Restore()
	default:
		proxy.Silence()
		time.Sleep(time.Duration(c.random.IntN(700)) * time.Millisecond)
		proxy.Restore()
	}
}

// someFaults are some of the faults of a soak, with greater probabilities. Without lost answers they are those before an upload is
// complete, and those of status requests. A reset may come when the client has sent a small upload as a whole.
func (c *chaos) someFaults() *emulator.Faults {
	var rules []emulator.Fault
	for _, r := range soakFaults.Rules {
		loses := r.Operation == emulator.OpUpload &&
			(r.Reset || r.At == emulator.After || r.At == emulator.Read || r.Answer != "" || r.DropFields > 0)
		if c.setup.gentle && loses || c.random.IntN(2) == 0 {
			continue
		}
		r.Probability *= float64(1 + c.random.IntN(5))
		r.Latency /= 4
		rules = append(rules, r)
	}
	return &emulator.Faults{Seed: c.random.Uint64(), Rules: rules}
}

// Wall clocks of processes are at most farthestStep from the right time while the round disturbs.
const farthestStep = time.Hour

// stepClocks moves the clock of the API forward, and gives a document time stamps of a clock that is an hour fast or slow. In some rounds it
// steps the wall clocks of the processes, too.
func (c *chaos) stepClocks() {
	c.Helper()
	if c.setup.stepsClocks() {
		c.setClocks(time.Duration(c.random.Int64N(int64(2*farthestStep))) - farthestStep)
	}
	ahead := time.Duration(c.random.IntN(600)) * time.Second
	c.must(c.emulator.Advance(ahead))
	files, _ := c.entries()
	file := c.pick(files)
	if file == "" {
		return
	}
	at := time.Now().Add(time.Duration(1-2*c.random.IntN(2)) * time.Hour)
	c.note("the API's clock steps by %v; document %s has the time %v", ahead, file, at)
	c.must(os.Chtimes(file, at, at))
}

// setClocks sets the wall clocks of the processes ahead of the right time. The program of `make chaos` reads its clock in c.clock.
func (c *chaos) setClocks(ahead time.Duration) {
	c.Helper()
	ahead = ahead.Truncate(time.Second)
	c.note("the clocks of the processes are ahead by %v", ahead)
	f, err := os.OpenFile(c.clock, os.O_WRONLY|os.O_CREATE, 0o600)
	c.must(err)
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead/time.Second)), 0)
	c.must(errors.Join(err, f.Close()))
}

// prepareClocks lets the processes read their clocks in a file, and checks that they do.
func (c *chaos) prepareClocks() {
	c.Helper()
	c.clock = filepath.Join(c.dir, "clock")
	c.env = append(c.env, "CLOCK_STEP="+c.clock)
	c.setClocks(farthestStep)
	cmd := c.command()
	cmd.Args = []string{"kbsync-clock"}
	out, err := cmd.Output()
	c.must(err)
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	c.must(err)
	if ahead := time.Until(time.Unix(seconds, 0)); ahead < farthestStep/2 {
		c.Fatalf("the clock of a process is ahead by %v, want %v: run `make chaos`, which builds programs whose clock can be stepped", ahead, farthestStep)
	}
	c.setClocks(0)
}

// fillDisk fills the file system of the state for a while.
func (c *chaos) fillDisk() {
	c.Helper()
	if c.disk == "" {
		return
	}
	c.note("the disk is full")
	f, err := os.Create(filepath.Join(c.disk, "ballast"))
	c.must(err)
	_, _ = io.CopyN(f, zeroes{}, 1<<30) // ends when the disk is full
	_ = f.Close()                       // it may be full
	time.Sleep(time.Duration(c.random.IntN(1000)) * time.Millisecond)
	c.emptyDisk()
}

func (c *chaos) emptyDisk() {
	c.Helper()
	if c.disk != "" {
		if err := os.Remove(filepath.Join(c.disk, "ballast")); err != nil && !os.IsNotExist(err) {
			c.Fatal(err)
		}
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// startAll starts the watch and, on PostgreSQL, the workers beside it.
func (c *chaos) startAll() {
	c.Helper()
	c.startWatch()
	if c.db != nil {
		for range c.setup.workers - 1 {
			c.workers = append(c.workers, nil)
			c.startWorker(len(c.workers) - 1)
		}
	}
}

// startWatch starts the watch, which reaches the database through the proxy.
func (c *chaos) startWatch() {
	c.Helper()
	c.state = c.through
	defer func() { c.state = c.direct }()
	c.start("--accept-new-state") // the small disk is in memory
}

func (c *chaos) startWorker(i int) {
	c.Helper()
	c.state = c.through
	defer func() { c.state = c.direct }()
	c.workers[i] = c.command("worker", "--config", c.config, "--log-level", "debug")
	log := &syncedLog{}
	c.workers[i].Stderr = log
	c.must(c.workers[i].Start())
	c.waitUntilLogged(log, "msg=ready")
}

// killOne kills a process and starts it again.
func (c *chaos) killOne() {
	c.Helper()
	c.kills++
	i := c.random.IntN(len(c.workers) + 1)
	if i == len(c.workers) {
		c.note("kill the watch")
		c.restore = nil
		c.must(c.cmd.Process.Kill())
		_ = c.cmd.Wait() // reports the kill
		c.endFaults()    // or the next one may not become ready
		c.startWatch()
		return
	}
	c.note("kill worker %d", i)
	c.must(c.workers[i].Process.Kill())
	_ = c.workers[i].Wait() // reports the kill
	if c.bucket != nil {
		c.bucket.fail(0) // a process that cannot reach its root at its start ends
	}
	c.startWorker(i)
}

// stopWorkers ends the workers in good order.
func (c *chaos) stopWorkers() {
	c.Helper()
	for i, w := range c.workers {
		c.must(w.Process.Signal(os.Interrupt))
		if err := w.Wait(); err != nil {
			c.Errorf("worker %d ended with %v:\n%s", i, err, lastLines(w.Stderr.(*syncedLog).text(), 60))
		}
	}
	c.workers = nil
}
