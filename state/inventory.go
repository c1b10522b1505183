package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// The Inventory has a row for every source that ReplyCX created, with the outcome of its training. No row is ever deleted.
type Inventory struct{ *db }

// A Standing is the relation of a source to the documents that exist now.
type Standing string

// The standings of a source.
const (
	Live       Standing = "live"
	Superseded Standing = "superseded" // left behind by an edit, or by a newer completed source of the same content
	Orphaned   Standing = "orphaned"   // left behind by a delete, a filter, a rename or forget
	Gone       Standing = "gone"       // removed by hand, as a person or a status answer reported
)

// A Source is a row of the inventory.
type Source struct {
	ID          int64  // negative if the id is unknown, see Adopt
	Sync        string // that uploaded it
	Key         string // of the document that it was uploaded for; empty for a source under a field that was not sent
	Destination Destination
	Name        string
	Type        string
	Status      string // ReplyCX's last word
	Outcome     Outcome
	Errors      string
	Standing    Standing
	SHA256      SHA256 // zero if the content is unknown
	Batch       int64
	CreatedAt   time.Time
	OutcomeAt   time.Time // when its training ended; zero while in training
	AckedAt     time.Time // of Gone

	content int64 // 0 for none
}

// A SourceFilter selects rows of the inventory; its zero value selects all.
type SourceFilter struct {
	SyncID    int64
	Standings []Standing
	Answering bool // only sources whose training has not failed: a failed one answers nothing
	// The stream begins with this source, or the next one.
	FromDestination, FromID int64
}

func (f *SourceFilter) matches(s Source) bool {
	return (len(f.Standings) == 0 || slices.Contains(f.Standings, s.Standing)) && !(f.Answering && s.Outcome == TrainingFailed)
}

// standing is the Standing of a source o. For an EXISTS PostgreSQL may read all documents into a table of hashes; for a LIMIT it
// looks up the documents of each source.
const standing = `CASE
		WHEN o.acked_at <> 0 THEN 'gone'
		WHEN (SELECT 1 FROM documents d WHERE d.content_id = o.content_id LIMIT 1) IS NOT NULL THEN CASE
			WHEN EXISTS (
				SELECT 1
				FROM contents n
				WHERE n.id = o.content_id
				  AND n.source_id > 0
				  AND n.batch_id > o.batch_id
				  AND n.state = {content.completed}) THEN 'superseded'
			WHEN EXISTS (
				SELECT 1
				FROM sources n
				WHERE n.content_id = o.content_id
				  AND n.batch_id > o.batch_id
				  AND n.outcome = {outcome.completed}
				  AND n.acked_at = 0) THEN 'superseded'
			ELSE 'live'
		END
		WHEN (
			SELECT 1
			FROM past_contents f
			JOIN documents d ON d.id = f.document_id
			WHERE f.content_id = o.content_id
			  AND d.state <> {doc.removed}
			LIMIT 1) IS NOT NULL THEN 'superseded'
		ELSE 'orphaned'
	END`

// maybeLeftBehind selects the contents that may have a superseded or orphaned source, some of them twice: to merge them, SQLite
// would read all contents in the order of their ids.
const maybeLeftBehind = `SELECT content_id FROM past_contents
		UNION ALL
		SELECT id FROM contents WHERE prior_batch <> 0`

// Sources streams the inventory by destination and id. If only left-behind sources are asked for, its cost grows with the
// number of contents that documents ever left.
func (s *Inventory) Sources(ctx context.Context, f SourceFilter) iter.Seq2[Source, error] {
	ofContents, ofSources := "", ""
	if len(f.Standings) > 0 && !slices.Contains(f.Standings, Live) && !slices.Contains(f.Standings, Gone) {
		ofContents = ` AND c.id IN (` + maybeLeftBehind + `)`
		ofSources = ` AND o.content_id IN (SELECT 0 UNION ALL ` + maybeLeftBehind + `)`
	}
	return s.sources(ctx, f, ofContents, ofSources)
}

// sources streams the sources that meet two conditions, on a content c and on a row o of the table of sources, whose parameters
// from $3 on are args.
func (s *Inventory) sources(ctx context.Context, f SourceFilter, ofContents, ofSources string, args ...any) iter.Seq2[Source, error] {
	return pages[Source]{
		subject: "inventory",
		query:   inventoryPage(ofContents, ofSources, 3+len(args)),
		args:    append([]any{f.SyncID, []byte{}}, args...),
		start:   []any{f.FromDestination, f.FromID},
		after:   func(r Source) []any { return []any{r.Destination.ID, r.ID + 1} },
		keep:    f.matches,
		scan:    scanSource,
	}.stream(ctx, s.db)
}

// OfDocument returns the sources of every content that a document has or had, and those of its key without a content.
func (s *Inventory) OfDocument(ctx context.Context, documentID int64) ([]WorksheetRow, error) {
	args := []any{documentID}
	err := s.query(ctx, contentsOf, args[:1:1], func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		args = append(args, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read contents: %w", err)
	}
	if len(args) == 1 {
		args = append(args, 0)
	}
	in := valueRows(4, 1, len(args)-1)
	var rows []WorksheetRow
	for source, err := range s.sources(ctx, SourceFilter{}, ` AND c.id IN `+in, ` AND o.content_id IN (SELECT 0 UNION ALL SELECT id FROM contents WHERE id IN `+in+`)
			  AND (o.content_id <> 0 OR o.document_id = $3)`, args...) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, WorksheetRow{Source: source})
	}
	return rows, s.complete(ctx, rows)
}

