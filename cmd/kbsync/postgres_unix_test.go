//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// TestPostgresPausedProcessLosesItsLease stops one of three processes with SIGSTOP until its lease has run out, several times. It
// may be stopped at any moment, also in a transaction. The others must go on and take its work. When it goes on, its writes must
// be refused, except the answers to its sealed requests. POSTGRES_PAUSES sets the number of pauses.
func TestPostgresPausedProcessLosesItsLease(t *testing.T) {
	t.Parallel()
	f, objects := newPostgresFixture(t, withLease(pgtest.Start(t).Database(t), testLease))
	processes := f.startAll("watch", "watch", "worker")
	pauses := envInt(t, "POSTGRES_PAUSES", 2)
	for i := range pauses {
		paused := processes[i%len(processes)]
		f.bucket.fill(fmt.Sprint("before pause ", i), 400)
		f.wait("uploads of "+paused.name, patience(objects), func() bool { return paused.uploads().unanswered > 0 })
		f.must(paused.cmd.Process.Signal(syscall.SIGSTOP))
		lapsed := time.Now().Add(testLease + time.Second)
		f.wait("the end of the lease", time.Minute, func() bool { return time.Now().After(lapsed) })
		f.bucket.fill(fmt.Sprint("in pause ", i), 400)
		before := f.uploadsOfOthers(processes, paused)
		f.wait("uploads of the others while "+paused.name+" is paused", time.Minute, func() bool {
			return f.uploadsOfOthers(processes, paused) >= before+20
		})
		before = paused.uploads().accepted
		f.must(paused.cmd.Process.Signal(syscall.SIGCONT))
		f.wait("a new lease of "+paused.name, time.Minute, func() bool { return f.ownerOf(paused).Since.After(lapsed) })
		f.bucket.fill(fmt.Sprint("after pause ", i), 800)
		f.wait("another upload of "+paused.name, patience(objects), func() bool { return paused.uploads().accepted > before })
	}
	most := 2
	if f.finish(processes[0], patience(2000*pauses+objects)) {
		most = 3
	}
	stopAll(processes)
	f.checkUploads(most)
}

// TestPostgresLateAnswerIsListedAsSuperseded stops a process between the acceptance of an upload and its answer until another one
// has sent the documents again. The answer that the process then records changes no document: its
// sources are the duplicates.
func TestPostgresLateAnswerIsListedAsSuperseded(t *testing.T) {
	t.Parallel()
	f := newSharedFixture(t, sharedSetup{
		database: withLease(pgtest.Start(t).Database(t), testLease), delay: 3 * time.Second, documents: 20,
	})
	f.bucket.fill("first", 10)
	processes := f.startAll("watch", "watch")
	var paused *process
	f.wait("an upload without an answer", time.Minute, func() bool {
		for _, p := range processes {
			if p.uploads().unanswered == 1 {
				paused = p
			}
		}
		return paused != nil
	})
	f.must(paused.cmd.Process.Signal(syscall.SIGSTOP))
	f.waitUntilUploaded(3 * time.Minute)
	f.must(paused.cmd.Process.Signal(syscall.SIGCONT))
	var superseded []sourceView
	f.wait("the sources of the late answer", time.Minute, func() bool {
		f.must(json.Unmarshal(f.output(exitDone, f.database, "sources", "--superseded", "--json"), &superseded))
		return len(superseded) > 0
	})
	if len(superseded) != 10 {
		t.Errorf("%d sources are superseded, want 10", len(superseded))
	}
	stopAll(processes)
	f.checkUploads(2)
}

// ownerOf returns a process as status shows it.
func (f *sharedFixture) ownerOf(p *process) (owner processView) {
	f.Helper()
	for _, v := range f.shownProcesses() {
		if strings.HasPrefix(v.Name, fmt.Sprintf("process %d on ", p.cmd.Process.Pid)) && v.Since.After(owner.Since) {
			owner = v
		}
	}
	return owner
}

// uploadsOfOthers returns the number of accepted uploads of all processes but one.
func (f *sharedFixture) uploadsOfOthers(processes []*process, one *process) (uploads int) {
	for _, p := range processes {
		if p != one {
			uploads += p.uploads().accepted
		}
	}
	return uploads
}
