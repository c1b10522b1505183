package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// A marker is a small file, away from the state, that names the inventory of the last upload to a knowledge base. It survives the
// loss of the state, so that a new, an older or another state is noticed before it uploads everything again.
type marker struct {
	Format        int       `json:"kbsync_marker"`
	Inventory     string    `json:"inventory"`
	Generation    int64     `json:"generation"` // of state.Identity
	State         string    `json:"state"`      // its place then, for people
	API           string    `json:"api"`
	KnowledgeBase int64     `json:"knowledge_base"`
	Root          string    `json:"root"`
	At            time.Time `json:"at"`
}

const markerFormat = 1

// markerPaths returns the paths of the markers of a sync: beside its root, in the directory of the config file, and in the user's state
// directory. Two knowledge bases never share one. Their names are among the names that kbsync never uploads.
func markerPaths(cfg *config.Config, s config.Sync, origin string) []string {
	name := func(parts ...string) string {
		sum := sha256.Sum256([]byte(strings.Join(append(parts, origin, strconv.FormatInt(s.KnowledgeBase, 10)), "\x00")))
		return ".kbsync-" + hex.EncodeToString(sum[:8])
	}
	var paths []string
	if dir := s.Root.Dir; dir != "" && filepath.Dir(dir) != dir {
		paths = append(paths, filepath.Join(filepath.Dir(dir), name("root", filepath.Base(dir))))
	}
	if dir := cfg.Dir(); dir != "" {
		paths = append(paths, filepath.Join(dir, name("config", filepath.Base(cfg.Path))))
	}
	if cfg.UserDir != "" {
		paths = append(paths, filepath.Join(cfg.UserDir, "inventories", name("user", s.Root.String())))
	}
	return paths
}

// readMarker reads a marker; nil if there is none, or none that this user may read.
func readMarker(path string) (*marker, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil || m.Format != markerFormat || m.Inventory == "" {
		return nil, fmt.Errorf("%s is no marker that this kbsync can read; upgrade kbsync, or remove the file if no kbsync wrote it", path)
	}
	return &m, nil
}

// write replaces the marker at path.
func (m *marker) write(path string) error {
	if filepath.Base(filepath.Dir(path)) == "inventories" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(m)
	})
}

// WriteMarkers marks the state as the inventory of a sync, in every place that is writable. It fails if none is.
func WriteMarkers(ctx context.Context, cfg *config.Config, store *state.Store, s config.Sync, origin string, at time.Time) error {
	identity, err := store.Identity(ctx)
	if err != nil {
		return err
	}
	m := &marker{
		Format: markerFormat, Inventory: identity.ID, Generation: identity.Generation, State: cfg.State,
		API: origin, KnowledgeBase: s.KnowledgeBase, Root: s.Root.String(), At: at.UTC().Truncate(time.Second),
	}
	var failed []error
	paths := markerPaths(cfg, s, origin)
	for _, path := range paths {
		if was, err := readMarker(path); err == nil && was != nil && was.Inventory == m.Inventory && was.Generation == m.Generation {
			continue
		}
		if err := m.write(path); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == len(paths) {
		return fmt.Errorf("mark the inventory: %w", errors.Join(failed...))
	}
	return nil
}

// markEvery is how often the markers are written while uploads go on.
const markEvery = 30 * time.Second

// mark writes the markers if there were uploads since the last time.
func (w *worker) mark(ctx context.Context) {
	if w.opts.API.Embedded {
		return
	}
	w.marked.Lock()
	defer w.marked.Unlock()
	identity, err := w.opts.Store.Identity(ctx)
	if err == nil && identity.Generation > w.marked.generation {
		err = WriteMarkers(ctx, w.opts.Config, w.opts.Store, w.config, w.opts.API.Origin, w.opts.Now())
		w.marked.generation, w.marked.at = identity.Generation, w.opts.Now()
	}
	if err != nil && ctx.Err() == nil && !w.marked.failed {
		w.marked.failed = true
		w.logger.Info("no place for a marker of the inventory is writable, so the loss of the state would not be noticed", "error", err)
	}
}

// markSoon is mark, but not more often than markEvery.
func (w *worker) markSoon(ctx context.Context) {
	w.marked.Lock()
	recently := !w.marked.at.IsZero() && w.opts.Now().Sub(w.marked.at) < markEvery
	w.marked.Unlock()
	if !recently {
		w.mark(ctx)
	}
}
