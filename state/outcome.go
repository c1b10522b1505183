package state

import (
	"context"
	"fmt"
)

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

// Refuse ends a batch, sealed or not, of which the knowledge base has nothing. Contents get their earlier state back. A batch
// that has no row in the journal yet gets one.
func (s *Journal) Refuse(ctx context.Context, u *Upload, refusal Refusal) error {
	var id int64
	err := s.update(ctx, func(t *tx) error {
		b, err := t.uploadRow(u, alone)
		switch {
		case err != nil:
			return err
		case u.failed && (b.state == batchRefused || b.state == batchAbandoned):
			id = b.id
			return nil
		case b.state != batchOpen && b.state != batchSealed:
			return ErrBatchEnded
		case b.id == 0:
			if b.id, err = t.insertBatch(b, u, batchOpen, 0); err != nil {
				return err
			}
		}
		id = b.id
		return t.refuse(b, u, refusal)
	})
	if err != nil {
		u.failed = true
		return fmt.Errorf("end batch: %w", err)
	}
	u.id = id
	return nil
}

func (t *tx) refuse(b batchRow, u *Upload, refusal Refusal) error {
	end := batchRefused
	if b.state == batchOpen {
		end = batchAbandoned
		for _, m := range u.spec.Members {
			if err := t.endUpload(m, `state = {doc.claimed} AND claim = $2`, m.Claim, refusal); err != nil {
				return err
			}
		}
	} else {
		if err := t.keepMembers(b); err != nil {
			return err
		}
		contents, err := t.contentsOf(b, u)
		if err != nil {
			return err
		}
		for i, m := range u.spec.Members {
			if err := t.unreserve(b, contents[i], m, refusal); err != nil {
				return err
			}
		}
	}
	_, err := t.endBatch(b, ending{state: end, statusCode: refusal.StatusCode, code: refusal.Code, message: refusal.Message})
	return err
}

// contentsOf returns the contents of the members of a sealed batch, by position. The process does not know them if the connection was lost
// while the seal was committed.
func (t *tx) contentsOf(b batchRow, u *Upload) ([]int64, error) {
	if u.contents != nil {
		return u.contents, nil
	}
	contents := make([]int64, len(u.spec.Members))
	for i, m := range u.spec.Members {
		if err := t.one(`SELECT content_id
			FROM members
			WHERE batch_id = $1
			  AND document_id = $2`, []any{b.id, m.DocumentID}, &contents[i]); err != nil {
			return nil, err
		}
	}
	return contents, nil
}

// endUpload gives a document the state that the refusal's disposition asks for, if it still matches where ($2 is arg).
func (t *tx) endUpload(m ClaimedDocument, where string, arg any, refusal Refusal) error {
	var err error
	switch refusal.Disposition {
	case Retry:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0, attempts = attempts + 1, next_attempt = $3
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, waitUntil(refusal.NextAttempt))
	case Requeue:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0
			WHERE id = $1
			  AND `+where, m.DocumentID, arg)
	case Keep:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.claimed}, claim = $3
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, m.Claim)
	case Fail:
		_, err = t.exec(`UPDATE documents
			SET state = {doc.refused}, claim = 0, forced = 0, reason = $3
			WHERE id = $1
			  AND `+where, m.DocumentID, arg, refusal.Message)
	}
	return err
}

// unreserve ends the reservation of a sealed member's content, and with it the wait of the documents that share it.
func (t *tx) unreserve(b batchRow, content int64, doc ClaimedDocument, refusal Refusal) error {
	var state, prior, resends int
	var batch int64
	err := t.one(`SELECT state, batch_id, prior_state, resends
		FROM contents
		WHERE id = $1`, []any{content}, &state, &batch, &prior, &resends)
	if err != nil || batch != b.id || state != contentReserved {
		return err
	}
	if resends > 0 && prior != contentUncertain {
		return t.endResend(content) // the answer to the first request came after all
	}
	if refusal.Disposition == Fail {
		_, err := t.exec(`UPDATE contents
			SET state = {content.failed}, reason = $1, since = $2, source_id = 0, next_poll = 0
			WHERE id = $3`, refusal.Message, now(), content)
		if err != nil {
			return err
		}
		return t.contentFailed(content)
	}
	if prior == contentOpen {
		// The documents that share the content are pending again, with the member.
		if _, err := t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0
			WHERE content_id = $1
			  AND state = {doc.linked}
			  AND id <> $2`, content, doc.DocumentID); err != nil {
			return err
		}
	}
	if err := t.restoreContent(content); err != nil {
		return err
	}
	if b.resendOf != 0 && refusal.Disposition != Keep {
		return nil // uncertain as before, and due to be sent again later
	}
	if prior != contentOpen && b.resendOf == 0 {
		// The content was sent again on purpose. The purpose remains.
		if _, err := t.exec(`UPDATE documents
			SET forced = 1
			WHERE id = $1
			  AND state = {doc.linked}
			  AND content_id = $2`, doc.DocumentID, content); err != nil {
			return err
		}
	}
	// A document that changed meanwhile is not linked to the content any more.
	if err := t.endUpload(doc, `state = {doc.linked} AND content_id = $2`, content, refusal); err != nil {
		return err
	}
	// The outcome of its earlier sources may have come while it was reserved.
	return t.updateContent(content, now())
}

// restoreContent gives a content the state and the batch back that it had before it was sent again.
func (t *tx) restoreContent(content int64) error {
	_, err := t.exec(`UPDATE contents
		SET state = prior_state, batch_id = prior_batch, prior_state = 0, prior_batch = 0, resends = 0, since = $1,
			source_id = 0, next_poll = 0, document_id = coalesce(
				(SELECT min(o.document_id) FROM sources o WHERE o.content_id = contents.id AND o.batch_id = contents.prior_batch),
				(SELECT min(m.document_id) FROM members m WHERE m.batch_id = contents.prior_batch AND m.content_id = contents.id),
				document_id)
		WHERE id = $2`, now(), content)
	return err
}

// endResend restores a content whose second request was not accepted, after the answer to the first one came. It is not sent a third
// time, and of the first request nothing is uncertain any more.
func (t *tx) endResend(content int64) error {
	if _, err := t.exec(`DELETE FROM members
		WHERE content_id = $1
		  AND batch_id IN (SELECT prior_batch FROM contents WHERE id = $1)`, content); err != nil {
		return err
	}
	if err := t.restoreContent(content); err != nil {
		return err
	}
	// The outcome of its sources may have come while it was reserved.
	return t.updateContent(content, now())
}

// MarkUncertain ends a sealed batch whose answer was lost: its documents are uncertain, and the breaker opens. It returns how
// many batches of the destination became uncertain since the last accepted one.
func (s *Journal) MarkUncertain(ctx context.Context, u *Upload, statusCode int, reason string) (streak int, err error) {
	err = s.update(ctx, func(t *tx) error {
		b, err := t.uploadRow(u, alone)
		if err != nil {
			return err
		}
		if b.state != batchSealed && !(u.failed && b.state == batchUncertain) {
			return ErrBatchEnded
		}
		streak, err = t.endBatch(b, ending{state: batchUncertain, statusCode: statusCode, message: reason})
		return err
	})
	if err != nil {
		u.failed = true
		return 0, fmt.Errorf("record lost answer: %w", err)
	}
	return streak, nil
}
