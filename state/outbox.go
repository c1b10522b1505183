package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The Outbox holds the messages to hooks until they are delivered.
type Outbox struct{ *db }

// MaxMessages is how many messages of one event wait for the hook of a sync at most.
const MaxMessages = 20

// ErrOutboxFull means that MaxMessages messages of the event wait.
var ErrOutboxFull = errors.New("too many messages wait for the hook")

// A Message is to be delivered to hooks, at least once.
type Message struct {
	ID        int64
	Event     string
	Body      []byte
	CreatedAt time.Time
	Attempts  int // failed ones
}

// Enqueue compares the items that are true of a sync now with the items that were reported before. New items make one
// message, with the body that body returns for them. Items that are no longer true are forgotten, and are new when they
// come again. Enqueue returns the number of new items. The state alone decides which are new, so a process that is
// killed between an outcome and Enqueue loses no message: its successor finds the same items. Errors: ErrOutboxFull; then the items count
// as not compared, and a later call finds them.
func (s *Outbox) Enqueue(ctx context.Context, syncID int64, event string, items []string,
	body func(fresh []string) ([]byte, error)) (int, error) {
	var fresh []string
	err := s.update(ctx, func(t *tx) (err error) {
		if fresh, err = t.report(syncID, event, items); err != nil || len(fresh) == 0 {
			return err
		}
		var waiting int
		if err := t.one(`SELECT count(*)
			FROM outbox
			WHERE sync_id = $1
			  AND event = $2`, []any{syncID, event}, &waiting); err != nil {
			return err
		}
		if waiting >= MaxMessages {
			return ErrOutboxFull
		}
		text, err := body(fresh)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO outbox (sync_id, event, body, created_at)
			VALUES ($1, $2, $3, $4)`, syncID, event, text, now())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("enqueue message: %w", err)
	}
	return len(fresh), nil
}

// report makes items the reported ones, and returns the new ones in their order.
func (t *tx) report(syncID int64, event string, items []string) (fresh []string, err error) {
	gone := map[string]bool{} // of the items reported before
	err = t.each(`SELECT item
		FROM reported
		WHERE sync_id = $1
		  AND event = $2`, []any{syncID, event}, func(scan func(...any) error) error {
		var item string
		err := scan(&item)
		gone[item] = true
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		_, known := gone[item]
		gone[item] = false
		if known {
			continue
		}
		fresh = append(fresh, item)
		if _, err := t.exec(`INSERT INTO reported (sync_id, event, item)
			VALUES ($1, $2, $3)`, syncID, event, item); err != nil {
			return nil, err
		}
	}
	for item, is := range gone {
		if !is {
			continue
		}
		if _, err := t.exec(`DELETE FROM reported
			WHERE sync_id = $1
			  AND event = $2
			  AND item = $3`, syncID, event, item); err != nil {
			return nil, err
		}
	}
	return fresh, nil
}

// Due returns up to limit messages of the sync whose next attempt is due, the oldest first.
func (s *Outbox) Due(ctx context.Context, syncID int64, limit int) ([]Message, error) {
	var due []Message
	err := s.query(ctx, `SELECT id, event, body, created_at, attempts
		FROM outbox
		WHERE sync_id = $1
		  AND (next_attempt <= $2 OR next_attempt > $3)
		ORDER BY id
		LIMIT $4`, []any{syncID, now(), farthest(), limit}, func(scan func(...any) error) error {
		var m Message
		var created int64
		err := scan(&m.ID, &m.Event, &m.Body, &created, &m.Attempts)
		m.CreatedAt = fromMillis(created)
		due = append(due, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return due, nil
}

// NextDue returns when the next message of the sync is due; zero if there is none.
func (s *Outbox) NextDue(ctx context.Context, syncID int64) (time.Time, error) {
	var at int64
	err := s.queryOne(ctx, `SELECT coalesce(min(CASE WHEN next_attempt > $2 THEN 0 ELSE next_attempt END), -1)
		FROM outbox
		WHERE sync_id = $1`, []any{syncID, farthest()}, &at)
	if err != nil {
		return time.Time{}, fmt.Errorf("read messages: %w", err)
	}
	if at < 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(max(at, 1)), nil
}

// Ack deletes a delivered message.
func (s *Outbox) Ack(ctx context.Context, messageID int64) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM outbox WHERE id = $1`, messageID)
		return err
	})
	if err != nil {
		return fmt.Errorf("acknowledge message: %w", err)
	}
	return nil
}

// Retry counts a failed attempt, and sets the time of the next one.
func (s *Outbox) Retry(ctx context.Context, messageID int64, nextAttempt time.Time) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE outbox
			SET attempts = attempts + 1, next_attempt = $1
			WHERE id = $2`, waitUntil(nextAttempt), messageID)
		return err
	})
	if err != nil {
		return fmt.Errorf("postpone message: %w", err)
	}
	return nil
}
