package state

import (
	"context"
	"errors"
	"fmt"
)

// A member is a document of a sealed batch.
type member struct {
	position          int
	document, content int64
}

func (t *tx) members(batchID int64) ([]member, error) {
	var ms []member
	err := t.each(`SELECT position, document_id, content_id
		FROM members
		WHERE batch_id = $1
		ORDER BY position`, []any{batchID}, func(scan func(...any) error) error {
		var m member
		err := scan(&m.position, &m.document, &m.content)
		ms = append(ms, m)
		return err
	})
	return ms, err
}

// A batchRow is a row of the journal, as far as its seal and its outcome need it.
type batchRow struct {
	id, sync, destination, resendOf, bytes int64
	state                                  int
}

func (t *tx) batch(id int64) (batchRow, error) {
	b := batchRow{id: id}
	err := t.one(`SELECT sync_id, destination_id, state, resend_of, bytes
		FROM batches
		WHERE id = $1`, []any{id}, &b.sync, &b.destination, &b.state, &b.resendOf, &b.bytes)
	return b, err
}

// Seal reserves the members' contents and marks the batch sealed, in one durable transaction; after it the request may be
// completed. Seals are by member position. Errors: *SealError, ErrBreakerOpen, ErrBatchEnded, ErrMoved, ErrLockLost; then
// nothing was written.
func (s *Journal) Seal(ctx context.Context, batchID int64, seals []Seal) error {
	own := s.remembered(batchID)
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		if err := s.inPlace(t, b.sync); err != nil {
			return err
		}
		if b.state != batchOpen || own.members == nil {
			return ErrBatchEnded
		}
		if len(seals) != len(own.members) {
			return fmt.Errorf("batch %d has %d members, and %d seals", batchID, len(own.members), len(seals))
		}
		var streak int
		var probe int64
		err = t.one(`SELECT uncertain_streak, probe_batch
			FROM destinations
			WHERE id = $1`, []any{b.destination}, &streak, &probe)
		if err != nil {
			return err
		}
		if streak > 0 && probe != batchID {
			return ErrBreakerOpen
		}
		return t.seal(b, own, seals)
	})
	if err != nil {
		return fmt.Errorf("seal batch: %w", err)
	}
	return nil
}

// seal seals every member, or returns a *SealError, which undoes the transaction.
func (t *tx) seal(b batchRow, own begun, seals []Seal) error {
	at := now()
	var fail SealError
	for i, m := range own.members {
		if err := t.readMark(&m); err != nil {
			return err
		}
		content, free, err := t.reserve(b, m, seals[i], own.sharing, at)
		if err != nil {
			return err
		}
		if !free {
			fail.Known = append(fail.Known, i)
			continue
		}
		held, err := t.sealMember(b, i, m, content)
		if err != nil {
			return err
		}
		if !held {
			fail.Lost = append(fail.Lost, i)
		}
	}
	if len(fail.Lost)+len(fail.Known) > 0 {
		return &fail
	}
	_, err := t.exec(`UPDATE batches
		SET state = {batch.sealed}, sealed_at = $1
		WHERE id = $2`, at, b.id)
	return err
}

// readMark reads a claimed document's mark of a reindex again: another sync may have uploaded the content since the claim,
// which clears the mark. A new mark ends the claim.
func (t *tx) readMark(m *ClaimedDocument) error {
	if !m.Forced {
		return nil
	}
	return t.one(`SELECT forced FROM documents WHERE id = $1`, []any{m.DocumentID}, &m.Forced)
}

// sealMember links the member's document to the reserved content. It reports whether the claim was still held.
func (t *tx) sealMember(b batchRow, position int, m ClaimedDocument, content int64) (held bool, err error) {
	if m.content != 0 && m.content != content {
		if err := t.keepPastContents(`d.id = $2`, m.DocumentID); err != nil {
			return false, err
		}
	}
	n, err := t.exec(`UPDATE documents
		SET state = {doc.linked}, content_id = $1, forced = 0
		WHERE id = $2
		  AND state = {doc.claimed}
		  AND claim = $3`, content, m.DocumentID, m.Claim)
	if err != nil || n == 0 {
		return false, err
	}
	if _, err := t.exec(`INSERT INTO members (batch_id, position, document_id, content_id)
		VALUES ($1, $2, $3, $4)`, b.id, position, m.DocumentID, content); err != nil {
		return false, err
	}
	if m.Forced {
		// One upload a content: its other documents wait for this one.
		_, err = t.exec(`UPDATE documents
			SET forced = 0
			WHERE content_id = $1
			  AND forced <> 0`, content)
	}
	return true, err
}

// reserve gives the content to the batch, if it is free to be sent.
func (t *tx) reserve(b batchRow, m ClaimedDocument, seal Seal, sharing Sharing,
	at int64) (content int64, free bool, err error) {
	scope, err := t.contentScope(sharing, b.sync, m.Key)
	if err != nil {
		return 0, false, err
	}
	err = t.one(`INSERT INTO contents (destination_id, sha256, scope, size, state, batch_id, since)
		VALUES ($1, $2, $3, $4, {content.reserved}, $5, $6)
		ON CONFLICT (destination_id, sha256, scope) DO NOTHING
		RETURNING id`, []any{b.destination, seal.SHA256[:], scope, seal.Size, b.id, at}, &content)
	if !errors.Is(err, ErrNotFound) {
		return content, err == nil, err
	}
	var c contentRow
	err = t.one(`SELECT id, state, batch_id, resends
		FROM contents
		WHERE destination_id = $1
		  AND sha256 = $2
		  AND scope = $3`, []any{b.destination, seal.SHA256[:], scope}, &c.id, &c.state, &c.batch, &c.resends)
	if err != nil {
		return 0, false, err
	}
	free, err = t.reservable(b, m, c, sharing)
	if err != nil || !free {
		return c.id, false, err
	}
	resends := 0
	if c.isResendOf(b) {
		resends = 1
	}
	_, err = t.exec(`UPDATE contents
		SET state = {content.reserved}, batch_id = $1, prior_state = $2, prior_batch = $3, resends = $4, since = $5, reason = ''
		WHERE id = $6`, b.id, c.state, c.batch, resends, at, c.id)
	return c.id, err == nil, err
}

// A contentRow is a content, as far as a reservation needs it.
type contentRow struct {
	id, batch      int64
	state, resends int
}

// isResendOf reports whether b sends an uncertain content again, for the first time.
func (c contentRow) isResendOf(b batchRow) bool {
	return c.state == contentUncertain && c.resends == 0 && b.resendOf != 0 && c.batch == b.resendOf
}

// reservable reports whether the batch may send a content that is in the table.
func (t *tx) reservable(b batchRow, m ClaimedDocument, c contentRow, sharing Sharing) (bool, error) {
	switch c.state {
	case contentOpen:
		return true, nil
	case contentReserved:
		return false, nil
	case contentUncertain:
		return c.isResendOf(b) || m.Forced, nil
	case contentFailed:
		return m.Forced, nil
	}
	if m.Forced {
		return true, nil
	}
	if !sharing.UploadRenamed {
		return false, nil
	}
	// A renamed document gets its own source, but only while no other document has the content.
	live, err := t.contentLive(c.id)
	return !live, err
}
