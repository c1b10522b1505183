package engine

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbsync/kbsync/ingest"
)

func TestDelayAfterUploadsDependsOnTheCause(t *testing.T) {
	t.Parallel()
	outage := &ingest.OutageError{Streak: 3, Err: errors.New("lost")}
	for _, test := range []struct {
		name       string
		err        error
		fruitless  int
		lostAnswer bool
		want       time.Duration
	}{
		{"done", nil, 0, false, 0},
		{"nothing was uploaded", nil, 1, false, minDelay},
		{"nothing is ever uploaded", nil, 50, false, maxDelay},
		{"three lost answers, the third just now", outage, 1, true, outageDelay},
		{"the API is away, and no answer was lost", outage, 1, false, 8 * time.Second},
		{"away for long", outage, 50, false, fatalDelay},
		{"a wrong token", &ingest.FatalError{Err: errors.New("401")}, 1, false, fatalDelay},
		{"a quota", &ingest.QuotaError{Documents: 10, Err: errors.New("402")}, 1, false, fatalDelay},
		{"the state", errors.New("disk full"), 1, false, 8 * time.Second},
	} {
		if got := uploadDelay(test.err, test.fruitless, test.lostAnswer); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// A state that cannot be read for a moment holds uploads back for seconds.
func TestUploadsResumeSoonAfterTheQueueCouldNotBeRead(t *testing.T) {
	t.Parallel()
	r := startDaemon(t, "{poll: {min: 20ms}, shutdown_grace: 1ms, syncs: ["+oneSync+"]}")
	receive(t, r.client.sealed)
	r.answerAll()
	until(t, func() bool { return r.log.has("msg=uploaded") })
	db, err := sql.Open("sqlite", filepath.Join(r.dir(), "kbsync.db")+"?_pragma=busy_timeout(10000)")
	r.must(err)
	defer db.Close()
	rename := func(from, to string) {
		_, err := db.ExecContext(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to)
		r.must(err)
	}
	rename("documents", "hidden")
	until(t, func() bool { return r.log.has("read queue") })
	rename("hidden", "documents")
	r.must(os.WriteFile(filepath.Join(r.dir(), "docs", "new.md"), []byte("new"), 0o600))
	receive(t, r.client.sealed)
}
