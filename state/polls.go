package state

import (
	"context"
	"fmt"
	"time"
)

const polledSources = `SELECT source_id, polls, status, created_at, outcome, next_poll
			FROM sources
			WHERE destination_id = $1
			  AND next_poll <> 0`

// duePolls are up to $3 sources that are due at $2, or whose next poll is after the farthest time $4. It reads two ranges of
// one index, because an OR would read all sources in training.
const duePolls = `SELECT *
		FROM (` + polledSources + ` AND next_poll > $4 ORDER BY next_poll, source_id LIMIT $3) AS wrong
		UNION ALL
		SELECT *
		FROM (` + polledSources + ` AND next_poll <= $2 ORDER BY next_poll, source_id LIMIT $3) AS due
		LIMIT $3`

// DueSources returns up to limit sources whose status is to be asked for, or none if none is due: the due ones and, to
// fill the request, those due within slack. Sources asked for together should stay together: give them one NextPoll.
func (s *Inventory) DueSources(ctx context.Context, destinationID int64, slack time.Duration, limit int) ([]DueSource, error) {
	var due []DueSource
	at, far := now(), farthest()
	err := s.query(ctx, duePolls, []any{destinationID, at + slack.Milliseconds(), limit, far}, func(scan func(...any) error) error {
		var d DueSource
		var created, next int64
		var outcome Outcome
		err := scan(&d.ID, &d.Polls, &d.Status, &created, &outcome, &next)
		d.CreatedAt, d.Stuck = fromMillis(created), outcome == TrainingStuck
		if len(due) > 0 || next <= at || next > far {
			due = append(due, d)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read due sources: %w", err)
	}
	return due, nil
}

// NextPoll returns when the next source of the destination is due; zero for never.
func (s *Inventory) NextPoll(ctx context.Context, destinationID int64) (time.Time, error) {
	var at, last int64
	const polled = `FROM sources
		WHERE destination_id = $1
		  AND next_poll <> 0`
	err := s.queryOne(ctx, `SELECT coalesce((SELECT min(next_poll) `+polled+`), 0), coalesce((SELECT max(next_poll) `+polled+`), 0)`,
		[]any{destinationID}, &at, &last)
	if err != nil {
		return time.Time{}, fmt.Errorf("read next poll: %w", err)
	}
	if last > farthest() {
		at = 1
	}
	return fromMillis(at), nil
}

// MakeStuckDue makes every stuck source of the destination due now.
func (s *Inventory) MakeStuckDue(ctx context.Context, destinationID int64) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE sources
			SET next_poll = $1
			WHERE destination_id = $2
			  AND next_poll <> 0
			  AND next_poll > $1
			  AND outcome = {outcome.stuck}`, now(), destinationID)
		return err
	})
	if err != nil {
		return fmt.Errorf("make stuck sources due: %w", err)
	}
	return nil
}

// RecordPolls records the statuses of sources, and updates the contents that depend on them. A source that MarkSourcesGone
// has acknowledged is not polled again.
func (s *Inventory) RecordPolls(ctx context.Context, destinationID int64, polls []Poll) error {
	err := s.update(ctx, func(t *tx) error {
		at := now()
		var knowledgeBase int64
		err := t.one(`SELECT knowledge_base FROM destinations WHERE id = $1`, []any{destinationID}, &knowledgeBase)
		if err != nil {
			return err
		}
		for _, p := range polls {
			if p.KnowledgeBase != 0 && p.KnowledgeBase != knowledgeBase {
				err = t.pollAgain(destinationID, p, at)
			} else {
				err = t.recordPoll(destinationID, p, at)
			}
			if err != nil {
				return fmt.Errorf("source %d: %w", p.SourceID, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record statuses: %w", err)
	}
	return nil
}

// foreignPollPause is the time until the next poll of a source whose status came from another knowledge base.
const foreignPollPause = 10 * time.Minute

// pollAgain counts a poll whose status belongs to another knowledge base.
func (t *tx) pollAgain(destinationID int64, p Poll, at int64) error {
	_, err := t.exec(`UPDATE sources
		SET polls = polls + 1, next_poll = $1
		WHERE destination_id = $2
		  AND source_id = $3
		  AND next_poll <> 0`, max(waitUntil(p.NextPoll), at+foreignPollPause.Milliseconds()), destinationID, p.SourceID)
	return err
}

func (t *tx) recordPoll(destinationID int64, p Poll, at int64) error {
	next, outcomeAt, seen := waitUntil(p.NextPoll), int64(0), int64(0)
	if p.Outcome.final() {
		next, outcomeAt = 0, at
	}
	if p.Seen {
		seen = at
	}
	var content int64
	var before Outcome
	if err := t.one(`SELECT content_id, outcome
		FROM sources
		WHERE destination_id = $1
		  AND source_id = $2`, []any{destinationID, p.SourceID}, &content, &before); err != nil {
		return err
	}
	if _, err := t.exec(`UPDATE sources
		SET status = CASE WHEN $1 = '' THEN status ELSE $1 END,
			outcome = $2,
			errors = CASE WHEN $3 = '' THEN errors ELSE $3 END,
			polls = polls + 1,
			next_poll = CASE WHEN acked_at <> 0 THEN 0 ELSE $4 END,
			outcome_at = $5,
			seen_at = CASE WHEN $6 = 0 THEN seen_at ELSE $6 END
		WHERE destination_id = $7
		  AND source_id = $8`,
		p.Status, int(p.Outcome), p.Errors, next, outcomeAt, seen, destinationID, p.SourceID); err != nil {
		return err
	}
	if before == p.Outcome {
		return nil
	}
	return t.updateContent(content, at)
}

// updateContent gives a content the state that follows from the sources of its last batch.
func (t *tx) updateContent(content, at int64) error {
	var sum outcomeSum
	n, gone := 0, false
	err := t.each(`SELECT o.outcome, o.errors, o.acked_at <> 0
		FROM contents c
		JOIN sources o ON o.content_id = c.id AND o.batch_id = c.batch_id
		WHERE c.id = $1
		  AND c.state IN ({content.training}, {content.stuck}, {content.completed}, {content.failed})`,
		[]any{content}, func(scan func(...any) error) error {
			var o Outcome
			var errors string
			var acked bool
			err := scan(&o, &errors, &acked)
			sum.add(o, errors)
			gone = gone || acked
			n++
			return err
		})
	if err != nil || n == 0 {
		return err
	}
	if gone {
		_, err := t.reopenContent(content, at)
		return err
	}
	state, reason := sum.state()
	_, err = t.exec(`UPDATE contents
		SET state = $1, reason = $2, since = $3
		WHERE id = $4
		  AND state <> $1`, state, reason, at, content)
	return err
}

// AnySource returns the id of a source of the destination, to test the API with; 0 if there is none.
func (s *Inventory) AnySource(ctx context.Context, destinationID int64) (int64, error) {
	var id int64
	err := s.queryOne(ctx, `SELECT coalesce(max(source_id), 0)
		FROM sources
		WHERE destination_id = $1
		  AND acked_at = 0`, []any{destinationID}, &id)
	if err != nil {
		return 0, fmt.Errorf("read a source: %w", err)
	}
	return id, nil
}

// MarkSourcesGone records that sources are gone from the knowledge base, because a status answer lacks them or a person
// reported it. Documents whose content has such a source of its last batch become pending; it returns how many. A source
// that is not in the inventory is an error that Is ErrNotFound, and then nothing is recorded.
func (s *Inventory) MarkSourcesGone(ctx context.Context, destinationID int64, sourceIDs []int64) (pending int, err error) {
	err = s.update(ctx, func(t *tx) error {
		pending = 0
		for _, id := range sourceIDs {
			n, err := t.markSourceGone(destinationID, id)
			if err != nil {
				return fmt.Errorf("source %d: %w", id, err)
			}
			pending += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("mark sources gone: %w", err)
	}
	return pending, nil
}

func (t *tx) markSourceGone(destinationID, id int64) (pending int, err error) {
	var content, batch, lastBatch int64
	err = t.one(`SELECT o.content_id, o.batch_id, coalesce(c.batch_id, 0)
		FROM sources o
		LEFT JOIN contents c ON c.id = o.content_id
		WHERE o.destination_id = $1
		  AND o.source_id = $2`, []any{destinationID, id}, &content, &batch, &lastBatch)
	if err != nil {
		return 0, err
	}
	at := now()
	if _, err := t.exec(`UPDATE sources
		SET acked_at = $1, next_poll = 0
		WHERE destination_id = $2
		  AND source_id = $3
		  AND acked_at = 0`, at, destinationID, id); err != nil {
		return 0, err
	}
	if batch != lastBatch {
		return 0, nil
	}
	return t.reopenContent(content, at)
}

// reopenContent makes a content that the knowledge base does not have any more free to be sent, and its documents pending.
func (t *tx) reopenContent(content, at int64) (pending int, err error) {
	n, err := t.exec(`UPDATE contents
		SET state = {content.open}, reason = '', since = $1
		WHERE id = $2
		  AND state IN ({content.open}, {content.training}, {content.stuck}, {content.completed}, {content.failed})`, at, content)
	if err != nil || n == 0 {
		return 0, err
	}
	n, err = t.exec(`UPDATE documents
		SET state = {doc.pending}, claim = 0, attempts = 0, next_attempt = 0, changed_at = $1
		WHERE content_id = $2
		  AND state = {doc.linked}`, at, content)
	return int(n), err
}
