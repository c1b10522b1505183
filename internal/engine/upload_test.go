package engine

import (
	"errors"
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
