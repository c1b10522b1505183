package engine

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A daemon that runs for days copies its state once a day, and keeps the last three copies. One that starts again soon makes none.
func TestDaemonCopiesItsStateOnceADay(t *testing.T) {
	dir := t.TempDir()
	copies := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "kbsync.db*backup*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	synctest.Test(t, func(t *testing.T) {
		store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(dir, "kbsync.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			backUpDaily(ctx, Options{Store: store, Logger: slog.New(slog.DiscardHandler)})
		}
		for _, step := range []struct {
			run  time.Duration
			want int
		}{{30 * time.Second, 0}, {2 * time.Minute, 1}, {time.Hour, 1}, {26 * time.Hour, 2}, {5 * 24 * time.Hour, 3}} {
			if run(step.run); copies() != step.want {
				entries, _ := os.ReadDir(dir)
				t.Fatalf("after %v: %d copies, want %d: %v", step.run, copies(), step.want, entries)
			}
		}
	})
}
