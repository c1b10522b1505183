package state

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// A PossibleDuplicate is a document that may have a source that is not in the inventory.
type PossibleDuplicate struct {
	Sync string
	Key  string
	// Class is "uncertain" (the whole request was sent, and no answer for the document came back) or "refused" (the
	// request was refused as a whole and the document accepted later: it has two sources if the server kept a part of
	// the refused request).
	Class      string
	Batch      int64
	ResentAs   int64 // the batch that sent it again; 0 for none
	SHA256     SHA256
	At         time.Time
	LeftBehind bool // the document has another content by now, or is gone
	// KnownSources are the sources of the inventory that have the same content at the destination, at most MaxNamed. Any other
	// source with this content is the duplicate.
	KnownSources []int64

	document, content int64
}

// sentLater is the first batch after b that sent the content c of its member m again, for whatever document; 0 for none.
const sentLater = `coalesce((
			SELECT min(l.batch_id)
			FROM sources l
			WHERE l.content_id = m.content_id
			  AND l.batch_id > b.id),
			CASE WHEN c.source_id > 0 AND c.batch_id > b.id THEN c.batch_id ELSE 0 END)`

const possibleDuplicates = `SELECT y.name, d.key,
		CASE b.state WHEN {batch.refused} THEN 'refused' ELSE 'uncertain' END,
		b.id, m.document_id, ` + sentLater + `, c.sha256, b.ended_at, coalesce(d.content_id, 0) <> m.content_id, c.id
	FROM members m
	JOIN batches b ON b.id = m.batch_id
	JOIN syncs y ON y.id = b.sync_id
	JOIN documents d ON d.id = m.document_id
	JOIN contents c ON c.id = m.content_id
	WHERE ($1 = 0 OR b.sync_id = $1)
	  AND (
		b.state IN ({batch.uncertain}, {batch.answered})
		OR b.state = {batch.refused} AND b.status_code IN (400, 413, 422) AND ` + sentLater + ` <> 0)
	  AND {no.index}b.id >= $2
	  AND (m.batch_id, m.document_id) >= ($2, $3)
	ORDER BY m.batch_id, m.document_id
	LIMIT $4`

// PossibleDuplicates streams the possible duplicates by batch; syncID 0 for all syncs.
func (s *Inventory) PossibleDuplicates(ctx context.Context, syncID int64) iter.Seq2[PossibleDuplicate, error] {
	rows := pages[PossibleDuplicate]{
		subject: "possible duplicates",
		query:   possibleDuplicates,
		args:    []any{syncID},
		start:   []any{0, 0},
		after:   func(p PossibleDuplicate) []any { return []any{p.Batch, p.document + 1} },
		scan: func(scan func(...any) error) (PossibleDuplicate, error) {
			var p PossibleDuplicate
			var key, sha []byte
			var at int64
			err := scan(&p.Sync, &key, &p.Class, &p.Batch, &p.document, &p.ResentAs, &sha, &at, &p.LeftBehind, &p.content)
			p.Key, p.At = string(key), fromMillis(at)
			copy(p.SHA256[:], sha)
			return p, err
		},
	}.stream(ctx, s.db)
	return inChunks(rows, worksheetChunk, func(p PossibleDuplicate) PossibleDuplicate { return p },
		func(chunk []PossibleDuplicate) error { return s.addKnownSources(ctx, chunk) })
}

// addKnownSources fills in KnownSources.
func (s *Inventory) addKnownSources(ctx context.Context, duplicates []PossibleDuplicate) error {
	byContent := map[int64][]int64{}
	var contents []any
	for _, d := range duplicates {
		if _, ok := byContent[d.content]; !ok {
			byContent[d.content] = nil
			contents = append(contents, d.content)
		}
	}
	// Documents that share nothing have contents of their own, with the same hash. The mark keeps SQLite from reading all sources
	// of the destination.
	same := `FROM contents c
		JOIN contents k ON k.destination_id = c.destination_id AND substr(k.sha256, 1, 16) = substr(c.sha256, 1, 16) AND k.sha256 = c.sha256`
	of := `WHERE c.id IN ` + valueRows(1, 1, len(contents))
	err := s.query(ctx, `SELECT c.id, k.source_id `+same+` `+of+`
		  AND k.source_id > 0
		  AND {no.index}k.state > {content.uncertain}
		UNION ALL
		SELECT c.id, o.source_id `+same+`
		JOIN sources o ON o.content_id = k.id AND o.acked_at = 0 `+of+`
		ORDER BY 1, 2`, contents, func(scan func(...any) error) error {
		var content, id int64
		err := scan(&content, &id)
		if ids := byContent[content]; len(ids) < MaxNamed {
			byContent[content] = append(ids, id)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read known sources: %w", err)
	}
	for i := range duplicates {
		duplicates[i].KnownSources = byContent[duplicates[i].content]
	}
	return nil
}
