package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A batchRow is a row of the journal, as far as its seal and its outcome need it.
type batchRow struct {
	id, sync, destination, resendOf, bytes int64
	state                                  int
	knowledgeBase                          int64
	breaker                                breakerRow
}

// A breakerRow is what a destination's row says about its breaker and the size of its requests.
type breakerRow struct {
	streak                   int
	probe                    int64
	largest, smallestRefused int64
}

// destinationColumns are the columns of a destination t that destinationFields scans.
const destinationColumns = `t.knowledge_base, t.uncertain_streak, t.probe_batch, t.largest_accepted, t.smallest_refused`

func (b *batchRow) destinationFields() []any {
	k := &b.breaker
	return []any{&b.knowledgeBase, &k.streak, &k.probe, &k.largest, &k.smallestRefused}
}

// changedBy reports whether the acceptance of so many bytes changes the row.
func (b breakerRow) changedBy(bytes int64) bool {
	return b.streak != 0 || b.largest < bytes || b.smallestRefused > 0 && b.smallestRefused <= bytes
}

func (t *tx) batch(id int64) (batchRow, error) {
	b := batchRow{id: id}
	err := t.one(`SELECT b.sync_id, b.destination_id, b.state, b.resend_of, b.bytes, `+destinationColumns+`
		FROM batches b
		JOIN destinations t ON t.id = b.destination_id
		WHERE b.id = $1`, []any{id},
		append([]any{&b.sync, &b.destination, &b.state, &b.resendOf, &b.bytes}, b.destinationFields()...)...)
	return b, err
}

// uploadRow locks the destination of an upload and returns the upload's row. The row of an upload that has none yet has the id 0.
func (t *tx) uploadRow(u *Upload, mode lockMode) (b batchRow, err error) {
	if err := t.lockSync(u.spec.SyncID, mode); err != nil {
		return batchRow{}, err
	}
	if u.id != 0 {
		return t.batch(u.id)
	}
	b = batchRow{sync: u.spec.SyncID, resendOf: u.spec.ResendOf, bytes: u.spec.Bytes, state: batchOpen}
	err = t.one(`SELECT t.id, `+destinationColumns+`
		FROM syncs s
		JOIN destinations t ON t.id = s.destination_id
		WHERE s.id = $1`, []any{b.sync}, append([]any{&b.destination}, b.destinationFields()...)...)
	return b, err
}

// updateUpload runs fn with the row of an upload, see together.
func (s *Journal) updateUpload(ctx context.Context, u *Upload, fn func(*tx, batchRow, lockMode) error) error {
	return s.db.together(func(mode lockMode) error {
		return s.update(ctx, func(t *tx) error {
			b, err := t.uploadRow(u, mode)
			if err != nil {
				return err
			}
			return fn(t, b, mode)
		})
	})
}

// Seal reserves the members' contents and writes the batch to the journal as sealed, in one durable transaction; after it
// the request may be completed. Seals are by member position. Errors: *SealError, ErrBreakerOpen, ErrBatchEnded, ErrMoved,
// ErrLockLost, ErrLeaseLost; then nothing was written.
func (s *Journal) Seal(ctx context.Context, u *Upload, seals []Seal) error {
	if len(seals) != len(u.spec.Members) {
		return fmt.Errorf("seal batch: it has %d members, and %d seals", len(u.spec.Members), len(seals))
	}
	var id int64
	var contents []int64
	err := s.updateUpload(ctx, u, func(t *tx, b batchRow, mode lockMode) (err error) {
		if u.contents != nil {
			return ErrBatchEnded
		}
		if err := s.inPlace(t, b.sync); err != nil {
			return err
		}
		if err := s.owns(t, u.owner); err != nil {
			return err
		}
		if b.state != batchOpen {
			return ErrBatchEnded
		}
		if b.breaker.streak > 0 && (u.id == 0 || b.breaker.probe != u.id) {
			return ErrBreakerOpen
		}
		if mode == together && !u.onlyNew() {
			return errAlone
		}
		id, contents, err = t.seal(b, u, seals, mode)
		return err
	})
	if err != nil {
		return fmt.Errorf("seal batch: %w", err)
	}
	u.id, u.contents = id, contents
	return nil
}

// onlyNew reports whether no member had a content before, or is sent again on purpose.
func (u *Upload) onlyNew() bool {
	return !slices.ContainsFunc(u.spec.Members, func(m ClaimedDocument) bool { return m.content != 0 || m.Forced })
}

