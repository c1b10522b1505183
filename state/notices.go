package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Notice is something that somebody outside is to be told of, at least once.
type Message struct {
	ID        int64
	Event     string
	Body      []byte
	CreatedAt time.Time
	Attempts  int // failed ones
}

// Enqueue compares what is the case of a sync now with what was told of before. Items that are new make one notice, with the body
// that body gives for them; items that are not the case any more are forgotten, and are new when they come again. It returns
// the number of new items. Since only the state decides what is new, a process that is killed between an outcome and Tell
// loses nothing: its successor finds the same.
func (s *Outbox) Enqueue(ctx context.Context, syncID int64, event string, items []string, body func(fresh []string) ([]byte, error)) (int, error) {
	var fresh []string
	err := s.update(ctx, func(t *tx) error {
		fresh = nil
		known := map[string]bool{}
		err := t.each(`SELECT item FROM told WHERE sync_id = $1 AND event = $2`, []any{syncID, event}, func(scan func(...any) error) error {
			var item string
			err := scan(&item)
			known[item] = true
			return err
		})
		if err != nil {
			return err
		}
		for _, item := range items {
			if _, is := known[item]; is {
				known[item] = false
				continue
			}
			known[item] = false
			fresh = append(fresh, item)
			if _, err := t.exec(`INSERT INTO told (sync_id, event, item) VALUES ($1, $2, $3)`, syncID, event, item); err != nil {
				return err
			}
		}
		for item, gone := range known {
			if !gone {
				continue
			}
			if _, err := t.exec(`DELETE FROM told WHERE sync_id = $1 AND event = $2 AND item = $3`, syncID, event, item); err != nil {
				return err
			}
		}
		if len(fresh) == 0 {
			return nil
		}
		text, err := body(fresh)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO notices (sync_id, event, body, created_at) VALUES ($1, $2, $3, $4)`, syncID, event, text, now())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("note what is to be told: %w", err)
	}
	return len(fresh), nil
}

// Due returns up to limit notices of the sync that are to be delivered now, the oldest first.
func (s *Outbox) Due(ctx context.Context, syncID int64, limit int) ([]Message, error) {
	var due []Message
	err := s.query(ctx, `SELECT id, event, body, created_at, attempts FROM notices WHERE sync_id = $1 AND next_attempt <= $2 ORDER BY id LIMIT $3`,
		[]any{syncID, now(), limit}, func(scan func(...any) error) error {
			var n Message
			var created int64
			err := scan(&n.ID, &n.Event, &n.Body, &created, &n.Attempts)
			n.CreatedAt = fromMillis(created)
			due = append(due, n)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	return due, nil
}

// NextDue says when the next notice of the sync is to be delivered; zero for never.
func (s *Outbox) NextDue(ctx context.Context, syncID int64) (time.Time, error) {
	var at int64
	if err := s.queryOne(ctx, `SELECT coalesce(min(next_attempt), -1) FROM notices WHERE sync_id = $1`, []any{syncID}, &at); err != nil {
		return time.Time{}, fmt.Errorf("read notices: %w", err)
	}
	if at < 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(max(at, 1)), nil
}

// Ack deletes a notice.
func (s *Outbox) Ack(ctx context.Context, noticeID int64) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM notices WHERE id = $1`, noticeID)
		return err
	})
	if err != nil {
		return fmt.Errorf("note a delivery: %w", err)
	}
	return nil
}

// Retry puts a notice off after a failed attempt.
func (s *Outbox) Retry(ctx context.Context, noticeID int64, nextAttempt time.Time) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE notices SET attempts = attempts + 1, next_attempt = $1 WHERE id = $2`, millis(nextAttempt), noticeID)
		return err
	})
	if err != nil {
		return fmt.Errorf("put a notice off: %w", err)
	}
	return nil
}

// ChangeToken is a text that changes whenever a document of the sync was recorded or removed, or an upload of it was accepted.
// It reads all documents.
func (s *Documents) ChangeToken(ctx context.Context, syncID int64) (string, error) {
	var changed, batch int64
	err := s.queryOne(ctx, `SELECT coalesce(max(changed_at), 0) FROM documents WHERE sync_id = $1`, []any{syncID}, &changed)
	if err == nil {
		err = s.queryOne(ctx, `SELECT id FROM batches WHERE sync_id = $1 AND state = 2 ORDER BY id DESC LIMIT 1`, []any{syncID}, &batch)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("read the latest change: %w", err)
	}
	return fmt.Sprintf("%d/%d", changed, batch), nil
}
