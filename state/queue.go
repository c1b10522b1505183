package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The Queue holds the documents that wait for their upload. A claim takes a document out of it for one owner.
type Queue struct{ *db }

const claimedColumns = `id, key, size, mtime, ctime_offset, inode, etag, attempts, forced, coalesce(content_id, 0)`

func scanClaimed(scan func(...any) error, claim int64) (ClaimedDocument, error) {
	c := ClaimedDocument{Claim: claim}
	var key []byte
	var inode int64
	f := &c.Fingerprint
	err := scan(&c.DocumentID, &key, &f.Size, &f.MTime, &f.CTime, &inode, &f.ETag, &c.Attempts, &c.Forced, &c.content)
	c.Key, f.Inode = string(key), uint64(inode)
	f.CTime += f.MTime // the table has the difference
	return c, err
}

// newClaim returns the token of a claim. No two claims share one. In a shared state it names the owner, whose claims are
// given back when its lease runs out.
func (s *db) newClaim(ctx context.Context) (int64, error) {
	owner, err := s.owner(ctx)
	if err != nil || owner == 0 {
		return 1 + rand.Int64N(1<<(ownerBits+claimBits)-1), err
	}
	return owner<<claimBits | s.claims.Add(1)&(1<<claimBits-1), nil
}

func sortByID(docs []ClaimedDocument) {
	slices.SortFunc(docs, func(a, b ClaimedDocument) int { return cmp.Compare(a.DocumentID, b.DocumentID) })
}

// paused reports whether a Retry-After holds back the uploads of the sync's destination, or the gate those of the sync. Until
// the transaction ends, no other one shuts the gate.
func (t *tx) paused(syncID int64) (bool, error) {
	var until int64
	var gate bool
	err := t.one(`SELECT t.paused_until, s.gate
		FROM syncs s
		JOIN destinations t ON t.id = s.destination_id
		WHERE s.id = $1 {share.lock}`, []any{syncID}, &until, &gate)
	return gate || until > now() && until <= farthest(), err
}

// tooFarAhead is a condition on a pending document whose next attempt was set while the clock was wrong ($2: now, $3: the
// farthest time, $4: the same of a changed document that rests after its last upload).
const tooFarAhead = `next_attempt > $3
			  AND (changed_at > $2 OR attempts > 0 OR content_id IS NULL OR next_attempt > $4)`

// correctWaits makes the pending documents of the sync due whose next attempt is too far ahead.
func (t *tx) correctWaits(syncID int64) error {
	_, err := t.exec(`UPDATE documents
		SET next_attempt = 0
		WHERE sync_id = $1
		  AND state = {doc.pending}
		  AND state < {doc.linked}
		  AND `+tooFarAhead, syncID, now(), farthest(), now()+maxRest.Milliseconds())
	return err
}

// claim claims the documents whose ids selection returns ($2 is the sync, $3 and up are args).
func (s *db) claim(ctx context.Context, syncID int64, selection string, args ...any) ([]ClaimedDocument, error) {
	return s.claimIf(ctx, func(t *tx) (bool, error) {
		if held, err := t.paused(syncID); held || err != nil {
			return false, err
		}
		return true, t.correctWaits(syncID)
	}, selection, append([]any{syncID}, args...))
}