// seal seals every member, or returns a *SealError, which undoes the transaction. It returns the batch's number and the
// members' contents.
func (t *tx) seal(b batchRow, u *Upload, seals []Seal, mode lockMode) (id int64, contents []int64, err error) {
	at := now()
	if b.id == 0 {
		b.id, err = t.insertBatch(b, u, batchSealed, at)
	} else {
		_, err = t.exec(`UPDATE batches
			SET state = {batch.sealed}, sealed_at = $1
			WHERE id = $2`, at, b.id)
	}
	if err != nil {
		return 0, nil, err
	}
	r := reservation{tx: t, mode: mode, batch: b, upload: u, seals: seals, at: at, contents: make([]int64, len(seals))}
	if err := r.reserve(); err != nil {
		return 0, nil, err
	}
	if len(r.fail.Known) == 0 {
		if err := r.keepCores(); err != nil {
			return 0, nil, err
		}
		if err := r.link(); err != nil {
			return 0, nil, err
		}
	}
	if len(r.fail.Lost)+len(r.fail.Known) > 0 {
		return 0, nil, &r.fail
	}
	return b.id, r.contents, nil
}

// A reservation is a batch while it is sealed.
type reservation struct {
	tx       *tx
	mode     lockMode
	batch    batchRow
	upload   *Upload
	seals    []Seal
	at       int64
	contents []int64 // by position
	fail     SealError
}

// reserve gives the members' contents to the batch, as far as they are free to be sent.
func (r *reservation) reserve() error {
	keyOf, err := newKeyer(r.upload.spec.Sharing, r.batch.sync, r.tx.one)
	if err != nil {
		return err
	}
	keys := make([]contentKey, len(r.seals))
	for i, m := range r.upload.spec.Members {
		keys[i] = keyOf(m.Key, r.seals[i].SHA256)
	}
	positions := make([]int, 0, len(keys))
	taken := make(map[contentKey]bool, len(keys))
	for i, k := range keys {
		if taken[k] {
			r.fail.Known = append(r.fail.Known, i)
			continue
		}
		taken[k] = true
		positions = append(positions, i)
	}
	// Most contents are new. The insertion finds out which ones, and needs no lookup before.
	return eachChunk(positions, func(chunk []int) error {
		n, err := r.insert(keys, chunk)
		if err != nil || n == len(chunk) {
			return err
		}
		return r.reserveKnown(keys, chunk)
	})
}

// reserveKnown reserves those contents that the destination has, if they are free to be sent.
func (r *reservation) reserveKnown(keys []contentKey, positions []int) error {
	if r.mode == together {
		return errAlone
	}
	var old []int
	var oldKeys []contentKey
	for _, i := range positions {
		if r.contents[i] == 0 {
			old, oldKeys = append(old, i), append(oldKeys, keys[i])
		}
	}
	known, err := contents(r.batch.destination, oldKeys, r.tx.each)
	if err != nil {
		return err
	}
	for _, i := range old {
		c, ok := known[keys[i]]
		if !ok {
			return errors.New("the destination has another content with the first half of the same SHA-256")
		}
		free, err := r.reserveAgain(i, c)
		if err != nil {
			return err
		}
		if !free {
			r.fail.Known = append(r.fail.Known, i)
		}
	}
	return nil
}

// insert reserves the contents that the destination does not have, and returns their number.
func (r *reservation) insert(keys []contentKey, positions []int) (inserted int, err error) {
	const columns = 10
	args := make([]any, 0, columns*len(positions))
	position := make(map[contentKey]int, len(positions))
	for _, i := range positions {
		k := keys[i]
		position[k] = i
		args = append(args, r.batch.destination, k.sha[:], []byte(k.scope), r.seals[i].Size, contentReserved, r.batch.id,
			r.upload.spec.Members[i].DocumentID, r.at, sourceRoom, r.at)
	}
	err = r.tx.each(`INSERT INTO contents (destination_id, sha256, scope, size, state, batch_id, document_id, since,
			source_id, next_poll)
		VALUES `+valueRows(1, len(positions), columns)+`
		ON CONFLICT (destination_id, substr(sha256, 1, 16), scope) DO NOTHING
		RETURNING id, sha256, scope`, args, func(scan func(...any) error) error {
		var id int64
		var sha, scope []byte
		if err := scan(&id, &sha, &scope); err != nil {
			return err
		}
		r.contents[position[contentKey{SHA256(sha), string(scope)}]] = id
		inserted++
		return nil
	})
	return inserted, err
}

