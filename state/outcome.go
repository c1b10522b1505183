package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Accept records a sealed batch's answer: its sources enter the inventory, durably, and the breaker closes. It may be
// called again after an error. Errors: ErrBatchEnded if the batch was never sealed, or has its answer.
func (s *Journal) Accept(ctx context.Context, batchID int64, answer Answer) error {
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		// The answer may come after recovery took the batch for uncertain: its sources must be recorded all the same.
		if b.state != batchSealed && b.state != batchUncertain {
			return ErrBatchEnded
		}
		return t.accept(b, answer)
	})
	if err != nil {
		return fmt.Errorf("record answer: %w", err)
	}
	s.forget(batchID)
	return nil
}

func (t *tx) accept(b batchRow, answer Answer) error {
	ms, err := t.members(b.id)
	if err != nil {
		return err
	}
	at := now()
	// Nearly always all members are in training: one statement for them.
	if _, err := t.exec(`UPDATE contents
		SET state = {content.training}, reason = '', since = $1
		WHERE id IN (SELECT content_id FROM members WHERE batch_id = $2)
		  AND batch_id = $2
		  AND state IN ({content.reserved}, {content.uncertain})`, at, b.id); err != nil {
		return err
	}
	for _, m := range ms {
		var sources []SourceAnswer
		if m.position < len(answer.Sources) {
			sources = answer.Sources[m.position]
		}
		if err := t.acceptMember(b, m, sources, at, answer.NextPoll); err != nil {
			return err
		}
	}
	for _, src := range answer.Unasked {
		if err := t.addSource(b, member{position: -1}, src, at, answer.NextPoll); err != nil {
			return err
		}
	}
	if _, err := t.exec(`UPDATE batches
		SET state = {batch.answered}, ended_at = $1, status_code = $2
		WHERE id = $3`, at, answer.StatusCode, b.id); err != nil {
		return err
	}
	_, err = t.exec(`UPDATE destinations
		SET uncertain_streak = 0, probe_batch = 0,
			largest_accepted = CASE WHEN largest_accepted < $1 THEN $1 ELSE largest_accepted END,
			smallest_refused = CASE WHEN smallest_refused <= $1 THEN 0 ELSE smallest_refused END
		WHERE id = $2
		  AND (uncertain_streak <> 0 OR largest_accepted < $1 OR smallest_refused BETWEEN 1 AND $1)`, b.bytes, b.destination)
	return err
}

// acceptMember adds the member's sources, and gives its content the state that follows from them.
func (t *tx) acceptMember(b batchRow, m member, sources []SourceAnswer, at int64, nextPoll time.Time) error {
	var sum outcomeSum
	for _, src := range sources {
		if err := t.addSource(b, m, src, at, nextPoll); err != nil {
			return err
		}
		sum.add(src.Outcome, src.Errors)
	}
	state, reason := sum.state()
	if len(sources) == 0 {
		state, reason = contentUncertain, "the answer did not mention the document"
	}
	if state == contentTraining {
		return nil
	}
	_, err := t.exec(`UPDATE contents
		SET state = $1, reason = $2, since = $3
		WHERE id = $4
		  AND batch_id = $5
		  AND state = {content.training}`, state, reason, at, m.content, b.id)
	return err
}

// addSource adds a source to the inventory. A server that returns an id twice means the same source.
func (t *tx) addSource(b batchRow, m member, src SourceAnswer, at int64, nextPoll time.Time) error {
	poll, outcomeAt := max(millis(nextPoll), 1), int64(0)
	if src.Outcome.final() {
		poll, outcomeAt = 0, at
	}
	_, err := t.exec(`INSERT INTO sources (destination_id, source_id, content_id, batch_id, position, name, type, status,
			outcome, errors, created_at, outcome_at, next_poll, seen_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $11)
		ON CONFLICT (destination_id, source_id) DO UPDATE
		SET content_id = excluded.content_id, batch_id = excluded.batch_id, position = excluded.position, name = excluded.name,
			type = excluded.type, status = excluded.status, outcome = excluded.outcome, errors = excluded.errors,
			outcome_at = excluded.outcome_at, next_poll = excluded.next_poll, seen_at = excluded.seen_at, acked_at = 0`,
		b.destination, src.ID, m.content, b.id, m.position, src.Name, src.Type, src.Status,
		int(src.Outcome), src.Errors, at, outcomeAt, poll)
	return err
}

// An outcomeSum sums up the sources of one content.
type outcomeSum struct {
	training, stuck, failed bool
	reason                  string
}

func (y *outcomeSum) add(o Outcome, errors string) {
	switch o {
	case InTraining:
		y.training = true
	case TrainingStuck:
		y.stuck = true
	case TrainingFailed:
		y.failed = true
		if y.reason == "" {
			y.reason = errors
		}
	}
}

// state returns the content's state, and the reason of a failed one: a content is completed when all its sources are.
func (y *outcomeSum) state() (int, string) {
	switch {
	case y.training:
		return contentTraining, ""
	case y.stuck:
		return contentStuck, ""
	case y.failed && y.reason == "":
		return contentFailed, "ReplyCX reported that its training failed"
	case y.failed:
		return contentFailed, y.reason
	default:
		return contentCompleted, ""
	}
}

