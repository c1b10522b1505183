package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A stormWatch is a watch that a storm disturbs: it is reloaded, runs short of files, loses the reader of its log, and is killed and
// started again.
type stormWatch struct {
	*treeFixture
	config  string // its path
	program string // empty for the test binary
	address string // of the root; empty for the directory itself
	also    string // further settings of the sync
	random  *rand.Rand
	cmd     *exec.Cmd
	log     *syncedLog
	reader  *os.File     // of the log; nil once it is closed
	restore func() error // ends a shortage of files; nil if there is none
	// counts of what was done
	reloads, restarts, shortages, closedPipes int
}

func newStormWatch(f *treeFixture, seed uint64) *stormWatch {
	return &stormWatch{treeFixture: f, config: filepath.Join(f.dir, "storm.yaml"), random: rand.New(rand.NewPCG(seed, 13))}
}

// configure writes the config. A level touches no sync, and a wait restarts it. The guards are off: a storm empties directories and
// changes most documents at once, which they take for an accident.
func (w *stormWatch) configure(level string, wait int) {
	w.Helper()
	text := fmt.Appendf(nil, `log: {level: %s}
api: {rate: off}
poll: {min: 20ms, max: 200ms}
syncs:
  - name: storm
    root: %q
    knowledge_base: 876
    include: ['**/*.md']
    settle: %v
    batch: {wait: %dms}
    max_delete: off
    max_change: off
    allow_empty: true
    min_reupload_interval: 200ms
%s`, level, cmp.Or(w.address, w.root), treeSettle, wait, w.also)
	w.must(os.WriteFile(w.config+".new", text, 0o600))
	w.must(os.Rename(w.config+".new", w.config))
}

// start starts a process, and waits until it is ready: before, a hang-up ends it as it ends any command.
func (w *stormWatch) start(flags ...string) {
	w.Helper()
	w.configure("debug", 50)
	log := &syncedLog{}
	w.log = log
	r, out, err := os.Pipe()
	w.must(err)
	w.cmd = w.command(append([]string{"watch", "--config", w.config}, flags...)...)
	if w.program != "" {
		w.cmd.Path = w.program
	}
	w.cmd.Stderr = out
	w.must(w.cmd.Start())
	w.must(out.Close())
	w.reader = r
	go func() { _, _ = io.Copy(log, r) }() // it ends with the process, or when the pipe is closed
	w.waitUntilLogged(log, "msg=ready")
}

// waitUntilLogged waits until the log of a process has a text, such as "msg=ready".
func (w *stormWatch) waitUntilLogged(log *syncedLog, text string) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.text(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("the process has not logged %q after a minute:\n%s", text, lastLines(log.text(), 20))
		}
	}
}

// disturb does something to the process that must cost no document.
func (w *stormWatch) disturb() {
	w.Helper()
	if w.restore != nil {
		w.endShortage()
		return
	}
	switch w.random.IntN(8) {
	case 0, 1, 2: // an edit of the level, or none: nothing restarts
		w.configure([]string{"debug", "info", "warn"}[w.random.IntN(3)], 50)
		w.reload()
	case 3, 4: // an edit of the sync: its loops restart
		w.configure("debug", 40+w.random.IntN(40))
		w.reload()
	case 5: // a terminal that closes signals twice
		w.reload()
		w.reload()
	case 6:
		if w.reader != nil {
			w.must(w.reader.Close())
			w.reader = nil
			w.closedPipes++
		}
	default:
		restore, err := shortOfFiles(w.cmd.Process.Pid)
		w.must(err)
		if w.restore = restore; restore != nil {
			w.shortages++
		}
	}
}

func (w *stormWatch) reload() {
	w.Helper()
	w.must(hangUp(w.cmd.Process))
	w.reloads++
}

func (w *stormWatch) endShortage() {
	w.Helper()
	if w.restore != nil {
		w.must(w.restore())
		w.restore = nil
	}
}

// restart kills the process and starts another one.
func (w *stormWatch) restart() {
	w.Helper()
	w.restore = nil
	w.must(w.cmd.Process.Kill())
	_ = w.cmd.Wait() // reports the kill
	w.restarts++
	w.start()
}

// end ends the process in good order.
func (w *stormWatch) end() {
	w.Helper()
	w.must(w.cmd.Process.Signal(os.Interrupt))
	if err := w.cmd.Wait(); err != nil {
		w.Errorf("the watch ended with %v", err)
	}
	w.Logf("%d reloads, %d shortages of files, %d closed pipes, %d kills", w.reloads, w.shortages, w.closedPipes, w.restarts)
}

// show logs the end of the log if the test has failed.
func (w *stormWatch) show(tb testing.TB) {
	if tb.Failed() {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		lines := slices.DeleteFunc(strings.Split(w.log.text(), "\n"), func(line string) bool {
			return strings.Contains(line, "msg=scanned") && strings.Contains(line, "new=0 changed=0") && strings.Contains(line, "removed=0")
		})
		tb.Logf("log of the watch, without the scans that found no change:\n%s", lastLines(strings.Join(lines, "\n"), 60))
	}
}
