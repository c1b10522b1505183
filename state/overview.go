package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// unfinished are the sync's documents d that are not completed, skipped or removed, with the contents c of those that are
// settled ($1: the sync). Its cost grows with their number alone.
const unfinished = `SELECT d.id, d.changed_at, d.changed_at AS since, CASE d.state WHEN 2 THEN 2 ELSE 0 END AS stage FROM documents d WHERE d.sync_id = $1 AND d.state < 3
	UNION ALL SELECT d.id, d.changed_at, c.since, CASE WHEN c.state IN (0, 1) THEN 0 WHEN c.state = 3 THEN 1 ELSE 2 END FROM contents c JOIN documents d ON d.content_id = c.id AND d.state = 3 AND +d.sync_id = $1
	WHERE c.destination_id = (SELECT destination_id FROM syncs WHERE id = $1) AND c.state <> 5`

// A Progress says how far behind its root a sync is.
type Progress struct {
	// PendingSince is when the longest waiting of the documents that are pending or uploading changed; zero if there is none.
	PendingSince time.Time
	// UnfinishedSince is the same of all that are not completed: pending, uploading, training, failed, stuck or uncertain.
	UnfinishedSince time.Time
	// AcceptedAt is when the API accepted the last batch; zero for never.
	AcceptedAt time.Time
}

// Progress returns how far behind its root the sync is. Its cost grows with the number of documents that are not completed.
func (s *Documents) Progress(ctx context.Context, syncID int64) (Progress, error) {
	var pending, unsettled, accepted int64
	err := s.queryOne(ctx, `SELECT coalesce(min(CASE WHEN stage = 0 THEN changed_at END), 0), coalesce(min(changed_at), 0) FROM (`+unfinished+`) AS u`, []any{syncID}, &pending, &unsettled)
	if err == nil {
		err = s.queryOne(ctx, `SELECT ended_at FROM batches WHERE sync_id = $1 AND state = 2 ORDER BY id DESC LIMIT 1`, []any{syncID}, &accepted)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return Progress{}, fmt.Errorf("read progress: %w", err)
	}
	return Progress{PendingSince: fromMillis(pending), UnfinishedSince: fromMillis(unsettled), AcceptedAt: fromMillis(accepted)}, nil
}

// NeedingAttention returns up to limit of the sync's documents that failed, are stuck or uncertain, the latest first. Unlike
// Documents it reads no others.
func (s *Documents) NeedingAttention(ctx context.Context, syncID int64, limit int) ([]Document, error) {
	var docs []Document
	err := s.query(ctx, `SELECT `+documentColumns+` AND d.id IN (SELECT id FROM (`+unfinished+`) AS u WHERE stage = 2 ORDER BY since DESC, id DESC LIMIT $3) ORDER BY coalesce(c.since, d.changed_at) DESC, d.id DESC`,
		[]any{syncID, []byte{}, limit}, func(scan func(...any) error) error {
			d, err := scanDocument(scan)
			docs = append(docs, d)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read troubled documents: %w", err)
	}
	return docs, nil
}

// A BatchState is what became of a batch. Its text is what is printed.
type BatchState string

// The states of a batch.
const (
	BatchOpen      BatchState = "open"      // being sent
	BatchSealed    BatchState = "sealed"    // sent, and waiting for the answer
	BatchAccepted  BatchState = "accepted"  // the API answered with sources
	BatchRefused   BatchState = "refused"   // the API took nothing of it
	BatchAbandoned BatchState = "abandoned" // ended before it was whole, so nothing of it was taken
	BatchUncertain BatchState = "uncertain" // sent whole, and the answer was lost
)

// A Batch is a row of the journal as a person sees it.
type Batch struct {
	ID         int64
	Sync       string
	State      BatchState
	ResendOf   int64 // the uncertain batch that it carries again; 0 for none
	Documents  int
	Bytes      int64 // of contents
	BegunAt    time.Time
	EndedAt    time.Time // zero while open or sealed
	StatusCode int       // of the answer; 0 for none
	Message    string    // why it was not accepted
}

// Recent returns the last limit batches of all syncs, the latest first.
func (s *Journal) Recent(ctx context.Context, limit int) ([]Batch, error) {
	var batches []Batch
	states := [...]BatchState{batchOpen: BatchOpen, batchSealed: BatchSealed, batchAnswered: BatchAccepted, batchRefused: BatchRefused, batchAbandoned: BatchAbandoned, batchUncertain: BatchUncertain}
	err := s.query(ctx, `SELECT b.id, y.name, b.state, b.resend_of, b.documents, b.bytes, b.created_at, b.ended_at, b.status_code, b.message
		FROM batches b JOIN syncs y ON y.id = b.sync_id ORDER BY b.id DESC LIMIT $1`, []any{limit}, func(scan func(...any) error) error {
		var b Batch
		var state int
		var begun, ended int64
		if err := scan(&b.ID, &b.Sync, &state, &b.ResendOf, &b.Documents, &b.Bytes, &begun, &ended, &b.StatusCode, &b.Message); err != nil {
			return err
		}
		if state < 0 || state >= len(states) {
			return fmt.Errorf("batch %d has the unknown state %d", b.ID, state)
		}
		b.State, b.BegunAt, b.EndedAt = states[state], fromMillis(begun), fromMillis(ended)
		batches = append(batches, b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	return batches, nil
}

// Version returns a number that is another one than before if anything was written since then, by this process or another.
// It costs next to nothing, so that who shows the state need not read it again and again. Numbers of two Stores say nothing
// of each other.
func (s *Store) Version(ctx context.Context) (int64, error) {
	s.watching.Lock()
	defer s.watching.Unlock()
	if s.watch == nil {
		conn, err := s.read.Conn(ctx)
		if err != nil {
			return 0, fmt.Errorf("read version: %w", err)
		}
		s.watch = conn
		s.watches++
	}
	// SQLite counts for each connection by itself what others wrote.
	var version int64
	if err := s.watch.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		_ = s.watch.Close() // the next call takes another one
		s.watch = nil
		return 0, fmt.Errorf("read version: %w", remedy(err))
	}
	return s.watches<<32 + version, nil
}

func (s *db) unwatch() {
	s.watching.Lock()
	defer s.watching.Unlock()
	if s.watch != nil {
		_ = s.watch.Close() // it has read, and nothing is open on it
		s.watch = nil
	}
}
