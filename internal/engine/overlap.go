package engine

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/kbsync/kbsync/internal/config"
)

// warnOverlap warns of other syncs in the state that go to the same knowledge base from the same root, or from one in it or around
// it. That is allowed, and each content is uploaded once; but a document that leaves one sync stays live through the other. The config
// warns of those pairs that its text shows.
func (w *worker) warnOverlap(ctx context.Context) {
	syncs, err := w.opts.Store.Syncs.All(ctx)
	if err != nil {
		return // the next use of the state reports it
	}
	for _, other := range syncs {
		if other.ID == w.sync.ID || other.Destination.ID != w.sync.Destination.ID {
			continue
		}
		if known, ok := w.opts.Config.Sync(other.Name); ok && overlap(known.Root, w.config.Root, filepath.Clean) {
			continue
		}
		if overlap(rootOf(other.Root), w.config.Root, resolved) {
			w.logger.Warn("the root overlaps that of another sync to the same knowledge base; a content that both have is uploaded once. If the "+
				"other sync is not used any more, drop it with kbsync forget", "root", w.config.Root.String(), "other", other.Name, "other_root", other.Root)
		}
	}
}

// rootOf returns a root as the state has its text.
func rootOf(text string) config.Root {
	if strings.Contains(text, "://") {
		return config.Root{URL: text}
	}
	return config.Root{Dir: text}
}

// overlap reports whether two roots are the same, or one directory is in the other.
func overlap(a, b config.Root, clean func(string) string) bool {
	if a.Dir == "" || b.Dir == "" {
		return a == b
	}
	x, y := clean(a.Dir), clean(b.Dir)
	for _, pair := range [][2]string{{x, y}, {y, x}} {
		if rel, err := filepath.Rel(pair[0], pair[1]); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

// resolved returns a path without symbolic links, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}
