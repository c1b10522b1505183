package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// TestPostgresTakesAnInventoryWithoutAnUpload exports an inventory of trained, failed and uncertain documents from SQLite,
// imports it into PostgreSQL, and moves it back. No move may cost an upload or lose a row.
func TestPostgresTakesAnInventoryWithoutAnUpload(t *testing.T) {
	t.Parallel()
	file := func() string { return filepath.Join(t.TempDir(), "kbsync.db") }
	sqlite, postgres := file(), pgtest.Start(t).Database(t)
	f := newSharedFixture(t, sharedSetup{database: sqlite, documents: 20})
	f.bucket.fill("first", 60)
	f.output(exitDone, sqlite, "sync")
	f.bucket.put("broken.pdf", []byte("this is no PDF"))
	f.output(exitFailed, sqlite, "sync")
	// The API accepts this document, and its answer is lost.
	f.must(f.emulator.SetFaults(&emulator.Faults{Rules: []emulator.Fault{{Operation: emulator.OpUpload, Status: 502, At: emulator.After}}}))
	f.bucket.put("lost.md", []byte("the answer to this document is lost"))
	f.output(exitFailed, sqlite, "sync", "--max-duration", "1s")
	f.must(f.emulator.SetFaults(nil))

	before := f.emulator.Counts().Uploads
	f.move(sqlite, postgres)
	f.syncsNothing(postgres, before)
	f.bucket.put("new.md", []byte("a document that PostgreSQL learns first"))
	f.output(exitFailed, postgres, "sync", "--on-uncertain", "hold")
	before++
	back := file()
	f.move(postgres, back)
	f.syncsNothing(back, before)
}

// move moves an inventory into an empty state, and checks that it is the same there.
func (f *sharedFixture) move(from, to string) {
	f.Helper()
	export := filepath.Join(f.TempDir(), "export.jsonl")
	f.output(exitDone, from, "state", "export", export)
	f.output(exitDone, to, "state", "import", export)
	for _, list := range [][]string{{"status"}, {"sources"}, {"sources", "--possible-duplicates"}} {
		args := append(list, "--json")
		was, is := f.listing(from, args...), f.listing(to, args...)
		if !bytes.Equal(was, is) {
			f.Errorf("kbsync %v was\n%s\nand is after the move\n%s", list, was, is)
		}
	}
}

// listing returns what a command prints about a state, without the name of the state.
func (f *sharedFixture) listing(state string, args ...string) []byte {
	f.Helper()
	var out any
	f.must(json.Unmarshal(f.output(exitDone, state, args...), &out))
	if fields, ok := out.(map[string]any); ok {
		delete(fields, "state")
	}
	text, err := json.MarshalIndent(out, "", "  ")
	f.must(err)
	return text
}

// syncsNothing checks that a sync on a moved state sends no upload. The emulator has received that many before.
func (f *sharedFixture) syncsNothing(state string, uploads int64) {
	f.Helper()
	// The broken document has failed for good, so the code is not 0.
	f.output(exitFailed, state, "sync", "--on-uncertain", "hold")
	if n := f.emulator.Counts().Uploads; n != uploads {
		f.Errorf("the sync after the move sent %d uploads", n-uploads)
	}
}
