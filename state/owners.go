package state

import (
	"context"
	"fmt"
	"time"
)

// An Owner is a process that works on a shared state.
type Owner struct {
	Name      string // "process N on HOST"
	Since     time.Time
	ExpiresAt time.Time // of its lease, unless it is renewed
	Scans     []string  // the syncs whose root it scans
	Claims    int       // documents that it is about to upload
}

// Owners returns the processes that work on a shared state, the longest working first. There is none in a file.
func (s *Syncs) Owners(ctx context.Context) ([]Owner, error) {
	var owners []Owner
	position := map[int64]int{}
	err := s.query(ctx, `SELECT o.id, o.name, o.since, o.expires_at, (
			SELECT count(*)
			FROM syncs s
			CROSS JOIN documents d
			WHERE d.sync_id = s.id
			  AND d.state < {doc.linked}
			  AND d.state = {doc.claimed}
			  AND d.`+claimOwner+` = o.id)
		FROM owners o
		WHERE o.expires_at > {db.now}
		ORDER BY o.since, o.id`, nil, func(scan func(...any) error) error {
		var o Owner
		var id, since, expires int64
		err := scan(&id, &o.Name, &since, &expires, &o.Claims)
		o.Since, o.ExpiresAt = fromMillis(since), fromMillis(expires)
		position[id] = len(owners)
		owners = append(owners, o)
		return err
	})
	if err == nil {
		err = s.query(ctx, `SELECT name, owner_id FROM leases ORDER BY name`, nil, func(scan func(...any) error) error {
			var name string
			var id int64
			err := scan(&name, &id)
			if i, ok := position[id]; ok {
				owners[i].Scans = append(owners[i].Scans, name)
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	return owners, nil
}
