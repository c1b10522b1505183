package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// Enqueue compares the items that are true of a sync now, in byte order, with the items that were reported before. It calls add with
// each new one as soon as items yields it. New items make one message, with the body that body returns. Items that are no longer true are
// forgotten, and are new when they come again. Enqueue returns the number of new items, and its memory grows with that number alone. The
// state alone decides which are new, so a process that is killed between an outcome and Enqueue loses no message: its successor finds the
// same items. Errors: ErrOutboxFull; then the items count as not compared, and a later call finds them.
func (s *Outbox) Enqueue(ctx context.Context, syncID int64, event string, items iter.Seq2[string, error], add func(item string),
	body func() ([]byte, error)) (int, error) {
	c := comparison{add: add}
	var waiting int
	err := s.queryOne(ctx, `SELECT count(*)
		FROM outbox
		WHERE sync_id = $1
		  AND event = $2`, []any{syncID, event}, &waiting)
	c.full = waiting >= MaxMessages
	if err == nil {
		err = c.compare(items, s.reported(ctx, syncID, event))
	}
	if err == nil && len(c.fresh)+len(c.gone) > 0 {
		err = s.update(ctx, func(t *tx) error { return t.report(syncID, event, c, body) })
	}
	if err != nil {
		return 0, fmt.Errorf("enqueue message: %w", err)
	}
	return len(c.fresh), nil
}

// reported streams the items that were reported of a sync.
func (s *Outbox) reported(ctx context.Context, syncID int64, event string) iter.Seq2[string, error] {
	return pages[string]{
		subject: "reported items",
		query: `SELECT item
			FROM reported
			WHERE sync_id = $1
			  AND event = $2
			  AND item >= $3
			ORDER BY item
			LIMIT $4`,
		args:  []any{syncID, event},
		start: []any{[]byte{}},
		after: func(item string) []any { return []any{keyAfter(item)} },
		scan: func(scan func(...any) error) (string, error) {
			var item []byte
			err := scan(&item)
			return string(item), err
		},
	}.stream(ctx, s.db)
}

// A comparison of what is true now with what was reported.
type comparison struct {
	full        bool // there is no room for a message
	add         func(string)
	fresh, gone []string
}

// compare merges two sequences in byte order.
func (c *comparison) compare(items, reported iter.Seq2[string, error]) error {
	next, stop := iter.Pull2(reported)
	defer stop()
	before, err, more := next()
	previous := "" // before every item
	for item, failed := range items {
		switch {
		case failed != nil:
			return failed
		case item < previous:
			return fmt.Errorf("the items are not in order: %q comes after %q", item, previous)
		case item == previous:
			continue
		}
		previous = item
		for more && err == nil && before < item {
			c.gone = append(c.gone, before)
			before, err, more = next()
		}
		switch {
		case err != nil:
			return err
		case more && before == item:
			before, err, more = next()
			continue
		case c.full:
			return ErrOutboxFull
		}
		c.fresh = append(c.fresh, item)
		c.add(item)
	}
	for ; more && err == nil; before, err, more = next() {
		c.gone = append(c.gone, before)
	}
	return err
}

// report records the result of a comparison. It deletes the gone items, and writes the fresh items and their message. An item that
// another process has reported since the comparison is an error.
func (t *tx) report(syncID int64, event string, c comparison, body func() ([]byte, error)) error {
	err := eachChunk(c.gone, func(chunk []string) error {
		args := []any{syncID, event}
		for _, item := range chunk {
			args = append(args, []byte(item))
		}
		_, err := t.exec(`DELETE FROM reported
			WHERE sync_id = $1
			  AND event = $2
			  AND item IN `+valueRows(3, 1, len(chunk)), args...)
		return err
	})
	if err != nil || len(c.fresh) == 0 {
		return err
	}
	err = eachChunk(c.fresh, func(chunk []string) error {
		var args []any
		for _, item := range chunk {
			args = append(args, syncID, event, []byte(item))
		}
		n, err := t.exec(`INSERT INTO reported (sync_id, event, item)
			VALUES `+valueRows(1, len(chunk), 3)+`
			ON CONFLICT (sync_id, event, item) DO NOTHING`, args...)
		if err == nil && n < int64(len(chunk)) {
			err = errors.New("another process has reported an item since the comparison")
		}
		return err
	})
	if err != nil {
		return err
	}
	text, err := body()
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO outbox (sync_id, event, body, created_at)
		VALUES ($1, $2, $3, $4)`, syncID, event, text, now())
	return err
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
