package state

import (
	"context"
	"errors"
	"fmt"
)

// A Holding is what the state has for the key of a document: the content that was sent last, and its live sources. A new version of
// the document leaves the sources behind, if it is the only document with that content.
type Holding struct {
	DocumentID int64  // 0 for a key that was never recorded
	ContentID  int64  // 0 for none
	SHA256     SHA256 // of the content
	Documents  int    // that have the content, in all syncs
	Sources    []int64
}

// holdingSources are the sources of the content $1.
const holdingSources = `SELECT o.source_id, ` + standing + `
	FROM (
		` + contentSources + `
		  AND c.id = $1
		UNION ALL
		` + ownSources + `
		  AND o.content_id = $1
	) AS o
	ORDER BY o.source_id`

// Holding returns what the state has for a key.
func (s *Inventory) Holding(ctx context.Context, syncID int64, key string) (Holding, error) {
	var h Holding
	var sha []byte
	err := s.queryOne(ctx, `SELECT d.id, coalesce(c.id, 0), coalesce(c.sha256, $3), (
			SELECT count(*)
			FROM documents x
			WHERE x.content_id = c.id)
		FROM documents d
		LEFT JOIN contents c ON c.id = d.content_id
		WHERE d.sync_id = $1
		  AND d.key = $2`, []any{syncID, []byte(key), []byte{}}, &h.DocumentID, &h.ContentID, &sha, &h.Documents)
	if errors.Is(err, ErrNotFound) {
		return Holding{}, nil
	}
	copy(h.SHA256[:], sha)
	if err == nil && h.ContentID != 0 {
		err = s.query(ctx, holdingSources, []any{h.ContentID}, func(scan func(...any) error) error {
			var id int64
			var st Standing
			err := scan(&id, &st)
			if st == Live {
				h.Sources = append(h.Sources, id)
			}
			return err
		})
	}
	if err != nil {
		return Holding{}, fmt.Errorf("read the content of a document: %w", err)
	}
	return h, nil
}
