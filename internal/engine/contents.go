package engine

import (
	"context"
	"errors"

	"github.com/kbsync/kbsync/state"
)

// contents compares the documents of a root with what was uploaded of them.
type contents struct {
	store    *state.Store
	root     *CountingRoot
	checkers int // the number of documents that are read at once
	// skipResaved: a document that was saved again with only its metadata changed is not uploaded, so it has no other content.
	skipResaved bool
}

// edited returns how many of the documents have another content than the last one that was sent. A document that cannot be read
// now, or that is being changed, does not count.
func (c *contents) edited(ctx context.Context, sync state.Sync, documents []state.Change) (int, error) {
	candidates := make([]Candidate, len(documents))
	for i, d := range documents {
		candidates[i] = Candidate{d.Key, d.Fingerprint}
	}
	r := reader{root: c.root, cores: c.skipResaved}
	readings, err := r.readAll(ctx, c.checkers, candidates)
	if err != nil {
		return 0, err
	}
	n := 0
	for i, d := range documents {
		if readings[i].err != nil {
			continue
		}
		known, err := c.store.Documents.Get(ctx, sync.ID, d.Key)
		if errors.Is(err, state.ErrNotFound) {
			continue // forgotten meanwhile
		}
		if err != nil {
			return 0, err
		}
		if known.SHA256 == readings[i].sum {
			continue
		}
		resaved, err := c.store.Documents.IsResaved(ctx, sync.ID, d.Key, readings[i].core)
		if err != nil {
			return 0, err
		}
		if !resaved {
			n++
		}
	}
	return n, nil
}
