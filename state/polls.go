package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// polled are the columns of a source that DueSources and NextPoll read, from both places of sources ($1: the destination).
const (
	polledContents = `SELECT c.source_id, c.polls, ` + `'' AS status, b.ended_at AS created_at, ` + contentOutcome + ` AS outcome, c.next_poll
			FROM contents c
			JOIN batches b ON b.id = c.batch_id
			WHERE c.destination_id = $1
			  AND c.next_poll <> 0
			  AND c.state > {content.uncertain}`
	polledSources = `SELECT source_id, polls, status, created_at, outcome, next_poll
			FROM sources
			WHERE destination_id = $1
			  AND next_poll <> 0`
)

// duePolls are up to $3 sources that are due at $2, or whose next poll is after the farthest time $4. It reads two ranges of
// an index in each table, because an OR would read all sources in training.
const duePolls = `SELECT *
		FROM (` + polledContents + ` AND c.next_poll > $4 ORDER BY c.next_poll, c.id LIMIT $3) AS wrong_contents
		UNION ALL
		SELECT *
		FROM (` + polledSources + ` AND next_poll > $4 ORDER BY next_poll, source_id LIMIT $3) AS wrong_sources
		UNION ALL
		SELECT *
		FROM (` + polledContents + ` AND c.next_poll <= $2 ORDER BY c.next_poll, c.id LIMIT $3) AS due_contents
		UNION ALL
		SELECT *
		FROM (` + polledSources + ` AND next_poll <= $2 ORDER BY next_poll, source_id LIMIT $3) AS due_sources
		LIMIT $3`

