package state

import "errors"

// An ending is the outcome of a batch.
type ending struct {
	state      int // batchAnswered, batchRefused, batchAbandoned or batchUncertain
	statusCode int // 0 if there was no answer
	code       string
	message    string
	// sameCause is set for an uncertain batch that ended for the cause of another one, which the breaker has counted: a process
	// that is killed loses the answers to all its requests, and that says little about the API.
	sameCause bool
}

// endBatch ends a batch. Every outcome is recorded here, whether an answer, a refusal, a loss, recovery, Forget or Import
// brings it, so that the journal, the contents and the breaker always change together. It returns how many batches of
// the destination became uncertain since the last accepted one.
func (t *tx) endBatch(b batchRow, e ending) (streak int, err error) {
	at := now()
	if e.state == batchUncertain {
		if err := t.keepMembers(b); err != nil {
			return 0, err
		}
		if _, err := t.exec(`UPDATE contents
			SET state = {content.uncertain}, since = $1, reason = $2
			WHERE destination_id = $3
			  AND state <> {content.completed}
			  AND state = {content.reserved}
			  AND batch_id = $4`, at, e.message, b.destination, b.id); err != nil {
			return 0, err
		}
	}
	if _, err := t.exec(`UPDATE batches
		SET state = $1, ended_at = $2, status_code = $3, code = $4, message = $5
		WHERE id = $6`, e.state, at, e.statusCode, e.code, e.message, b.id); err != nil {
		return 0, err
	}
	if b.resendOf != 0 {
		if err := t.endResends(`id IN (SELECT content_id FROM members WHERE batch_id = $1)`, b.id); err != nil {
			return 0, err
		}
	}
	return t.updateBreaker(b, e)
}

// endResends gives contents that meet a condition back to their first request, if the second one was lost or has failed and the answer
// to the first one has come.
func (t *tx) endResends(of string, args ...any) error {
	ids, err := t.ids(`SELECT id
		FROM contents
		WHERE `+of+`
		  AND state IN ({content.uncertain}, {content.failed})
		  AND resends > 0
		  AND prior_state > {content.uncertain}`, args...)
	for _, id := range ids {
		err = errors.Join(err, t.endResend(id))
	}
	return err
}

// keepMembers lists the batch's reserved contents as members: another batch may send them later.
func (t *tx) keepMembers(b batchRow) error {
	_, err := t.exec(`INSERT INTO members (batch_id, document_id, content_id)
		SELECT batch_id, document_id, id
		FROM contents
		WHERE destination_id = $1
		  AND state <> {content.completed}
		  AND state = {content.reserved}
		  AND batch_id = $2
		ON CONFLICT (batch_id, document_id) DO NOTHING`, b.destination, b.id)
	return err
}

// updateBreaker opens the breaker after an uncertain batch, and closes it after an answered one. Any other ending of the
// probe lets another probe begin.
func (t *tx) updateBreaker(b batchRow, e ending) (streak int, err error) {
	switch e.state {
	case batchUncertain:
		if b.state == batchUncertain {
			break // counted before
		}
		counted := 1
		if e.sameCause {
			counted = 0
		}
		_, err = t.exec(`UPDATE destinations
			SET uncertain_streak = uncertain_streak + $1,
				probe_batch = CASE WHEN probe_batch = $2 THEN 0 ELSE probe_batch END
			WHERE id = $3`, counted, b.id, b.destination)
	case batchAnswered:
		if !b.breaker.changedBy(b.bytes) {
			return 0, nil
		}
		_, err = t.exec(`UPDATE destinations
			SET uncertain_streak = 0, probe_batch = 0,
				largest_accepted = CASE WHEN largest_accepted < $1 THEN $1 ELSE largest_accepted END,
				smallest_refused = CASE WHEN smallest_refused <= $1 THEN 0 ELSE smallest_refused END
			WHERE id = $2`, b.bytes, b.destination)
		return 0, err
	default:
		_, err = t.exec(`UPDATE destinations
			SET probe_batch = 0
			WHERE id = $1
			  AND probe_batch = $2`, b.destination, b.id)
		if err == nil && e.statusCode == 413 {
			_, err = t.exec(`UPDATE destinations
				SET smallest_refused = $1
				WHERE id = $2
				  AND (smallest_refused = 0 OR smallest_refused > $1)`, b.bytes, b.destination)
		}
	}
	if err != nil {
		return 0, err
	}
	err = t.one(`SELECT uncertain_streak FROM destinations WHERE id = $1`, []any{b.destination}, &streak)
	return streak, err
}

// ownerIsDead is the condition that the owner in a column has no lease, or is the owner in the parameter own. In a file there are
// no owners, and every process that left work is dead.
func ownerIsDead(column, own string) string {
	return `(` + column + ` = ` + own + ` OR ` + column + ` NOT IN (SELECT id FROM owners WHERE expires_at > {db.now}))`
}

// claimOwner is the owner in the claim of a document.
const claimOwner = `claim / 16777216`

// recover ends the work of dead owners, and of the owner own, that was under way for the sync: batches that were not sealed are
// abandoned, sealed ones become uncertain, claims become pending. It returns the number of uncertain batches.
func (t *tx) recover(syncID, own int64) (uncertain int, err error) {
	// A claim whose commit was not seen may still come: the recovery waits for its transaction, which shares the row.
	if err := t.session.lockRow(`SELECT 1 FROM syncs WHERE id = $1`, syncID); err != nil {
		return 0, err
	}
	ids, err := t.ids(`SELECT id
		FROM batches
		WHERE sync_id = $1
		  AND state < {batch.answered}
		  AND `+ownerIsDead("owner", "$2")+`
		ORDER BY id`, syncID, own)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		b, err := t.batch(id)
		if err != nil {
			return 0, err
		}
		e := ending{state: batchAbandoned, message: "kbsync ended before it was sealed"}
		if b.state == batchSealed {
			e = ending{state: batchUncertain, message: "kbsync ended before the answer came", sameCause: uncertain > 0}
			uncertain++
		}
		if _, err := t.endBatch(b, e); err != nil {
			return 0, err
		}
	}
	_, err = t.exec(`UPDATE documents
		SET state = {doc.pending}, claim = 0
		WHERE sync_id = $1
		  AND state < {doc.linked}
		  AND state = {doc.claimed}
		  AND `+ownerIsDead(claimOwner, "$2"), syncID, own)
	return uncertain, err
}