// reserveAgain reserves a content that the destination has, if it is free to be sent.
func (r *reservation) reserveAgain(position int, c contentRow) (free bool, err error) {
	m := r.upload.spec.Members[position]
	if err := r.tx.readMark(&m); err != nil {
		return false, err
	}
	if free, err := r.reservable(m, c); err != nil || !free {
		return false, err
	}
	if err := r.tx.moveSource(c.id); err != nil {
		return false, err
	}
	resends := 0
	if r.resends(c) {
		resends = 1
	}
	r.contents[position] = c.id
	_, err = r.tx.exec(`UPDATE contents
		SET state = {content.reserved}, batch_id = $1, document_id = $2, prior_state = $3, prior_batch = $4, resends = $5,
			since = $6, reason = ''
		WHERE id = $7`, r.batch.id, m.DocumentID, c.state, c.batch, resends, r.at, c.id)
	return true, err
}

// readMark reads a claimed document's mark of a reindex again: another sync may have uploaded the content since the claim,
// which clears the mark. A new mark ends the claim.
func (t *tx) readMark(m *ClaimedDocument) error {
	if !m.Forced {
		return nil
	}
	return t.one(`SELECT forced FROM documents WHERE id = $1`, []any{m.DocumentID}, &m.Forced)
}

// resends reports whether the batch sends an uncertain content again, for the first time.
func (r *reservation) resends(c contentRow) bool {
	return c.state == contentUncertain && c.resends == 0 && r.batch.resendOf != 0 && c.batch == r.batch.resendOf
}

// reservable reports whether the batch may send a content that is in the table.
func (r *reservation) reservable(m ClaimedDocument, c contentRow) (bool, error) {
	switch c.state {
	case contentOpen:
		return true, nil
	case contentReserved:
		return false, nil
	case contentUncertain:
		return r.resends(c) || m.Forced, nil
	case contentFailed:
		if m.Forced {
			return true, nil
		}
		return r.tx.mayTry(c.id, m.Key)
	}
	if m.Forced {
		return true, nil
	}
	if !r.upload.spec.Sharing.UploadRenamed {
		return false, nil
	}
	// A renamed document gets its own source, but only while no other document has the content.
	live, err := r.tx.contentLive(c.id)
	return !live, err
}

// link links the members to their reserved contents.
func (r *reservation) link() error {
	members := r.upload.spec.Members
	for i, m := range members {
		if m.content == 0 {
			continue
		}
		if err := r.tx.endResave(m.DocumentID); err != nil {
			return err
		}
		if m.content == r.contents[i] {
			continue
		}
		if err := r.tx.keepPastContents(`d.id = $2`, m.DocumentID); err != nil {
			return err
		}
	}
	linked := int64(0)
	positions := make([]int, len(members))
	for i := range positions {
		positions[i] = i
	}
	err := eachChunk(positions, func(chunk []int) error {
		var args []any
		for _, i := range chunk {
			args = append(args, members[i].DocumentID, members[i].Claim, r.contents[i])
		}
		n, err := r.tx.exec(`UPDATE documents
			SET state = {doc.linked}, content_id = v.column3, claim = 0, forced = 0
			FROM (VALUES `+valueRows(1, len(chunk), 3)+`) AS v
			WHERE documents.id = v.column1
			  AND documents.state = {doc.claimed}
			  AND documents.claim = v.column2`, args...)
		linked += n
		return err
	})
	if err != nil {
		return err
	}
	if linked < int64(len(members)) {
		return r.findLost()
	}
	for i, m := range members {
		if !m.Forced {
			continue
		}
		// One upload a content: its other documents wait for this one.
		if _, err := r.tx.exec(`UPDATE documents
			SET forced = 0
			WHERE content_id = $1
			  AND forced <> 0`, r.contents[i]); err != nil {
			return err
		}
	}
	return nil
}

// findLost finds the members whose claim was lost: they were not linked.
func (r *reservation) findLost() error {
	for i, m := range r.upload.spec.Members {
		var linked bool
		if err := r.tx.one(`SELECT EXISTS (
				SELECT 1
				FROM documents
				WHERE id = $1
				  AND state = {doc.linked}
				  AND content_id = $2)`, []any{m.DocumentID, r.contents[i]}, &linked); err != nil {
			return err
		}
		if !linked {
			r.fail.Lost = append(r.fail.Lost, i)
		}
	}
	return nil
}
