package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// A markerFixture has a config in a directory, and two states.
type markerFixture struct {
	*testing.T
	cfg    *config.Config
	sync   config.Sync
	api    *API
	stores [2]*state.Store
}

func newMarkerFixture(t *testing.T) *markerFixture {
	dir := t.TempDir()
	f := &markerFixture{T: t, api: &API{Origin: "https://api.invalid", Local: true}}
	for _, sub := range []string{"conf", "files/docs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	f.cfg, err = config.Parse(config.Input{
		Path: filepath.Join(dir, "conf", "kbsync.yaml"), Dir: dir, Environ: []string{"HOME=" + dir, "LOCALAPPDATA=" + dir},
		File: []byte("syncs: [{name: docs, root: ../files/docs, knowledge_base: 876}]\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.sync = f.cfg.Syncs[0]
	for i, name := range []string{"a.db", "b.db"} {
		if f.stores[i], err = state.Open(t.Context(), state.Options{Path: filepath.Join(dir, name)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.stores[i].Close() })
	}
	return f
}

func (f *markerFixture) mark(store int) {
	f.Helper()
	if err := WriteMarkers(f.Context(), f.cfg, f.stores[store], f.sync, f.api.Origin, time.Now()); err != nil {
		f.Fatal(err)
	}
}

func (f *markerFixture) guard(store int) error {
	f.Helper()
	return GuardState(f.Context(), f.cfg, f.stores[store], f.api, f.sync)
}

// Each of the three markers alone tells that a state is another one.
func TestEachMarkerHaltsAnotherState(t *testing.T) {
	f := newMarkerFixture(t)
	paths := markerPaths(f.cfg, f.sync, f.api.Origin)
	if len(paths) != 3 {
		t.Fatalf("markers at %q", paths)
	}
	for _, keep := range paths {
		f.mark(0)
		for _, path := range paths {
			if path == keep {
				continue
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.guard(0); err != nil {
			t.Errorf("%s halts its own state: %v", keep, err)
		}
		err := f.guard(1)
		if Classify(err) != ClassGuard || !strings.Contains(err.Error(), keep) {
			t.Errorf("with %s: %v", keep, err)
		}
	}
	f.api.Embedded = true
	if err := f.guard(1); err != nil {
		t.Errorf("the embedded emulator: %v", err)
	}
	f.api.Embedded = false
	f.sync.KnowledgeBase++
	if err := f.guard(1); err != nil {
		t.Errorf("another knowledge base: %v", err)
	}
}

// What is no marker is not guessed at, and a place that cannot be written to is left out.
func TestMarkersThatCannotBeUsed(t *testing.T) {
	f := newMarkerFixture(t)
	paths := markerPaths(f.cfg, f.sync, f.api.Origin)
	for _, text := range []string{"", "{}", `{"kbsync_marker": 2, "inventory": "x"}`, "not JSON"} {
		if err := os.WriteFile(paths[0], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.guard(0); Classify(err) != ClassGuard || !strings.Contains(err.Error(), paths[0]) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(paths[0], 0o700); err != nil {
		t.Fatal(err)
	}
	f.mark(0)
	if err := f.guard(1); Classify(err) != ClassGuard {
		t.Errorf("the other places: %v", err)
	}
	f.cfg.UserDir = ""
	f.sync.Root = config.Root{URL: "s3://bucket"}
	if paths := markerPaths(f.cfg, f.sync, f.api.Origin); len(paths) != 1 {
		t.Errorf("a bucket without a home directory: %q", paths)
	}
}