// Refuse ends a batch, sealed or not, of which the knowledge base has nothing. Contents get their earlier state back.
func (s *Journal) Refuse(ctx context.Context, batchID int64, refusal Refusal) error {
	own := s.remembered(batchID)
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		switch {
		case err != nil:
			return err
		case b.state != batchOpen && b.state != batchSealed:
			return ErrBatchEnded
		case own.members == nil:
			return errors.New("the batch was begun by another process")
		}
		return t.refuse(b, own.members, refusal)
	})
	if err != nil {
		return fmt.Errorf("end batch: %w", err)
	}
	s.forget(batchID)
	return nil
}

func (t *tx) refuse(b batchRow, docs []ClaimedDocument, refusal Refusal) error {
	end := batchRefused
	if b.state == batchOpen {
		end = batchAbandoned
		for _, m := range docs {
			if err := t.endUpload(m, `state = {doc.claimed} AND claim = $2`, m.Claim, refusal, m.Forced); err != nil {
				return err
			}
		}
	} else {
		ms, err := t.members(b.id)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if err := t.unreserve(b, m, docs[m.position], refusal); err != nil {
				return err
			}
		}
	}
	if _, err := t.exec(`UPDATE batches
		SET state = $1, ended_at = $2, status_code = $3, code = $4, message = $5
		WHERE id = $6`, end, now(), refusal.StatusCode, refusal.Code, refusal.Message, b.id); err != nil {
		return err
	}
	if refusal.StatusCode == 413 {
		if _, err := t.exec(`UPDATE destinations
			SET smallest_refused = $1
			WHERE id = $2
			  AND (smallest_refused = 0 OR smallest_refused > $1)`, b.bytes, b.destination); err != nil {
			return err
		}
	}
	_, err := t.exec(`UPDATE destinations
		SET probe_batch = 0
		WHERE id = $1
		  AND probe_batch = $2`, b.destination, b.id)
	return err
}

// endUpload gives a document the state that the refusal's disposition asks for, if it still matches where ($2 is arg).
func (t *tx) endUpload(m ClaimedDocument, where string, arg any, refusal Refusal, forced bool) error {
	var err error
	switch refusal.Disposition {
	case Retry:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0, forced = $3, attempts = attempts + 1, next_attempt = $4
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, forced, millis(refusal.NextAttempt))
	case Requeue:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0, forced = $3
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, forced)
	case Keep:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.claimed}, claim = $3, forced = $4
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, m.Claim, forced)
	case Fail:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.refused}, claim = 0, forced = 0, reason = $3
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, refusal.Message)
	}
	return err
}

// unreserve ends the reservation of a sealed member's content, and with it the wait of the documents that share it.
func (t *tx) unreserve(b batchRow, m member, doc ClaimedDocument, refusal Refusal) error {
	var state, prior int
	var batch, priorBatch int64
	err := t.one(`SELECT state, batch_id, prior_state, prior_batch
		FROM contents
		WHERE id = $1`, []any{m.content}, &state, &batch, &prior, &priorBatch)
	if err != nil || batch != b.id || state != contentReserved {
		return err
	}
	if refusal.Disposition == Fail {
		_, err := t.exec(`UPDATE contents
			SET state = {content.failed}, reason = $1, since = $2
			WHERE id = $3`, refusal.Message, now(), m.content)
		return err
	}
	if prior == contentOpen {
		// The documents that share the content are pending again, with the member.
		if _, err := t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0
			WHERE content_id = $1
			  AND state = {doc.linked}
			  AND id <> $2`, m.content, m.document); err != nil {
			return err
		}
	}
	if _, err := t.exec(`UPDATE contents
		SET state = $1, batch_id = $2, prior_state = 0, prior_batch = 0, resends = 0, since = $3
		WHERE id = $4`, prior, priorBatch, now(), m.content); err != nil {
		return err
	}
	if b.resendOf != 0 && refusal.Disposition != Keep {
		return nil // uncertain as before, and due to be sent again later
	}
	// A document that changed meanwhile is not linked to the content any more.
	return t.endUpload(doc, `state = {doc.linked} AND content_id = $2`, m.content, refusal, prior != contentOpen && b.resendOf == 0)
}

// MarkUncertain ends a sealed batch whose answer was lost: its documents are uncertain, and the breaker opens. It returns how
// many batches of the destination became uncertain since the last accepted one.
func (s *Journal) MarkUncertain(ctx context.Context, batchID int64, statusCode int, reason string) (streak int, err error) {
	err = s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		if b.state != batchSealed {
			return ErrBatchEnded
		}
		if err := t.markUncertain(batchID, statusCode, reason); err != nil {
			return err
		}
		return t.one(`UPDATE destinations
			SET uncertain_streak = uncertain_streak + 1,
				probe_batch = CASE WHEN probe_batch = $1 THEN 0 ELSE probe_batch END
			WHERE id = $2
			RETURNING uncertain_streak`, []any{batchID, b.destination}, &streak)
	})
	if err != nil {
		return 0, fmt.Errorf("record lost answer: %w", err)
	}
	s.forget(batchID)
	return streak, nil
}

// markUncertain marks a sealed batch and its contents uncertain.
func (t *tx) markUncertain(batchID int64, statusCode int, reason string) error {
	at := now()
	if _, err := t.exec(`UPDATE contents
		SET state = {content.uncertain}, since = $1, reason = $2
		WHERE state <> {content.completed}
		  AND state = {content.reserved}
		  AND batch_id = $3
		  AND id IN (SELECT content_id FROM members WHERE batch_id = $3)`, at, reason, batchID); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE batches
		SET state = {batch.uncertain}, ended_at = $1, status_code = $2, message = $3
		WHERE id = $4`, at, statusCode, reason, batchID)
	return err
}
