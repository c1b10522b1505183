package state

import (
	"context"
	"fmt"
)

// An Identity names an inventory. A backup of it, and an export that was imported, have its ID.
type Identity struct {
	ID string
	// Generation grows with every upload, so that of two states with one ID the one with less is the older one.
	Generation int64
}

// Identity returns the identity of the state.
func (s *Store) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := s.queryOne(ctx, `SELECT id, (SELECT coalesce(max(id), 0) FROM batches) FROM inventory`, nil, &id.ID, &id.Generation)
	if err != nil {
		return Identity{}, fmt.Errorf("read the inventory's identity: %w", err)
	}
	return id, nil
}

// nameInventory gives the state the ID of the inventory that is imported into it. An export without one keeps the ID of the state.
func (t *tx) nameInventory(id string) error {
	if id == "" {
		return nil
	}
	_, err := t.exec(`UPDATE inventory SET id = $1`, id)
	return err
}
