package state

import (
	"context"
	"errors"
	"fmt"
)

// Syncs are the named pairs of a root and a destination.
type Syncs struct{ *db }

// activeSyncs are the columns of the syncs s that were not forgotten, with their destinations t.
const activeSyncs = `s.id, s.name, s.root, s.root_identity, s.scanned_at, s.last_error, t.id, t.origin, t.account, t.knowledge_base
	FROM syncs s
	JOIN destinations t ON t.id = s.destination_id
	WHERE s.forgotten_at = 0`

func scanSync(scan func(...any) error) (Sync, error) {
	var y Sync
	var scanned int64
	d := &y.Destination
	err := scan(&y.ID, &y.Name, &y.Root, &y.RootIdentity, &scanned, &y.LastError, &d.ID, &d.Origin, &d.Account, &d.KnowledgeBase)
	y.ScannedAt = fromMillis(scanned)
	return y, err
}

// Get returns a sync by name. Errors: ErrNotFound.
func (s *Syncs) Get(ctx context.Context, name string) (Sync, error) {
	found := Sync{}
	err := s.query(ctx, `SELECT `+activeSyncs+` AND s.name = $1`, []any{name}, func(scan func(...any) error) (err error) {
		found, err = scanSync(scan)
		return err
	})
	if err == nil && found.ID == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Sync{}, fmt.Errorf("read sync %q: %w", name, err)
	}
	return found, nil
}

// All returns every sync that was not forgotten, by name.
func (s *Syncs) All(ctx context.Context) ([]Sync, error) {
	var all []Sync
	err := s.query(ctx, `SELECT `+activeSyncs+` ORDER BY s.name`, nil, func(scan func(...any) error) error {
		y, err := scanSync(scan)
		all = append(all, y)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read syncs: %w", err)
	}
	return all, nil
}

// Ensure finds or creates the sync of that name. A sync that belongs to another destination is a *DestinationError,
// unless confirmed: then its documents become pending at the new one, and their sources at the old one are left behind.
// An account that was unknown before is filled in.
func (s *Syncs) Ensure(ctx context.Context, name, root string, dest Destination, confirmed bool) (Sync, error) {
	err := s.update(ctx, func(t *tx) error {
		destination, err := t.ensureDestination(dest)
		if err != nil {
			return err
		}
		if err := t.lockDestination(destination, alone); err != nil {
			return err
		}
		var id int64
		var have Destination
		err = t.one(`SELECT s.id, t.id, t.origin, t.account, t.knowledge_base
			FROM syncs s
			JOIN destinations t ON t.id = s.destination_id
			WHERE s.name = $1
			  AND s.forgotten_at = 0`,
			[]any{name}, &id, &have.ID, &have.Origin, &have.Account, &have.KnowledgeBase)
		switch {
		case errors.Is(err, ErrNotFound):
			// Another process may enter the same sync at the same time.
			_, err = t.exec(`INSERT INTO syncs (name, destination_id, root, created_at)
				VALUES ($1, $2, $3, $4)
				ON CONFLICT (name) WHERE forgotten_at = 0 DO NOTHING`, name, destination, root, now())
			return err
		case err != nil:
			return err
		case have.ID != destination && !confirmed:
			return &DestinationError{Sync: name, Have: have, Want: dest}
		case have.ID != destination:
			if err := t.restartDocuments(id); err != nil {
				return err
			}
		}
		_, err = t.exec(`UPDATE syncs
			SET destination_id = $1, root = $2
			WHERE id = $3
			  AND (destination_id <> $1 OR root <> $2)`, destination, root, id)
		return err
	})
	if err != nil {
		return Sync{}, fmt.Errorf("enter sync: %w", err)
	}
	return s.Get(ctx, name)
}

// ensureDestination returns the destination's id. An unknown account, here or there, matches every account.
func (t *tx) ensureDestination(d Destination) (int64, error) {
	var id int64
	var account string
	err := t.one(`SELECT id, account
		FROM destinations
		WHERE origin = $1
		  AND knowledge_base = $2
		  AND (account = $3 OR account = '' OR $3 = '')
		ORDER BY account <> $3, id
		LIMIT 1`, []any{d.Origin, d.KnowledgeBase, d.Account}, &id, &account)
	switch {
	case errors.Is(err, ErrNotFound):
		err = t.one(`INSERT INTO destinations (origin, account, knowledge_base)
			VALUES ($1, $2, $3)
			ON CONFLICT (origin, account, knowledge_base) DO UPDATE SET origin = excluded.origin
			RETURNING id`, []any{d.Origin, d.Account, d.KnowledgeBase}, &id)
	case err == nil && account == "" && d.Account != "":
		_, err = t.exec(`UPDATE destinations SET account = $1 WHERE id = $2`, d.Account, id)
	}
	return id, err
}

// restartDocuments takes the contents from the sync's documents and makes them pending.
func (t *tx) restartDocuments(syncID int64) error {
	if err := t.keepPastContents(`d.sync_id = $2 AND d.state <> {doc.removed}`, syncID); err != nil {
		return err
	}
	// A blocked document is skipped, and has a content.
	if _, err := t.exec(`UPDATE documents
		SET content_id = NULL
		WHERE sync_id = $1
		  AND state = {doc.skipped}`, syncID); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE documents
		SET content_id = NULL, state = {doc.pending}, claim = 0, attempts = 0, next_attempt = 0, reason = '', changed_at = $1
		WHERE sync_id = $2
		  AND state NOT IN ({doc.skipped}, {doc.removed})`, now(), syncID)
	return err
}

// keepPastContents records, for the documents d that match where ($2 and up are args), the content that they are about
// to lose.
func (t *tx) keepPastContents(where string, args ...any) error {
	_, err := t.exec(`INSERT INTO past_contents (content_id, document_id, until)
		SELECT d.content_id, d.id, $1
		FROM documents d
		WHERE d.content_id IS NOT NULL
		  AND `+where+`
		ON CONFLICT (content_id, document_id) DO UPDATE SET until = excluded.until`, append([]any{now()}, args...)...)
	return err
}

// Forget drops a sync: its documents are removed, its sources left behind. Batches that a killed process left are ended
// as Recover ends them, so that other syncs do not wait for them. The caller holds the sync's lock. In a shared state an answer
// that another process still waits for is recorded.
func (s *Syncs) Forget(ctx context.Context, syncID int64) error {
	err := s.update(ctx, func(t *tx) error {
		if err := t.lockSync(syncID, alone); err != nil {
			return err
		}
		if _, err := t.recover(syncID, 0); err != nil {
			return err
		}
		if err := t.keepPastContents(`d.sync_id = $2`, syncID); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE documents
			SET state = {doc.removed}, content_id = NULL, claim = 0, vanished = 0
			WHERE sync_id = $1
			  AND state <> {doc.removed}`, syncID); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE syncs SET forgotten_at = $1 WHERE id = $2`, now(), syncID)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget sync: %w", err)
	}
	return nil
}

// SetLastError saves why the sync's last pass was halted or stopped. An empty text clears it.
func (s *Syncs) SetLastError(ctx context.Context, syncID int64, text string) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE syncs
			SET last_error = $1
			WHERE id = $2
			  AND last_error <> $1`, text, syncID)
		return err
	})
	if err != nil {
		return fmt.Errorf("save last error: %w", err)
	}
	return nil
}
