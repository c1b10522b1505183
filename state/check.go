package state

import (
	"context"
	"fmt"
)

// invariants count the rows that must not exist. finding has the verb for the number.
var invariants = []struct{ finding, query string }{
	{
		"%d linked documents have no content.",
		`SELECT count(*)
		FROM documents d
		LEFT JOIN contents c ON c.id = d.content_id
		WHERE d.state = {doc.linked}
		  AND (c.id IS NULL OR c.state = {content.open})`,
	},
	{
		"%d skipped or removed documents still have a content.",
		`SELECT count(*)
		FROM documents
		WHERE state IN ({doc.skipped}, {doc.removed})
		  AND NOT (` + isBlocked + `)
		  AND content_id IS NOT NULL`,
	},
	{
		"%d contents are reserved by a batch that is not under way.",
		`SELECT count(*)
		FROM contents c
		LEFT JOIN batches b ON b.id = c.batch_id
		WHERE c.state = {content.reserved}
		  AND (b.id IS NULL OR b.state <> {batch.sealed})`,
	},
	{
		"%d contents are in training or completed without a source.",
		`SELECT count(*)
		FROM contents c
		WHERE c.state IN ({content.training}, {content.stuck}, {content.completed})
		  AND c.source_id = 0
		  AND NOT EXISTS (SELECT 1 FROM sources o WHERE o.content_id = c.id)`,
	},
	{
		"%d documents have the content of another destination.",
		`SELECT count(*)
		FROM documents d
		JOIN contents c ON c.id = d.content_id
		JOIN syncs y ON y.id = d.sync_id
		WHERE y.destination_id <> c.destination_id`,
	},
	{
		"%d sources are recorded twice.",
		`SELECT count(*)
		FROM contents c
		JOIN sources o ON o.destination_id = c.destination_id AND o.source_id = c.source_id
		WHERE c.source_id > 0`,
	},
	{
		"%d contents have a source although they are not in the knowledge base.",
		`SELECT count(*)
		FROM contents
		WHERE source_id > 0
		  AND state IN ({content.open}, {content.reserved}, {content.uncertain})`,
	},
	{
		"%d contents are in training and will never be asked for.",
		`SELECT count(*)
		FROM contents
		WHERE source_id > 0
		  AND state IN ({content.training}, {content.stuck})
		  AND next_poll = 0`,
	},
	{
		"%d contents are in training, and none of their sources is.",
		`SELECT count(*)
		FROM contents c
		WHERE c.source_id = 0
		  AND c.state IN ({content.training}, {content.stuck})
		  AND NOT EXISTS (
			SELECT 1
			FROM sources o
			WHERE o.content_id = c.id
			  AND o.batch_id = c.batch_id
			  AND o.outcome IN ({outcome.training}, {outcome.stuck}))`,
	},
	{
		"%d contents without a source are to be asked for.",
		`SELECT count(*)
		FROM contents
		WHERE source_id <= 0
		  AND state > {content.uncertain}
		  AND next_poll <> 0`,
	},
	{
		"%d sources are in training and will never be asked for.",
		`SELECT count(*)
		FROM sources
		WHERE outcome IN ({outcome.training}, {outcome.stuck})
		  AND next_poll = 0
		  AND acked_at = 0`,
	},
}

// Check verifies the database and the invariants that kbsync relies on; each finding is a sentence.
func (s *Store) Check(ctx context.Context) ([]string, error) {
	findings, err := s.integrity(ctx)
	if err != nil {
		return nil, fmt.Errorf("check state: %w", err)
	}
	for _, inv := range invariants {
		var n int
		if err := s.queryOne(ctx, inv.query, nil, &n); err != nil {
			return nil, fmt.Errorf("check state: %w", err)
		}
		if n > 0 {
			findings = append(findings, fmt.Sprintf(inv.finding, n))
		}
	}
	return findings, nil
}
