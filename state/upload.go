package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const claimedColumns = `id, key, size, mtime, ctime, inode, etag, attempts, forced, coalesce(content_id, 0)`

func scanClaimed(scan func(...any) error, claim int64) (ClaimedDocument, error) {
	c := ClaimedDocument{Claim: claim}
	var key []byte
	var inode int64
	f := &c.Fingerprint
	err := scan(&c.DocumentID, &key, &f.Size, &f.MTime, &f.CTime, &inode, &f.ETag, &c.Attempts, &c.Forced, &c.content)
	c.Key, f.Inode = string(key), uint64(inode)
	return c, err
}

// newClaim returns a token that no other claim has.
func newClaim() int64 { return 1 + rand.Int64N(1<<62) }

// paused says whether a Retry-After holds the uploads of the sync's destination back.
func paused(t *tx, syncID int64) (bool, error) {
	var until int64
	err := t.one(`SELECT paused_until FROM destinations WHERE id = (SELECT destination_id FROM syncs WHERE id = $1)`, []any{syncID}, &until)
	return until > now(), err
}

// claim marks what the statement selects, and returns it in order of age.
func (s *db) claim(ctx context.Context, syncID int64, selection string, args ...any) ([]ClaimedDocument, error) {
	var docs []ClaimedDocument
	err := s.update(ctx, func(t *tx) error {
		docs = nil
		if held, err := paused(t, syncID); held || err != nil {
			return err
		}
		claim := newClaim()
		return t.each(`UPDATE documents SET state = 1, claim = $1 WHERE id IN (`+selection+`) RETURNING `+claimedColumns,
			append([]any{claim, syncID}, args...), func(scan func(...any) error) error {
				c, err := scanClaimed(scan, claim)
				docs = append(docs, c)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("claim documents: %w", err)
	}
	slices.SortFunc(docs, func(a, b ClaimedDocument) int { return int(a.DocumentID - b.DocumentID) })
	return docs, nil
}

// Claim takes up to limit due pending documents of the sync, those that wait longest first. While a Retry-After holds the
// destination back there are none.
func (s *Queue) Claim(ctx context.Context, syncID int64, limit int) ([]ClaimedDocument, error) {
	return s.claim(ctx, syncID, `SELECT id FROM documents WHERE sync_id = $2 AND state = 0 AND state < 3 AND next_attempt <= $3 ORDER BY next_attempt, id LIMIT $4`, now(), limit)
}

// ClaimSmallest takes the smallest due pending document for a probe or, where there is none, the smallest one that is due to
// be sent again. None is not an error.
func (s *Queue) ClaimSmallest(ctx context.Context, syncID int64, resendAfter time.Duration) ([]ClaimedDocument, error) {
	docs, err := s.claim(ctx, syncID, `SELECT id FROM documents WHERE sync_id = $2 AND state = 0 AND state < 3 AND next_attempt <= $3 ORDER BY size, id LIMIT 1`, now())
	if err != nil || len(docs) > 0 {
		return docs, err
	}
	return s.claimResends(ctx, syncID, resendAfter, 1, `d.size`)
}

// ClaimResends takes documents whose content has been uncertain for resendAfter and was not sent again yet, all of one
// batch, one a content. ResendOf and SHA256 are set.
func (s *Queue) ClaimResends(ctx context.Context, syncID int64, resendAfter time.Duration, limit int) ([]ClaimedDocument, error) {
	return s.claimResends(ctx, syncID, resendAfter, limit, `d.id`)
}

// resendable joins the contents c that may be sent again with the documents d that have them ($1: the sync).
const resendable = `FROM contents c JOIN documents d ON d.content_id = c.id AND d.state = 3 AND +d.sync_id = $1
	WHERE c.destination_id = (SELECT destination_id FROM syncs WHERE id = $1) AND c.state <> 5 AND c.state = 2 AND c.resends = 0`

func (s *db) claimResends(ctx context.Context, syncID int64, resendAfter time.Duration, limit int, order string) ([]ClaimedDocument, error) {
	var docs []ClaimedDocument
	err := s.update(ctx, func(t *tx) error {
		docs = nil
		if held, err := paused(t, syncID); held || err != nil {
			return err
		}
		var batch int64
		err := t.one(`SELECT c.batch_id `+resendable+` AND c.since <= $2 ORDER BY `+order+` LIMIT 1`, []any{syncID, now() - resendAfter.Milliseconds()}, &batch)
		if errors.Is(err, ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		contents := map[int64]SHA256{}
		byDocument := map[int64]int64{}
		err = t.each(`SELECT c.id, c.sha256, min(d.id) `+resendable+` AND c.batch_id = $2 GROUP BY c.id, c.sha256 ORDER BY min(`+order+`) LIMIT $3`, []any{syncID, batch, limit}, func(scan func(...any) error) error {
			var content, document int64
			var sha []byte
			err := scan(&content, &sha, &document)
			contents[content], byDocument[document] = SHA256(sha), content
			return err
		})
		if err != nil {
			return err
		}
		claim := newClaim()
		for document, content := range byDocument {
			err := t.each(`UPDATE documents SET state = 1, claim = $1 WHERE id = $2 RETURNING `+claimedColumns, []any{claim, document}, func(scan func(...any) error) error {
				c, err := scanClaimed(scan, claim)
				c.ResendOf, c.SHA256 = batch, contents[content]
				docs = append(docs, c)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim uncertain documents: %w", err)
	}
	slices.SortFunc(docs, func(a, b ClaimedDocument) int { return int(a.DocumentID - b.DocumentID) })
	return docs, nil
}

// NextDue says when the next document of the sync may be claimed or, if resendAfter is not negative, sent again; zero for never.
func (s *Queue) NextDue(ctx context.Context, syncID int64, resendAfter time.Duration) (time.Time, error) {
	const never = int64(1) << 62
	due, pausedUntil := never, int64(0)
	err := s.queryOne(ctx, `SELECT coalesce(min(next_attempt), $2) FROM documents WHERE sync_id = $1 AND state = 0 AND state < 3`, []any{syncID, never}, &due)
	if err == nil && resendAfter >= 0 {
		var since int64
		err = s.queryOne(ctx, `SELECT coalesce(min(c.since), $2) `+resendable, []any{syncID, never}, &since)
		if since != never {
			due = min(due, since+resendAfter.Milliseconds())
		}
	}
	if err == nil {
		err = s.queryOne(ctx, `SELECT paused_until FROM destinations WHERE id = (SELECT destination_id FROM syncs WHERE id = $1)`, []any{syncID}, &pausedUntil)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read queue: %w", err)
	}
	if due == never {
		return time.Time{}, nil
	}
	// 1 ms after 1970 is as due as can be, and not zero.
	return time.UnixMilli(max(due, pausedUntil, 1)), nil
}

// SizeTaken says whether another document that is pending or claimed, or any content of the destination, has this size of
// more than HashAhead bytes: then the document is to be hashed beforehand.
func (s *Queue) SizeTaken(ctx context.Context, destinationID, size, documentID int64) (bool, error) {
	var taken bool
	err := s.queryOne(ctx, `SELECT EXISTS (SELECT 1 FROM contents WHERE destination_id = $1 AND size = $2 AND size > 1048576)
		OR EXISTS (SELECT 1 FROM documents d JOIN syncs y ON y.id = d.sync_id AND y.destination_id = $1 WHERE d.size = $2 AND d.state < 2 AND d.size > 1048576 AND d.id <> $3)`,
		[]any{destinationID, size, documentID}, &taken)
	if err != nil {
		return false, fmt.Errorf("look up size: %w", err)
	}
	return taken, nil
}

// scope is what a content is told apart by beside its hash.
func scope(sharing Sharing, syncID int64, key string) []byte {
	if !sharing.Each {
		return []byte{}
	}
	return fmt.Appendf(nil, "%d/%s", syncID, key)
}

// Resolve says of each hashed document whether it is to be uploaded. Verdicts are in the order of docs; what they say of
// the claim is at Action.
func (s *Queue) Resolve(ctx context.Context, syncID int64, docs []HashedDocument, sharing Sharing) ([]Verdict, error) {
	var verdicts []Verdict
	err := s.update(ctx, func(t *tx) error {
		verdicts = make([]Verdict, len(docs))
		var destination int64
		if err := t.one(`SELECT destination_id FROM syncs WHERE id = $1`, []any{syncID}, &destination); err != nil {
			return err
		}
		for i := range docs {
			var err error
			if verdicts[i], err = t.resolve(syncID, destination, &docs[i], sharing); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("resolve contents: %w", err)
	}
	return verdicts, nil
}

func (t *tx) resolve(syncID, destination int64, doc *HashedDocument, sharing Sharing) (Verdict, error) {
	var content int64
	var state int
	err := t.one(`SELECT id, state FROM contents WHERE destination_id = $1 AND sha256 = $2 AND scope = $3`, []any{destination, doc.SHA256[:], scope(sharing, syncID, doc.Key)}, &content, &state)
	if errors.Is(err, ErrNotFound) {
		return Verdict{Action: ActionUpload}, nil // if the claim was lost, Seal says so
	} else if err != nil {
		return Verdict{}, err
	}
	var forced bool
	err = t.one(`SELECT forced FROM documents WHERE id = $1 AND state = 1 AND claim = $2`, []any{doc.DocumentID, doc.Claim}, &forced)
	if errors.Is(err, ErrNotFound) {
		return Verdict{Action: ActionLost}, nil
	} else if err != nil {
		return Verdict{}, err
	}
	if state == contentOpen || forced && state != contentReserved {
		return Verdict{Action: ActionUpload}, nil
	}
	if state == contentTraining || state == contentStuck || state == contentCompleted {
		var live bool
		if err := t.one(`SELECT EXISTS (SELECT 1 FROM documents WHERE content_id = $1)`, []any{content}, &live); err != nil {
			return Verdict{}, err
		}
		switch {
		case !live && sharing.UploadRenamed:
			return Verdict{Action: ActionUpload}, nil
		case !live && !doc.Verified:
			ids, err := t.sourcesToVerify(content)
			if err != nil || len(ids) > 0 {
				return Verdict{Action: ActionVerify, Verify: ids}, err
			}
			_, err = t.exec(`UPDATE contents SET state = 0 WHERE id = $1`, content)
			return Verdict{Action: ActionUpload}, err
		}
	}
	if _, err := t.exec(`INSERT INTO former (content_id, document_id, until) SELECT content_id, id, $1 FROM documents WHERE id = $2 AND content_id IS NOT NULL AND content_id <> $3
		ON CONFLICT (content_id, document_id) DO UPDATE SET until = excluded.until`, now(), doc.DocumentID, content); err != nil {
		return Verdict{}, err
	}
	_, err = t.exec(`UPDATE documents SET state = 3, content_id = $1, forced = 0, claim = 0, attempts = 0, next_attempt = 0, reason = '' WHERE id = $2`, content, doc.DocumentID)
	return Verdict{Action: ActionShare}, err
}

// sourcesToVerify returns the sources that a left-behind content is shared for: those of its last batch.
func (t *tx) sourcesToVerify(content int64) ([]int64, error) {
	var ids []int64
	err := t.each(`SELECT o.source_id FROM sources o JOIN contents c ON c.id = o.content_id AND c.batch_id = o.batch_id WHERE c.id = $1 AND o.acked_at = 0`, []any{content}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// Begin writes the batch to the journal. Call it before the first byte. While the breaker is open only one batch at a time
// may begin, with Probe set. Errors: ErrBreakerOpen.
func (s *Journal) Begin(ctx context.Context, spec BatchSpec) (batchID int64, err error) {
	err = s.update(ctx, func(t *tx) error {
		var destination, probe int64
		var streak int
		if err := t.one(`SELECT t.id, t.uncertain_streak, t.probe_batch FROM destinations t JOIN syncs s ON s.destination_id = t.id WHERE s.id = $1`, []any{spec.SyncID}, &destination, &streak, &probe); err != nil {
			return err
		}
		if streak > 0 && (!spec.Probe || probe != 0) {
			return ErrBreakerOpen
		}
		if err := t.one(`INSERT INTO batches (sync_id, destination_id, state, resend_of, documents, bytes, created_at) VALUES ($1, $2, 0, $3, $4, $5, $6) RETURNING id`,
			[]any{spec.SyncID, destination, spec.ResendOf, len(spec.Members), spec.Bytes, now()}, &batchID); err != nil {
			return err
		}
		if streak == 0 {
			return nil
		}
		_, err := t.exec(`UPDATE destinations SET probe_batch = $1 WHERE id = $2`, batchID, destination)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("begin batch: %w", err)
	}
	s.mu.Lock()
	s.begun[batchID] = begun{members: slices.Clone(spec.Members), sharing: spec.Sharing}
	s.mu.Unlock()
	return batchID, nil
}

// A begun batch is remembered by the process that began it: nobody else may seal it.
type begun struct {
	members []ClaimedDocument
	sharing Sharing
}

func (s *db) begunAs(batchID int64) begun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun[batchID]
}

func (s *db) ended(batchID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.begun, batchID)
}

// A member is a document of a sealed batch.
type member struct {
	position          int
	document, content int64
}

func (t *tx) members(batchID int64) ([]member, error) {
	var ms []member
	err := t.each(`SELECT position, document_id, content_id FROM members WHERE batch_id = $1 ORDER BY position`, []any{batchID}, func(scan func(...any) error) error {
		var m member
		err := scan(&m.position, &m.document, &m.content)
		ms = append(ms, m)
		return err
	})
	return ms, err
}

// A batchRow is what the ends of a batch need of it.
type batchRow struct {
	sync, destination, resendOf, bytes int64
	state                              int
}

func (t *tx) batch(id int64) (b batchRow, err error) {
	err = t.one(`SELECT sync_id, destination_id, state, resend_of, bytes FROM batches WHERE id = $1`, []any{id}, &b.sync, &b.destination, &b.state, &b.resendOf, &b.bytes)
	return b, err
}

// Seal reserves the members' contents and marks the batch sealed, in one durable transaction; after it the request may be
// completed. Seals are by member position. Errors: *SealError, ErrBreakerOpen, ErrBatchEnded; then nothing was written.
func (s *Journal) Seal(ctx context.Context, batchID int64, seals []Seal) error {
	as := s.begunAs(batchID)
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		if b.state != batchOpen || as.members == nil {
			return ErrBatchEnded
		}
		if len(seals) != len(as.members) {
			return fmt.Errorf("batch %d has %d members, and %d seals", batchID, len(as.members), len(seals))
		}
		var streak int
		var probe int64
		if err := t.one(`SELECT uncertain_streak, probe_batch FROM destinations WHERE id = $1`, []any{b.destination}, &streak, &probe); err != nil {
			return err
		}
		if streak > 0 && probe != batchID {
			return ErrBreakerOpen
		}
		at := now()
		var fail SealError
		for i, m := range as.members {
			content, free, err := t.reserve(b, batchID, m, seals[i], as.sharing, at)
			if err != nil {
				return err
			}
			if free && m.content != 0 && m.content != content {
				if err := leave(t, `d.id = $2`, m.DocumentID); err != nil {
					return err
				}
			}
			if !free {
				fail.Known = append(fail.Known, i)
				continue
			}
			n, err := t.exec(`UPDATE documents SET state = 3, content_id = $1, forced = 0 WHERE id = $2 AND state = 1 AND claim = $3`, content, m.DocumentID, m.Claim)
			if err != nil {
				return err
			}
			if n == 0 {
				fail.Lost = append(fail.Lost, i)
				continue
			}
			if _, err := t.exec(`INSERT INTO members (batch_id, position, document_id, content_id) VALUES ($1, $2, $3, $4)`, batchID, i, m.DocumentID, content); err != nil {
				return err
			}
			if m.Forced {
				// One upload a content, on purpose: its other documents wait for this one.
				if _, err := t.exec(`UPDATE documents SET forced = 0 WHERE content_id = $1 AND forced <> 0`, content); err != nil {
					return err
				}
			}
		}
		if len(fail.Lost)+len(fail.Known) > 0 {
			return &fail // and all of the above is undone
		}
		_, err = t.exec(`UPDATE batches SET state = 1, sealed_at = $1 WHERE id = $2`, at, batchID)
		return err
	})
	if err != nil {
		return fmt.Errorf("seal batch: %w", err)
	}
	return nil
}

// reserve makes the content the batch's, if it is free to be sent.
func (t *tx) reserve(b batchRow, batchID int64, m ClaimedDocument, seal Seal, sharing Sharing, at int64) (content int64, free bool, err error) {
	key := scope(sharing, b.sync, m.Key)
	err = t.one(`INSERT INTO contents (destination_id, sha256, scope, size, state, batch_id, since) VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (destination_id, sha256, scope) DO NOTHING RETURNING id`,
		[]any{b.destination, seal.SHA256[:], key, seal.Size, batchID, at}, &content)
	if !errors.Is(err, ErrNotFound) {
		return content, err == nil, err
	}
	var state int
	var batch int64
	var resends int
	err = t.one(`SELECT id, state, batch_id, resends FROM contents WHERE destination_id = $1 AND sha256 = $2 AND scope = $3`, []any{b.destination, seal.SHA256[:], key}, &content, &state, &batch, &resends)
	if err != nil {
		return 0, false, err
	}
	again := 0
	switch {
	case state == contentOpen:
	case b.resendOf != 0 && state == contentUncertain && batch == b.resendOf && resends == 0:
		again = 1
	case m.Forced && state != contentReserved:
	case state != contentReserved && state != contentUncertain && state != contentFailed && sharing.UploadRenamed:
		// A rename that is to have a source of its own: only while no other document has the content.
		var live bool
		if err := t.one(`SELECT EXISTS (SELECT 1 FROM documents WHERE content_id = $1)`, []any{content}, &live); err != nil || live {
			return content, false, err
		}
	default:
		return content, false, nil
	}
	_, err = t.exec(`UPDATE contents SET state = 1, batch_id = $1, prior_state = $2, prior_batch = $3, resends = $4, since = $5, reason = '' WHERE id = $6`,
		batchID, state, batch, again, at, content)
	return content, err == nil, err
}

// Accept records a sealed batch's answer: its sources enter the inventory, durably, and the breaker closes. It may be
// called again after an error. Errors: ErrBatchEnded if the batch was never sealed, or has its answer.
func (s *Journal) Accept(ctx context.Context, batchID int64, answer Answer) error {
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		// An owner that was thought dead may come back with the answer: what was accepted must be known.
		if b.state != batchSealed && b.state != batchUncertain {
			return ErrBatchEnded
		}
		ms, err := t.members(batchID)
		if err != nil {
			return err
		}
		at := now()
		// Nearly always all are in training: one statement for them.
		if _, err := t.exec(`UPDATE contents SET state = 3, reason = '', since = $1 WHERE id IN (SELECT content_id FROM members WHERE batch_id = $2) AND batch_id = $2 AND state IN (1, 2)`, at, batchID); err != nil {
			return err
		}
		for _, m := range ms {
			var sources []SourceAnswer
			if m.position < len(answer.Sources) {
				sources = answer.Sources[m.position]
			}
			var tally tally
			for _, src := range sources {
				if err := t.enter(b.destination, batchID, m.content, m.position, src, at, answer.NextPoll); err != nil {
					return err
				}
				tally.add(src.Outcome, src.Errors)
			}
			state, reason := tally.state()
			if len(sources) == 0 {
				state, reason = contentUncertain, "the answer did not mention the document"
			}
			if state == contentTraining {
				continue
			}
			if _, err := t.exec(`UPDATE contents SET state = $1, reason = $2, since = $3 WHERE id = $4 AND batch_id = $5 AND state = 3`, state, reason, at, m.content, batchID); err != nil {
				return err
			}
		}
		for _, src := range answer.Unasked {
			if err := t.enter(b.destination, batchID, 0, -1, src, at, answer.NextPoll); err != nil {
				return err
			}
		}
		if _, err := t.exec(`UPDATE batches SET state = 2, ended_at = $1, status_code = $2 WHERE id = $3`, at, answer.StatusCode, batchID); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE destinations SET uncertain_streak = 0, probe_batch = 0, largest_accepted = CASE WHEN largest_accepted < $1 THEN $1 ELSE largest_accepted END WHERE id = $2 AND (uncertain_streak <> 0 OR largest_accepted < $1)`, b.bytes, b.destination)
		return err
	})
	if err != nil {
		return fmt.Errorf("record answer: %w", err)
	}
	s.ended(batchID)
	return nil
}

// enter adds a source to the inventory. A server that gives the same id twice means the same source.
func (t *tx) enter(destination, batch, content int64, position int, src SourceAnswer, at int64, nextPoll time.Time) error {
	poll, settled := max(millis(nextPoll), 1), int64(0)
	if src.Outcome == TrainingCompleted || src.Outcome == TrainingFailed {
		poll, settled = 0, at
	}
	_, err := t.exec(`INSERT INTO sources (destination_id, source_id, content_id, batch_id, position, name, type, status, outcome, errors, created_at, settled_at, next_poll, seen_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $11)
		ON CONFLICT (destination_id, source_id) DO UPDATE SET content_id = excluded.content_id, batch_id = excluded.batch_id, position = excluded.position, name = excluded.name,
		type = excluded.type, status = excluded.status, outcome = excluded.outcome, errors = excluded.errors, settled_at = excluded.settled_at, next_poll = excluded.next_poll, seen_at = excluded.seen_at, acked_at = 0`,
		destination, src.ID, content, batch, position, src.Name, src.Type, src.Status, int(src.Outcome), src.Errors, at, settled, poll)
	return err
}

// A tally sums up the sources of one content.
type tally struct {
	training, stuck, failed bool
	reason                  string
}

func (y *tally) add(o Outcome, errors string) {
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

// state is the content's, and the reason of a failed one: a document is completed when all of its sources are.
func (y *tally) state() (int, string) {
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

// Refuse ends a batch, sealed or not, that left nothing behind. Contents go back to what they were.
func (s *Journal) Refuse(ctx context.Context, batchID int64, refusal Refusal) error {
	as := s.begunAs(batchID)
	err := s.update(ctx, func(t *tx) error {
		b, err := t.batch(batchID)
		if err != nil {
			return err
		}
		switch {
		case b.state != batchOpen && b.state != batchSealed:
			return ErrBatchEnded
		case as.members == nil:
			return errors.New("the batch was begun by another process")
		case b.state == batchOpen:
			for _, m := range as.members {
				if err := t.dispose(m, `state = 1 AND claim = $2`, m.Claim, refusal, m.Forced); err != nil {
					return err
				}
			}
		default:
			ms, err := t.members(batchID)
			if err != nil {
				return err
			}
			for _, m := range ms {
				if err := t.unreserve(b, batchID, m, as.members[m.position], refusal); err != nil {
					return err
				}
			}
		}
		end := batchRefused
		if b.state == batchOpen {
			end = batchAbandoned
		}
		if _, err := t.exec(`UPDATE batches SET state = $1, ended_at = $2, status_code = $3, code = $4, message = $5 WHERE id = $6`, end, now(), refusal.StatusCode, refusal.Code, refusal.Message, batchID); err != nil {
			return err
		}
		if refusal.StatusCode == 413 {
			if _, err := t.exec(`UPDATE destinations SET smallest_refused = $1 WHERE id = $2 AND (smallest_refused = 0 OR smallest_refused > $1)`, b.bytes, b.destination); err != nil {
				return err
			}
		}
		_, err = t.exec(`UPDATE destinations SET probe_batch = 0 WHERE id = $1 AND probe_batch = $2`, b.destination, batchID)
		return err
	})
	if err != nil {
		return fmt.Errorf("end batch: %w", err)
	}
	s.ended(batchID)
	return nil
}

// dispose does with a document what the refusal says, if it is still as where ($2 is arg) has it.
func (t *tx) dispose(m ClaimedDocument, where string, arg any, refusal Refusal, forced bool) error {
	var err error
	switch refusal.Disposition {
	case Retry:
		_, err = t.exec(`UPDATE documents SET state = 0, claim = 0, forced = $3, attempts = attempts + 1, next_attempt = $4 WHERE id = $1 AND `+where, m.DocumentID, arg, forced, millis(refusal.NextAttempt))
	case Requeue:
		_, err = t.exec(`UPDATE documents SET state = 0, claim = 0, forced = $3 WHERE id = $1 AND `+where, m.DocumentID, arg, forced)
	case Keep:
		_, err = t.exec(`UPDATE documents SET state = 1, claim = $3, forced = $4 WHERE id = $1 AND `+where, m.DocumentID, arg, m.Claim, forced)
	case Fail:
		_, err = t.exec(`UPDATE documents SET state = 2, claim = 0, forced = 0, reason = $3 WHERE id = $1 AND `+where, m.DocumentID, arg, refusal.Message)
	}
	return err
}

// unreserve gives a sealed member's content back, and with it the documents that wait for it.
func (t *tx) unreserve(b batchRow, batchID int64, m member, doc ClaimedDocument, refusal Refusal) error {
	var state, prior int
	var batch, priorBatch int64
	if err := t.one(`SELECT state, batch_id, prior_state, prior_batch FROM contents WHERE id = $1`, []any{m.content}, &state, &batch, &prior, &priorBatch); err != nil {
		return err
	}
	if batch != batchID || state != contentReserved {
		return nil
	}
	if refusal.Disposition == Fail {
		_, err := t.exec(`UPDATE contents SET state = 6, reason = $1, since = $2 WHERE id = $3`, refusal.Message, now(), m.content)
		return err
	}
	if prior == contentOpen {
		// Those that share the content are pending again, with the member.
		if _, err := t.exec(`UPDATE documents SET state = 0, claim = 0 WHERE content_id = $1 AND state = 3 AND id <> $2`, m.content, m.document); err != nil {
			return err
		}
	}
	if _, err := t.exec(`UPDATE contents SET state = $1, batch_id = $2, prior_state = 0, prior_batch = 0, resends = 0, since = $3 WHERE id = $4`, prior, priorBatch, now(), m.content); err != nil {
		return err
	}
	if b.resendOf != 0 && refusal.Disposition != Keep {
		return nil // uncertain as before, and due to be sent again later
	}
	// A document that changed meanwhile is not settled on the content any more.
	return t.dispose(doc, `state = 3 AND content_id = $2`, m.content, refusal, prior != contentOpen && b.resendOf == 0)
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
		if err := t.lose(batchID, statusCode, reason); err != nil {
			return err
		}
		return t.one(`UPDATE destinations SET uncertain_streak = uncertain_streak + 1, probe_batch = CASE WHEN probe_batch = $1 THEN 0 ELSE probe_batch END WHERE id = $2 RETURNING uncertain_streak`, []any{batchID, b.destination}, &streak)
	})
	if err != nil {
		return 0, fmt.Errorf("record lost answer: %w", err)
	}
	s.ended(batchID)
	return streak, nil
}

// lose marks a sealed batch and its contents uncertain.
func (t *tx) lose(batchID int64, statusCode int, reason string) error {
	at := now()
	if _, err := t.exec(`UPDATE contents SET state = 2, since = $1, reason = $2 WHERE state <> 5 AND state = 1 AND batch_id = $3 AND id IN (SELECT content_id FROM members WHERE batch_id = $3)`, at, reason, batchID); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE batches SET state = 5, ended_at = $1, status_code = $2, message = $3 WHERE id = $4`, at, statusCode, reason, batchID)
	return err
}

// Release gives claimed documents back as pending, to be claimed again at nextAttempt (zero: at once). failed counts an
// attempt. Claims that were lost are left alone.
func (s *Queue) Release(ctx context.Context, docs []ClaimedDocument, nextAttempt time.Time, failed bool) error {
	err := s.update(ctx, func(t *tx) error {
		for _, d := range docs {
			if _, err := t.exec(`UPDATE documents SET state = 0, claim = 0, attempts = attempts + $1, next_attempt = $2 WHERE id = $3 AND state = 1 AND claim = $4`, failed, millis(nextAttempt), d.DocumentID, d.Claim); err != nil {
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

// unread ends a claim without a version: a document that has one keeps it, for any other fresh says what becomes of it.
func (s *db) unread(ctx context.Context, doc ClaimedDocument, fresh string, args ...any) error {
	return s.update(ctx, func(t *tx) error {
		// Without its fingerprint it differs from every listing, so the next scan looks at it again.
		n, err := t.exec(`UPDATE documents SET state = 3, claim = 0, forced = 0, mtime = 0, ctime = 0, inode = 0, etag = '' WHERE id = $1 AND state = 1 AND claim = $2
			AND content_id IN (SELECT id FROM contents WHERE state <> 0)`, doc.DocumentID, doc.Claim)
		if err != nil || n > 0 {
			return err
		}
		var held bool
		if err := t.one(`SELECT EXISTS (SELECT 1 FROM documents WHERE id = $1 AND state = 1 AND claim = $2)`, []any{doc.DocumentID, doc.Claim}, &held); err != nil || !held {
			return err
		}
		// What it may have is a content that is not there any more, or never was.
		if err := leave(t, `d.id = $2`, doc.DocumentID); err != nil {
			return err
		}
		_, err = t.exec(`UPDATE documents SET `+fresh+`, content_id = NULL, claim = 0, forced = 0, mtime = 0, ctime = 0, inode = 0, etag = '' WHERE id = $1 AND state = 1 AND claim = $2`, append([]any{doc.DocumentID, doc.Claim}, args...)...)
		return err
	})
}

// MarkUnreadable ends the claim of a document that could not be read: one that has a version keeps it and its source, a new one
// is skipped with the reason. Both are looked at again at the next scan.
func (s *Queue) MarkUnreadable(ctx context.Context, doc ClaimedDocument, reason string) error {
	if err := s.unread(ctx, doc, `state = 4, reason = $3`, reason); err != nil {
		return fmt.Errorf("note unreadable document: %w", err)
	}
	return nil
}

// MarkVanished ends the claim of a document that is not there any more. One that has a version keeps it until a scan says that
// it is removed; a new one is dropped.
func (s *Queue) MarkVanished(ctx context.Context, doc ClaimedDocument) error {
	if err := s.unread(ctx, doc, `state = 5`); err != nil {
		return fmt.Errorf("note vanished document: %w", err)
	}
	return nil
}

// Reopen makes documents pending again that were failed by a series of refusals which a quota explains better.
func (s *Queue) Reopen(ctx context.Context, documentIDs []int64) error {
	err := s.update(ctx, func(t *tx) error {
		for _, id := range documentIDs {
			if _, err := t.exec(`UPDATE contents SET state = 0 WHERE state <> 5 AND state = 6 AND id = (SELECT content_id FROM documents WHERE id = $1 AND state = 3)`, id); err != nil {
				return err
			}
			if _, err := t.exec(`UPDATE documents SET state = 0, attempts = 0, next_attempt = 0, reason = '' WHERE state IN (2, 3) AND (id = $1
				OR content_id = (SELECT c.id FROM contents c JOIN documents d ON d.content_id = c.id WHERE d.id = $1 AND c.state = 0))`, id); err != nil {
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

// Breaker returns how many batches of the destination became uncertain since the last accepted one (0: the breaker is
// closed), and until when a Retry-After holds uploads back.
func (s *Journal) Breaker(ctx context.Context, destinationID int64) (streak int, pausedUntil time.Time, err error) {
	var until int64
	if err := s.queryOne(ctx, `SELECT uncertain_streak, paused_until FROM destinations WHERE id = $1`, []any{destinationID}, &streak, &until); err != nil {
		return 0, time.Time{}, fmt.Errorf("read breaker: %w", err)
	}
	return streak, fromMillis(until), nil
}

// Pause holds the destination's uploads back until then; a longer pause stays.
func (s *Journal) Pause(ctx context.Context, destinationID int64, until time.Time) error {
	err := s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE destinations SET paused_until = $1 WHERE id = $2 AND paused_until < $1`, millis(until), destinationID)
		return err
	})
	if err != nil {
		return fmt.Errorf("note pause: %w", err)
	}
	return nil
}

// Limits returns the bytes of the largest request that the destination accepted, and of the smallest that it refused as too
// large (413); 0 if there was none.
func (s *Journal) Limits(ctx context.Context, destinationID int64) (largestAccepted, smallestRefused int64, err error) {
	err = s.queryOne(ctx, `SELECT largest_accepted, smallest_refused FROM destinations WHERE id = $1`, []any{destinationID}, &largestAccepted, &smallestRefused)
	if err != nil {
		return 0, 0, fmt.Errorf("read limits: %w", err)
	}
	return largestAccepted, smallestRefused, nil
}
