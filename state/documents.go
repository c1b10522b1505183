package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Documents reads documents for people and pages. It changes nothing.
type Documents struct{ *db }

// linkedUnfinished are the documents d of the sync $1 that wait for their content c, or failed with it. {no.index} keeps SQLite
// from reading all documents of the sync: the way from the few contents that are not completed is shorter.
const linkedUnfinished = `FROM contents c
			JOIN documents d ON d.content_id = c.id AND d.state = {doc.linked} AND {no.index}d.sync_id = $1
			WHERE c.destination_id = (SELECT destination_id FROM syncs WHERE id = $1)
			  AND c.state <> {content.completed}`

// outstanding counts the documents of the sync $1 that are not completed, skipped or removed, by state.
const outstanding = `SELECT CASE d.state
				WHEN {doc.pending} THEN 'pending'
				WHEN {doc.claimed} THEN 'uploading'
				ELSE 'failed'
			END, count(*)
			FROM documents d
			WHERE d.sync_id = $1
			  AND d.state < {doc.linked}
			GROUP BY 1
			UNION ALL
			SELECT ` + contentStateName + `, count(*)
			` + linkedUnfinished + `
			GROUP BY 1`

func (s *db) counts(ctx context.Context, query string, args ...any) (map[DocumentState]int, error) {
	counts := map[DocumentState]int{}
	err := s.query(ctx, query, args, func(scan func(...any) error) error {
		var state DocumentState
		var n int
		err := scan(&state, &n)
		if n > 0 {
			counts[state] += n
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count documents: %w", err)
	}
	return counts, nil
}

// Outstanding returns the number of the sync's documents that are pending, uploading, training, failed, stuck or uncertain,
// by state. Its cost grows with the number of such documents.
func (s *Documents) Outstanding(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	return s.counts(ctx, outstanding, syncID)
}

// AnyInTraining reports whether a document of the destination is in training.
func (s *Documents) AnyInTraining(ctx context.Context, destinationID int64) (bool, error) {
	var training bool
	err := s.queryOne(ctx, `SELECT EXISTS (
			SELECT 1
			FROM contents c
			JOIN documents d ON d.content_id = c.id
			JOIN syncs s ON s.id = d.sync_id
			WHERE c.destination_id = $1
			  AND c.state <> {content.completed}
			  AND c.state = {content.training}
			  AND d.state = {doc.linked}
			  AND s.destination_id = $1
			  AND s.forgotten_at = 0)`, []any{destinationID}, &training)
	if err != nil {
		return false, fmt.Errorf("read training: %w", err)
	}
	return training, nil
}

// Counts returns the number of the sync's documents by state. It reads all of them, and sums: a GROUP BY would sort them all
// in memory.
func (s *Documents) Counts(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	return s.counts(ctx, `WITH own AS MATERIALIZED (
			SELECT coalesce(sum(CASE state WHEN {doc.linked} THEN 1 ELSE 0 END), 0) AS linked,
				coalesce(sum(CASE state WHEN {doc.skipped} THEN 1 ELSE 0 END), 0) AS skipped,
				coalesce(sum(CASE state WHEN {doc.removed} THEN 1 ELSE 0 END), 0) AS removed
			FROM documents
			WHERE sync_id = $1
		)
		SELECT 'skipped', skipped FROM own
		UNION ALL
		SELECT 'removed', removed FROM own
		UNION ALL
		SELECT 'completed', linked - (SELECT count(*) `+linkedUnfinished+`) FROM own
		UNION ALL
		`+outstanding, syncID)
}

// A Document is a document as a person sees it.
type Document struct {
	ID          int64
	Sync        string
	Key         string
	State       DocumentState
	Reason      string // of failed, skipped and uncertain
	Fingerprint Fingerprint
	SHA256      SHA256    // of its last version; zero while unknown
	ChangedAt   time.Time // when it last became pending, skipped or removed
	Attempts    int       // failed ones
	NextAttempt time.Time // of pending; zero for at once
	Held        bool      // uncertain, and not to be sent again unasked
}

// documentColumns are the documents d as scanDocument reads them ($2: the hash of an unknown content).
const documentColumns = `d.id, y.name, d.key, ` + documentStateName + ` AS state,
		CASE WHEN d.reason <> '' THEN d.reason ELSE coalesce(c.reason, '') END,
		d.size, d.mtime, d.ctime_offset, d.inode, d.etag, coalesce(c.sha256, $2), d.changed_at, d.attempts, d.next_attempt,
		coalesce(c.state = {content.uncertain} AND c.resends > 0, 1 = 0)
	FROM documents d
	JOIN syncs y ON y.id = d.sync_id
	LEFT JOIN contents c ON c.id = d.content_id`

// documentRows are the documents d of the sync $1, as scanDocument reads them.
const documentRows = documentColumns + `
	WHERE d.sync_id = $1`

func scanDocument(scan func(...any) error) (Document, error) {
	var d Document
	var key, sha []byte
	var inode, changed, next int64
	f := &d.Fingerprint
	err := scan(&d.ID, &d.Sync, &key, &d.State, &d.Reason, &f.Size, &f.MTime, &f.CTime, &inode, &f.ETag,
		&sha, &changed, &d.Attempts, &next, &d.Held)
	d.Key, f.Inode, d.ChangedAt, d.NextAttempt = string(key), uint64(inode), fromMillis(changed), fromMillis(next)
	f.CTime += f.MTime // the table has the difference
	copy(d.SHA256[:], sha)
	return d, err
}

const allDocuments = `SELECT ` + documentRows + `
	  AND d.key >= $3
	ORDER BY d.key
	LIMIT $4`

// All streams the sync's documents in the given states (all if none) in byte order of the key.
func (s *Documents) All(ctx context.Context, syncID int64, states ...DocumentState) iter.Seq2[Document, error] {
	return pages[Document]{
		subject: "documents",
		query:   allDocuments,
		args:    []any{syncID, []byte{}},
		start:   []any{[]byte{}},
		after:   func(d Document) []any { return []any{keyAfter(d.Key)} },
		keep:    func(d Document) bool { return len(states) == 0 || slices.Contains(states, d.State) },
		scan:    scanDocument,
	}.stream(ctx, s.db)
}

// Get returns one document. Errors: ErrNotFound.
func (s *Documents) Get(ctx context.Context, syncID int64, key string) (Document, error) {
	found := Document{}
	err := s.query(ctx, `SELECT `+documentRows+` AND d.key = $3`, []any{syncID, []byte{}, []byte(key)},
		func(scan func(...any) error) (err error) {
			found, err = scanDocument(scan)
			return err
		})
	if err == nil && found.ID == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Document{}, fmt.Errorf("read document: %w", err)
	}
	return found, nil
}

// unfinished are the sync's documents d that are not completed, skipped or removed, with the contents c of the linked
// ones ($1: the sync). stage is 0 before the answer, 1 in training, 2 for documents that need attention. Its cost grows
// with the number of such documents.
const unfinished = `SELECT d.id, d.changed_at, d.changed_at AS since,
				CASE d.state WHEN {doc.refused} THEN 2 ELSE 0 END AS stage
			FROM documents d
			WHERE d.sync_id = $1
			  AND d.state < {doc.linked}
			UNION ALL
			SELECT d.id, d.changed_at, c.since, CASE
				WHEN c.state IN ({content.open}, {content.reserved}) THEN 0
				WHEN c.state = {content.training} THEN 1
				ELSE 2
			END
			` + linkedUnfinished

// A Progress is how far a sync is behind its root.
type Progress struct {
	// PendingSince is when the longest waiting of the documents that are pending or uploading changed; zero if there is none.
	PendingSince time.Time
	// UnfinishedSince is the same of all that are not completed: pending, uploading, training, failed, stuck or uncertain.
	UnfinishedSince time.Time
	// AcceptedAt is when the API accepted the last batch; zero for never.
	AcceptedAt time.Time
}

// Progress returns how far the sync is behind its root. Its cost grows with the number of documents that are not completed.
func (s *Documents) Progress(ctx context.Context, syncID int64) (Progress, error) {
	var pending, unfinishedSince, accepted int64
	err := s.queryOne(ctx, `SELECT coalesce(min(CASE WHEN stage = 0 THEN changed_at END), 0), coalesce(min(changed_at), 0)
		FROM (`+unfinished+`) AS u`, []any{syncID}, &pending, &unfinishedSince)
	if err == nil {
		_, accepted, err = s.lastAccepted(ctx, syncID)
	}
	if err != nil {
		return Progress{}, fmt.Errorf("read progress: %w", err)
	}
	return Progress{
		PendingSince:    fromMillis(pending),
		UnfinishedSince: fromMillis(unfinishedSince),
		AcceptedAt:      fromMillis(accepted),
	}, nil
}

// lastAccepted returns the sync's last accepted batch and its time; zeros if there is none. PostgreSQL would read all later batches
// of other syncs, in the order of their ids, if the order were not that of batches_accepted.
func (s *db) lastAccepted(ctx context.Context, syncID int64) (batch, at int64, err error) {
	err = s.queryOne(ctx, `SELECT id, ended_at
		FROM batches
		WHERE sync_id BETWEEN $1 AND $1
		  AND state = {batch.answered}
		ORDER BY sync_id DESC, id DESC
		LIMIT 1`, []any{syncID}, &batch, &at)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return batch, at, err
}

// ChangeToken returns a text that changes whenever a document of the sync was recorded or removed, or an upload of it was
// accepted. It reads all documents.
func (s *Documents) ChangeToken(ctx context.Context, syncID int64) (string, error) {
	var changed, batch int64
	err := s.queryOne(ctx, `SELECT coalesce(max(changed_at), 0)
		FROM documents
		WHERE sync_id = $1`, []any{syncID}, &changed)
	if err == nil {
		batch, _, err = s.lastAccepted(ctx, syncID)
	}
	if err != nil {
		return "", fmt.Errorf("read the latest change: %w", err)
	}
	return fmt.Sprintf("%d/%d", changed, batch), nil
}

// NeedingAttention returns up to limit of the sync's documents that failed, are stuck or uncertain, the latest first.
// Unlike All it reads no others.
func (s *Documents) NeedingAttention(ctx context.Context, syncID int64, limit int) ([]Document, error) {
	var docs []Document
	err := s.query(ctx, `SELECT `+documentColumns+`
		WHERE d.id IN (
			SELECT id
			FROM (`+unfinished+`) AS u
			WHERE stage = 2
			ORDER BY since DESC, id DESC
			LIMIT $3)
		ORDER BY coalesce(c.since, d.changed_at) DESC, d.id DESC`, []any{syncID, []byte{}, limit},
		func(scan func(...any) error) error {
			d, err := scanDocument(scan)
			docs = append(docs, d)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read documents that need attention: %w", err)
	}
	return docs, nil
}