// DueSources returns up to limit sources whose status is to be asked for, or none if none is due: the due ones and, to
// fill the request, those due within slack. Sources asked for together should stay together: give them one NextPoll.
//
// In a shared state the sources are the caller's for pollLease: another process gets them if the caller does not record their
// polls until then.
func (s *Inventory) DueSources(ctx context.Context, destinationID int64, slack time.Duration, limit int) ([]DueSource, error) {
	var due []DueSource
	var err error
	if s.shared() {
		err = s.updateLazily(ctx, func(t *tx) (err error) {
			due, err = t.takeDueSources(destinationID, slack, limit)
			return err
		})
	} else {
		due, err = dueSources(destinationID, slack, limit, func(query string, args []any, row func(scan func(...any) error) error) error {
			return s.query(ctx, query, args, row)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read due sources: %w", err)
	}
	return due, nil
}

// pollLease is how long the sources that a process asks for are not due for others.
const pollLease = 30 * time.Second

func (t *tx) takeDueSources(destinationID int64, slack time.Duration, limit int) ([]DueSource, error) {
	if err := t.session.lockPolls(destinationID); err != nil {
		return nil, err
	}
	due, err := dueSources(destinationID, slack, limit, t.each)
	if err != nil {
		return nil, err
	}
	return due, t.setNextPoll(destinationID, due, now()+pollLease.Milliseconds())
}

// setNextPoll sets when sources that are still polled are due next.
func (t *tx) setNextPoll(destinationID int64, sources []DueSource, at int64) error {
	return eachChunk(sources, func(chunk []DueSource) error {
		args := []any{at, destinationID}
		for _, d := range chunk {
			args = append(args, d.ID)
		}
		ids := valueRows(3, 1, len(chunk))
		if _, err := t.exec(`UPDATE contents
			SET next_poll = $1
			WHERE destination_id = $2
			  AND state > {content.uncertain}
			  AND next_poll <> 0
			  AND source_id > 0
			  AND source_id IN `+ids, args...); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE sources
			SET next_poll = $1
			WHERE destination_id = $2
			  AND next_poll <> 0
			  AND source_id IN `+ids, args...)
		return err
	})
}

// PostponePolls makes due sources due at another time, without a question for their status. It leaves those whose training has ended.
func (s *Inventory) PostponePolls(ctx context.Context, destinationID int64, due []DueSource, until time.Time) error {
	err := s.updateLazily(ctx, func(t *tx) error {
		if err := t.session.lockPolls(destinationID); err != nil {
			return err
		}
		return t.setNextPoll(destinationID, due, max(waitUntil(until), 1))
	})
	if err != nil {
		return fmt.Errorf("postpone polls: %w", err)
	}
	return nil
}

func dueSources(destinationID int64, slack time.Duration, limit int, query queryFunc) ([]DueSource, error) {
	var due []DueSource
	at, far := now(), farthest()
	err := query(duePolls, []any{destinationID, at + slack.Milliseconds(), limit, far}, func(scan func(...any) error) error {
		var d DueSource
		var created, next int64
		var outcome Outcome
		err := scan(&d.ID, &d.Polls, &d.Status, &created, &outcome, &next)
		d.CreatedAt, d.Stuck = fromMillis(created), outcome == TrainingStuck
		d.Status = cmp.Or(d.Status, usualStatus(outcome))
		if len(due) > 0 || next <= at || next > far {
			due = append(due, d)
		}
		return err
	})
	return due, err
}

// NextPoll returns when the next source of the destination is due; zero for never.
func (s *Inventory) NextPoll(ctx context.Context, destinationID int64) (time.Time, error) {
	var first, last [2]int64 // of contents and of sources
	const (
		ofContents = ` FROM contents WHERE destination_id = $1 AND next_poll <> 0 AND state > {content.uncertain}), 0)`
		ofSources  = ` FROM sources WHERE destination_id = $1 AND next_poll <> 0), 0)`
	)
	err := s.queryOne(ctx, `SELECT coalesce((SELECT min(next_poll)`+ofContents+`,
			coalesce((SELECT max(next_poll)`+ofContents+`,
			coalesce((SELECT min(next_poll)`+ofSources+`,
			coalesce((SELECT max(next_poll)`+ofSources, []any{destinationID}, &first[0], &last[0], &first[1], &last[1])
	if err != nil {
		return time.Time{}, fmt.Errorf("read next poll: %w", err)
	}
	at := min(cmp.Or(first[0], first[1]), cmp.Or(first[1], first[0]))
	if max(last[0], last[1]) > farthest() {
		at = 1
	}
	return fromMillis(at), nil
}

// MakeStuckDue makes every stuck source of the destination due now.
func (s *Inventory) MakeStuckDue(ctx context.Context, destinationID int64) error {
	err := s.update(ctx, func(t *tx) error {
		at := now()
		if _, err := t.exec(`UPDATE contents
			SET next_poll = $1
			WHERE destination_id = $2
			  AND next_poll <> 0
			  AND state > {content.uncertain}
			  AND next_poll > $1
			  AND state = {content.stuck}`, at, destinationID); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE sources
			SET next_poll = $1
			WHERE destination_id = $2
			  AND next_poll <> 0
			  AND next_poll > $1
			  AND outcome = {outcome.stuck}`, at, destinationID)
		return err
	})
	if err != nil {
		return fmt.Errorf("make stuck sources due: %w", err)
	}
	return nil
}

// RecordPolls records the statuses of sources, and updates the contents that depend on them. It ignores a poll of a source
// that was polled again since (see Poll.Polls). A source that MarkSourcesGone has acknowledged is not polled again.
func (s *Inventory) RecordPolls(ctx context.Context, destinationID int64, polls []Poll) error {
	err := s.db.together(func(mode lockMode) error {
		return s.updateLazily(ctx, func(t *tx) error { return t.recordPolls(destinationID, polls, mode) })
	})
	if err != nil {
		return fmt.Errorf("record statuses: %w", err)
	}
	return nil
}

func (t *tx) recordPolls(destinationID int64, polls []Poll, mode lockMode) error {
	if err := errors.Join(t.lockDestination(destinationID, mode), t.session.lockPolls(destinationID)); err != nil {
		return err
	}
	r := polling{tx: t, mode: mode, destination: destinationID, at: now()}
	err := t.one(`SELECT knowledge_base FROM destinations WHERE id = $1`, []any{destinationID}, &r.knowledgeBase)
	if err != nil {
		return err
	}
	return eachChunk(polls, r.record)
}

// foreignPollPause is the time until the next poll of a source whose status came from another knowledge base.
const foreignPollPause = 10 * time.Minute

// A polling records the polls of a destination's sources.
type polling struct {
	tx                             *tx
	mode                           lockMode
	destination, knowledgeBase, at int64
}

func (r *polling) foreign(p Poll) bool {
	return p.KnowledgeBase != 0 && p.KnowledgeBase != r.knowledgeBase
}

// fitsContent reports whether the content says everything about the source after this poll.
func (r *polling) fitsContent(p Poll) bool {
	return !r.foreign(p) && p.Errors == "" && (p.Status == "" || p.Status == usualStatus(p.Outcome))
}

// record records polls: in the contents where the sources are there and still fit, else in the table of sources.
func (r *polling) record(polls []Poll) error {
	inContent, err := r.contents(polls)
	if err != nil {
		return err
	}
	var usual []Poll
	for _, p := range polls {
		content, ok := inContent[p.SourceID]
		switch {
		case r.mode == together && !(ok && r.fitsContent(p) && p.Outcome != TrainingFailed):
			return errAlone
		case ok && r.fitsContent(p):
			usual = append(usual, p)
			continue
		case ok && !r.foreign(p):
			err = r.tx.moveSource(content)
		case ok:
			err = r.pollContentAgain(content, p)
		}
		if err != nil {
			return err
		}
		if ok && r.foreign(p) {
			continue
		}
		if err := r.recordInSources(p); err != nil {
			return fmt.Errorf("source %d: %w", p.SourceID, err)
		}
	}
	if len(usual) == 0 {
		return nil
	}
	return r.recordInContents(usual, inContent)
}

// contents returns, by source, the contents that have sources of those polls.
func (r *polling) contents(polls []Poll) (map[int64]int64, error) {
	args := []any{r.destination}
	for _, p := range polls {
		args = append(args, p.SourceID)
	}
	found := make(map[int64]int64, len(polls))
	err := r.tx.each(`SELECT source_id, id
		FROM contents
		WHERE destination_id = $1
		  AND state > {content.uncertain}
		  AND source_id > 0
		  AND source_id IN `+valueRows(2, 1, len(polls)), args, func(scan func(...any) error) error {
		var source, content int64
		err := scan(&source, &content)
		found[source] = content
		return err
	})
	return found, err
}

// recordInContents records the usual statuses of sources that are in their contents.
func (r *polling) recordInContents(polls []Poll, contents map[int64]int64) error {
	args := []any{r.at}
	for _, p := range polls {
		var sum outcomeSum
		sum.add(p.Outcome, "")
		state, reason := sum.state()
		next := waitUntil(p.NextPoll)
		if p.Outcome.final() {
			next = 0
		}
		args = append(args, contents[p.SourceID], p.Polls, state, reason, next)
	}
	_, err := r.tx.exec(`UPDATE contents
		SET since = CASE WHEN state = v.column3 THEN since ELSE $1 END, state = v.column3, reason = v.column4,
			next_poll = v.column5, polls = polls + 1
		FROM (VALUES `+valueRows(2, len(polls), 5)+`) AS v
		WHERE contents.id = v.column1
		  AND contents.polls = v.column2`, args...)
	for _, p := range polls {
		if err == nil && p.Outcome == TrainingFailed {
			err = r.tx.contentFailed(contents[p.SourceID])
		}
	}
	return err
}

// again is when a source is polled again whose status came from another knowledge base.
func (r *polling) again(p Poll) int64 {
	return max(waitUntil(p.NextPoll), r.at+foreignPollPause.Milliseconds())
}

// pollContentAgain counts a poll whose status belongs to another knowledge base.
func (r *polling) pollContentAgain(content int64, p Poll) error {
	_, err := r.tx.exec(`UPDATE contents
		SET polls = polls + 1, next_poll = $1
		WHERE id = $2
		  AND polls = $3
		  AND next_poll <> 0`, r.again(p), content, p.Polls)
	return err
}

// recordInSources records the status of a source that has a row of its own.
func (r *polling) recordInSources(p Poll) error {
	var content, polls int64
	var before Outcome
	if err := r.tx.one(`SELECT content_id, outcome, polls
		FROM sources
		WHERE destination_id = $1
		  AND source_id = $2`, []any{r.destination, p.SourceID}, &content, &before, &polls); err != nil {
		return err
	}
	if polls != int64(p.Polls) {
		return nil // another process has asked for it, too
	}
	if r.foreign(p) {
		_, err := r.tx.exec(`UPDATE sources
			SET polls = polls + 1, next_poll = $1
			WHERE destination_id = $2
			  AND source_id = $3
			  AND next_poll <> 0`, r.again(p), r.destination, p.SourceID)
		return err
	}
	next, outcomeAt := waitUntil(p.NextPoll), int64(0)
	if p.Outcome.final() {
		next, outcomeAt = 0, r.at
	}
	if _, err := r.tx.exec(`UPDATE sources
		SET status = CASE WHEN $1 = '' THEN status ELSE $1 END,
			outcome = $2,
			errors = CASE WHEN $3 = '' THEN errors ELSE $3 END,
			polls = polls + 1,
			next_poll = CASE WHEN acked_at <> 0 THEN 0 ELSE $4 END,
			outcome_at = $5
		WHERE destination_id = $6
		  AND source_id = $7`,
		p.Status, int(p.Outcome), p.Errors, next, outcomeAt, r.destination, p.SourceID); err != nil {
		return err
	}
	if before == p.Outcome {
		return nil
	}
	return r.tx.updateContent(content, r.at)
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
	if err != nil || state != contentFailed {
		return err
	}
	return t.contentFailed(content)
}

// AnySource returns the id of a source of the destination, to test the API with; 0 if there is none.
func (s *Inventory) AnySource(ctx context.Context, destinationID int64) (int64, error) {
	var inContents, inSources int64
	err := s.queryOne(ctx, `SELECT coalesce((
			SELECT max(source_id)
			FROM contents
			WHERE destination_id = $1
			  AND state > {content.uncertain}
			  AND source_id > 0), 0), coalesce((
			SELECT max(source_id)
			FROM sources
			WHERE destination_id = $1
			  AND acked_at = 0), 0)`, []any{destinationID}, &inContents, &inSources)
	id := max(inContents, inSources)
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
		if err := t.lockDestination(destinationID, alone); err != nil {
			return err
		}
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
	err = t.one(`SELECT id
		FROM contents
		WHERE destination_id = $1
		  AND state > {content.uncertain}
		  AND source_id > 0
		  AND source_id = $2`, []any{destinationID, id}, &content)
	if err == nil {
		err = t.moveSource(content)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
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