// contentSources and ownSources are the two places of sources, with the columns of the table sources.
const (
	contentSources = `SELECT c.destination_id, c.source_id, c.id AS content_id, c.batch_id, c.document_id, '' AS name, '` + fileType + `' AS type,
			'' AS status, ` + contentOutcome + ` AS outcome, '' AS errors, b.ended_at AS created_at,
			CASE WHEN c.state IN ({content.completed}, {content.failed}) THEN c.since ELSE 0 END AS outcome_at, 0 AS acked_at
		FROM contents c
		JOIN batches b ON b.id = c.batch_id
		WHERE c.state > {content.uncertain}
		  AND c.source_id > 0`
	ownSources = `SELECT o.destination_id, o.source_id, o.content_id, o.batch_id, o.document_id, o.name, o.type,
			o.status, o.outcome, o.errors, o.created_at, o.outcome_at, o.acked_at
		FROM sources o
		JOIN batches b ON b.id = o.batch_id
		WHERE 1 = 1`
)

// inventoryPage selects sources of the sync $1, or of all syncs if it is 0, as scanSource reads them ($2: the key and the hash
// of an unknown document). The parameters from number cursor on are the cursor and the number of rows.
func inventoryPage(ofContents, ofSources string, cursor int) string {
	limit := fmt.Sprintf("$%d", cursor+2)
	page := fmt.Sprintf(`
			  AND ($1 = 0 OR b.sync_id = $1)
			  AND (%%[1]s.destination_id, %%[1]s.source_id) >= ($%d, $%d)%%[2]s
			ORDER BY %%[1]s.destination_id, %%[1]s.source_id
			LIMIT `, cursor, cursor+1) + limit
	return `SELECT o.source_id, y.name, coalesce(d.key, $2),
			t.id, t.origin, t.account, t.knowledge_base,
			o.name, o.type, o.status, o.outcome, o.errors, ` + standing + `,
			coalesce(c.sha256, $2), coalesce(c.scope, $2), o.content_id, o.batch_id, o.created_at, o.outcome_at, o.acked_at
		FROM (
			SELECT * FROM (` + contentSources + fmt.Sprintf(page, "c", ofContents) + `) AS of_contents
			UNION ALL
			SELECT * FROM (` + ownSources + fmt.Sprintf(page, "o", ofSources) + `) AS of_sources
		) AS o
		JOIN batches b ON b.id = o.batch_id
		JOIN syncs y ON y.id = b.sync_id
		JOIN destinations t ON t.id = o.destination_id
		LEFT JOIN documents d ON d.id = o.document_id
		LEFT JOIN contents c ON c.id = o.content_id
		ORDER BY o.destination_id, o.source_id
		LIMIT ` + limit
}

func scanSource(scan func(...any) error) (Source, error) {
	var r Source
	var key, sha, scope []byte
	var created, outcomeAt, acked int64
	d := &r.Destination
	err := scan(&r.ID, &r.Sync, &key, &d.ID, &d.Origin, &d.Account, &d.KnowledgeBase,
		&r.Name, &r.Type, &r.Status, &r.Outcome, &r.Errors, &r.Standing,
		&sha, &scope, &r.content, &r.Batch, &created, &outcomeAt, &acked)
	r.Key, r.CreatedAt, r.OutcomeAt, r.AckedAt = string(key), fromMillis(created), fromMillis(outcomeAt), fromMillis(acked)
	if r.Status == "" {
		r.Name, r.Status = usualName(r.Key), usualStatus(r.Outcome)
	}
	if string(scope) != unknownScope {
		copy(r.SHA256[:], sha)
	}
	return r, err
}

// CountLeftBehind returns how many sources that the sync uploaded are superseded and orphaned. It does not count sources whose
// training failed: they answer nothing. Its cost grows with the number of
// contents that documents ever left, or that were uploaded twice.
func (s *Inventory) CountLeftBehind(ctx context.Context, syncID int64) (superseded, orphaned int, err error) {
	err = s.query(ctx, `SELECT standing, count(*)
		FROM (
			SELECT `+standing+` AS standing
			FROM (
				`+contentSources+`
				  AND b.sync_id = $1
				  AND c.id IN (`+maybeLeftBehind+`)
				UNION ALL
				`+ownSources+`
				  AND b.sync_id = $1
				  AND o.content_id IN (SELECT 0 UNION ALL `+maybeLeftBehind+`)
			) AS o
			WHERE o.outcome <> {outcome.failed}
		) AS standings
		GROUP BY standing`, []any{syncID}, func(scan func(...any) error) error {
		var st Standing
		var n int
		err := scan(&st, &n)
		switch st {
		case Superseded:
			superseded = n
		case Orphaned:
			orphaned = n
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("count left-behind sources: %w", err)
	}
	return superseded, orphaned, nil
}

// KnownContents returns, by position, the state that a document with each content would have at the destination. It is
// empty for a content that the destination does not have. A content that no document has any more would be verified first.
func (s *Inventory) KnownContents(ctx context.Context, destination Destination, contents []SHA256) ([]DocumentState, error) {
	states := make([]DocumentState, len(contents))
	for i, sha := range contents {
		err := s.queryOne(ctx, `SELECT CASE c.state WHEN {content.open} THEN '' ELSE `+contentStateName+` END
			FROM contents c
			WHERE c.destination_id = $1
			  AND substr(c.sha256, 1, 16) = $2
			  AND c.sha256 = $3
			  AND c.scope = $4`, []any{destination.ID, sha[:addressBytes], sha[:], []byte{}}, &states[i])
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("look up contents: %w", err)
		}
	}
	return states, nil
}
