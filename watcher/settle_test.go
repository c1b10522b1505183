package watcher

import (
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

func TestSettledAt(t *testing.T) {
	now := time.Unix(1_800_000_000, 123)
	never := time.Duration(-1 << 62)
	for name, c := range map[string]struct {
		mtime, ctime time.Duration // relative to now
		settle       time.Duration
		want         time.Duration // to wait
		unknown      bool          // the stamps prove nothing
	}{
		"old":                                  {-time.Hour, -time.Hour, 2 * time.Second, 0, false},
		"just written":                         {0, 0, 2 * time.Second, 2 * time.Second, false},
		"half settled":                         {-time.Second, -time.Second, 2 * time.Second, time.Second, false},
		"settled just now":                     {-2 * time.Second, -2 * time.Second, 2 * time.Second, 0, false},
		"copied with its old mtime":            {-time.Hour, -time.Second, 2 * time.Second, time.Second, false},
		"no settle, but one tick of the clock": {-5 * time.Millisecond, -5 * time.Millisecond, 0, 15 * time.Millisecond, false},
		"no settle":                            {-20 * time.Millisecond, -20 * time.Millisecond, 0, 0, false},
		"negative settle":                      {0, -10 * time.Millisecond, -time.Second, 10 * time.Millisecond, false},
		"mtime far in the future":              {time.Hour, -time.Hour, 2 * time.Second, 0, false},
		"mtime far in the future, just now":    {time.Hour, 0, 2 * time.Second, 2 * time.Second, false},
		"clock set back an hour":               {time.Hour, time.Hour, 2 * time.Second, 0, true},
		"clock a little ahead":                 {time.Second, time.Second, 2 * time.Second, 3 * time.Second, true},
		"no ctime":                             {-5 * time.Millisecond, never, 0, 15 * time.Millisecond, false},
		"no ctime, old":                        {-time.Minute, never, 2 * time.Second, 0, false},
	} {
		fp := state.Fingerprint{MTime: now.Add(c.mtime).UnixNano()}
		if c.ctime != never {
			fp.CTime = now.Add(c.ctime).UnixNano()
		}
		at, ok := settledAt(fp, now, c.settle)
		if got := at.Sub(now); ok != !c.unknown || ok && got != c.want {
			t.Errorf("%s: got %v, %v, want %v", name, got, ok, c.want)
		}
	}
}
