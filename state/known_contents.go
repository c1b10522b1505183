package state

import "context"

// KnownContents says of each content whether the destination has it already, or has it on its way.
func (s *Store) KnownContents(ctx context.Context, destinationID int64, shas []SHA256) ([]bool, error) {
	panic("later")
}