// claimIf claims the documents whose ids selection returns ($2 and up are args), if may allows it.
func (s *db) claimIf(ctx context.Context, may func(*tx) (bool, error), selection string, args []any) ([]ClaimedDocument, error) {
	var docs []ClaimedDocument
	claim, err := s.newClaim(ctx)
	if err != nil {
		return nil, fmt.Errorf("claim documents: %w", err)
	}
	err = s.updateLazily(ctx, func(t *tx) error {
		docs = nil
		if allowed, err := may(t); !allowed || err != nil {
			return err
		}
		return t.each(`UPDATE documents
			SET state = {doc.claimed}, claim = $1
			WHERE id IN (`+selection+`)
			RETURNING `+claimedColumns, append([]any{claim}, args...), func(scan func(...any) error) error {
			c, err := scanClaimed(scan, claim)
			docs = append(docs, c)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("claim documents: %w", err)
	}
	sortByID(docs)
	return docs, nil
}

// duePending selects the pending documents of the sync $2 that are due at $3.
const duePending = `SELECT id
			FROM documents
			WHERE sync_id = $2
			  AND state = {doc.pending}
			  AND state < {doc.linked}
			  AND next_attempt <= $3`

// Claim takes up to limit due pending documents of the sync, the longest waiting first. It returns none while a
// Retry-After holds back the destination.
func (s *Queue) Claim(ctx context.Context, syncID int64, limit int) ([]ClaimedDocument, error) {
	return s.claim(ctx, syncID, duePending+` ORDER BY next_attempt, id LIMIT $4 {skip.locked}`, now(), limit)
}

// ClaimSmallest takes the smallest due pending document for a probe of the breaker or, if there is none, the smallest
// document that is due to be sent again. No document is no error.
func (s *Queue) ClaimSmallest(ctx context.Context, syncID int64, resendAfter time.Duration) ([]ClaimedDocument, error) {
	docs, err := s.claim(ctx, syncID, duePending+` ORDER BY size, id LIMIT 1 {skip.locked}`, now())
	if err != nil || len(docs) > 0 {
		return docs, err
	}
	return s.claimResends(ctx, syncID, resendAfter, 1, `d.size`)
}

// ClaimResends takes documents whose content has been uncertain for resendAfter and was not sent again yet: all of one
// batch, one document a content. ResendOf and SHA256 are set.
func (s *Queue) ClaimResends(ctx context.Context, syncID int64, resendAfter time.Duration, limit int) ([]ClaimedDocument, error) {
	return s.claimResends(ctx, syncID, resendAfter, limit, `d.id`)
}

// resendable joins the contents c that may be sent again with the documents d that have them ($1: the sync).
const resendable = linkedUnfinished + `
			  AND c.state = {content.uncertain}
			  AND c.resends = 0`

func (s *db) claimResends(ctx context.Context, syncID int64, resendAfter time.Duration,
	limit int, order string) ([]ClaimedDocument, error) {
	var docs []ClaimedDocument
	// Mostly there is none. Then no other process need wait for a lock.
	batch, err := resendableBatch(syncID, resendAfter, order, func(query string, args []any, dest ...any) error {
		return s.queryOne(ctx, query, args, dest...)
	})
	if err == nil && batch != 0 {
		docs, err = s.claimResendsAlone(ctx, syncID, resendAfter, limit, order)
	}
	if err != nil {
		return nil, fmt.Errorf("claim uncertain documents: %w", err)
	}
	sortByID(docs)
	return docs, nil
}

func (s *db) claimResendsAlone(ctx context.Context, syncID int64, resendAfter time.Duration, limit int,
	order string) (docs []ClaimedDocument, err error) {
	claim, err := s.newClaim(ctx)
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func(t *tx) (err error) {
		if err := t.lockSync(syncID, alone); err != nil {
			return err
		}
		docs, err = t.claimResends(claim, syncID, resendAfter, limit, order)
		return err
	})
	return docs, err
}

// resendableBatch returns the batch of the first document that is due to be sent again; 0 if there is none.
func resendableBatch(syncID int64, resendAfter time.Duration, order string,
	one func(query string, args []any, dest ...any) error) (batch int64, err error) {
	err = one(`SELECT c.batch_id `+resendable+`
			  AND (c.since <= $2 OR c.since > $3)
			ORDER BY `+order+`
			LIMIT 1`, []any{syncID, now() - resendAfter.Milliseconds(), now()}, &batch)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return batch, err
}

func (t *tx) claimResends(claim, syncID int64, resendAfter time.Duration, limit int, order string) ([]ClaimedDocument, error) {
	if held, err := t.paused(syncID); held || err != nil {
		return nil, err
	}
	batch, err := resendableBatch(syncID, resendAfter, order, t.one)
	if err != nil || batch == 0 {
		return nil, err
	}
	contents := map[int64]SHA256{} // by document
	err = t.each(`SELECT c.sha256, min(d.id) `+resendable+`
			  AND c.batch_id = $2
			GROUP BY c.id, c.sha256
			ORDER BY min(`+order+`)
			LIMIT $3`, []any{syncID, batch, limit}, func(scan func(...any) error) error {
		var document int64
		var sha []byte
		err := scan(&sha, &document)
		if err == nil {
			contents[document] = SHA256(sha)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var docs []ClaimedDocument
	for document, sha := range contents {
		err := t.each(`UPDATE documents
			SET state = {doc.claimed}, claim = $1
			WHERE id = $2
			RETURNING `+claimedColumns, []any{claim, document}, func(scan func(...any) error) error {
			c, err := scanClaimed(scan, claim)
			c.ResendOf, c.SHA256 = batch, sha
			docs = append(docs, c)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// NextDue returns when the next document of the sync may be claimed or, if resendAfter is not negative, sent again; zero
// for never.
func (s *Queue) NextDue(ctx context.Context, syncID int64, resendAfter time.Duration) (time.Time, error) {
	due, pausedUntil, err := s.nextDue(ctx, syncID, resendAfter)
	if err != nil {
		return time.Time{}, fmt.Errorf("read queue: %w", err)
	}
	if due == never {
		return time.Time{}, nil
	}
	if pausedUntil > farthest() {
		pausedUntil = 0
	}
	// 1 ms after 1970 is in the past, and is not zero.
	return time.UnixMilli(max(due, pausedUntil, 1)), nil
}

// never is later than any time.
const never = int64(1) << 62

func (s *db) nextDue(ctx context.Context, syncID int64, resendAfter time.Duration) (due, pausedUntil int64, err error) {
	err = s.queryOne(ctx, `SELECT coalesce(min(next_attempt), $2)
		FROM documents
		WHERE sync_id = $1
		  AND state = {doc.pending}
		  AND state < {doc.linked}`, []any{syncID, never}, &due)
	if err != nil {
		return 0, 0, err
	}
	if due != never {
		var wrong bool
		err := s.queryOne(ctx, `SELECT EXISTS (
				SELECT 1
				FROM documents
				WHERE sync_id = $1
				  AND state = {doc.pending}
				  AND state < {doc.linked}
				  AND `+tooFarAhead+`)`, []any{syncID, now(), farthest(), now() + maxRest.Milliseconds()}, &wrong)
		if err != nil {
			return 0, 0, err
		}
		if wrong {
			due = 0
		}
	}
	if resendAfter >= 0 {
		var since int64
		err := s.queryOne(ctx, `SELECT coalesce(min(CASE WHEN c.since > $3 THEN 0 ELSE c.since END), $2) `+resendable,
			[]any{syncID, never, now()}, &since)
		if err != nil {
			return 0, 0, err
		}
		if since != never {
			due = min(due, since+resendAfter.Milliseconds())
		}
	}
	var gate bool
	err = s.queryOne(ctx, `SELECT t.paused_until, s.gate
		FROM syncs s
		JOIN destinations t ON t.id = s.destination_id
		WHERE s.id = $1`, []any{syncID}, &pausedUntil, &gate)
	if gate {
		due = never
	}
	return due, pausedUntil, err
}

// Release gives claimed documents back as pending, to be claimed again at nextAttempt (zero: at once). failed counts an
// attempt. Lost claims are ignored.
func (s *Queue) Release(ctx context.Context, docs []ClaimedDocument, nextAttempt time.Time, failed bool) error {
	err := s.update(ctx, func(t *tx) error {
		for _, d := range docs {
			if _, err := t.exec(`UPDATE documents
				SET state = {doc.pending}, claim = 0, attempts = attempts + $1, next_attempt = $2
				WHERE id = $3
				  AND state = {doc.claimed}
				  AND claim = $4`, failed, waitUntil(nextAttempt), d.DocumentID, d.Claim); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("release documents: %w", err)
	}
	return nil
}

// MarkUnreadable ends the claim of a document that could not be read. A document with a version keeps it and its source;
// a new one is skipped with the reason. The next scan looks at both again.
func (s *Queue) MarkUnreadable(ctx context.Context, doc ClaimedDocument, reason string) error {
	err := s.update(ctx, func(t *tx) error { return t.endClaimUnread(doc, docSkipped, reason) })
	if err != nil {
		return fmt.Errorf("mark document unreadable: %w", err)
	}
	return nil
}

// MarkVanished ends the claim of a document that does not exist any more. A document with a version keeps it until a
// scan removes it; a new one is removed.
func (s *Queue) MarkVanished(ctx context.Context, doc ClaimedDocument) error {
	err := s.update(ctx, func(t *tx) error { return t.endClaimUnread(doc, docRemoved, "") })
	if err != nil {
		return fmt.Errorf("mark document vanished: %w", err)
	}
	return nil
}

// endClaimUnread ends the claim of a document whose bytes were not read. It keeps its version, and the mark of a reindex; a
// document without a version gets the state newState, and keeps the mark if it is skipped. Without its fingerprint it differs
// from every listing, so the next scan makes it pending again.
func (t *tx) endClaimUnread(doc ClaimedDocument, newState int, reason string) error {
	n, err := t.exec(`UPDATE documents
		SET state = {doc.linked}, claim = 0, mtime = 0, ctime_offset = 0, inode = 0, etag = ''
		WHERE id = $1
		  AND state = {doc.claimed}
		  AND claim = $2
		  AND EXISTS (SELECT 1 FROM contents c WHERE c.id = documents.content_id AND c.state <> {content.open})`, doc.DocumentID, doc.Claim)
	if err != nil || n > 0 {
		return err
	}
	// It has no content, or one that is not in the knowledge base.
	err = t.keepPastContents(`d.id = $2 AND d.state = {doc.claimed} AND d.claim = $3`, doc.DocumentID, doc.Claim)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE documents
		SET state = $3, reason = $4, content_id = NULL, claim = 0, mtime = 0, ctime_offset = 0, inode = 0, etag = '',
			forced = CASE WHEN $3 = {doc.skipped} THEN forced ELSE 0 END
		WHERE id = $1
		  AND state = {doc.claimed}
		  AND claim = $2`, doc.DocumentID, doc.Claim, newState, reason)
	return err
}

// Reopen makes failed documents pending again, after a series of refusals that a quota explains better than the
// documents.
func (s *Queue) Reopen(ctx context.Context, documentIDs []int64) error {
	err := s.update(ctx, func(t *tx) error {
		for _, id := range documentIDs {
			var syncID int64
			if err := t.one(`SELECT sync_id FROM documents WHERE id = $1`, []any{id}, &syncID); err != nil {
				return err
			}
			if err := t.lockSync(syncID, alone); err != nil {
				return err
			}
			if _, err := t.exec(`UPDATE contents
				SET state = {content.open}
				WHERE state <> {content.completed}
				  AND state = {content.failed}
				  AND id = (SELECT content_id FROM documents WHERE id = $1 AND state = {doc.linked})`, id); err != nil {
				return err
			}
			if _, err := t.exec(`UPDATE documents
				SET state = {doc.pending}, attempts = 0, next_attempt = 0, reason = ''
				WHERE state IN ({doc.refused}, {doc.linked})
				  AND (id = $1 AND state = {doc.refused} OR content_id = (
					SELECT c.id
					FROM contents c
					JOIN documents d ON d.content_id = c.id
					WHERE d.id = $1
					  AND c.state = {content.open}))`, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reopen documents: %w", err)
	}
	return nil
}
