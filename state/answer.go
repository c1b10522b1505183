package state

import (
	"context"
	"fmt"
	"slices"
)

// A Receipt lists the parts of an answer that contradict the batch or the inventory. Log them: the documents at the
// uncertain positions may be in the knowledge base without an id that can be trusted.
type Receipt struct {
	Uncertain []int      // positions of the members that are uncertain
	Conflicts []Conflict // sources that were not taken for the member's
	// Streak is how many batches in a row became uncertain, this one included, if no member was accepted. Zero otherwise.
	Streak int
}

// A Conflict is a source in an answer that cannot be the member's.
type Conflict struct {
	SourceID int64
	Position int // of the member; -1 for a source under a field that was not sent
	Reason   string
}

// Accept records a sealed batch's answer: its sources enter the inventory, durably, and the breaker closes. It may be
// called again after an error.
//
// The answer is checked against the inventory. A member is uncertain if the answer lacks it, has an unreadable id for it,
// names another knowledge base, gives an id that the inventory has for another content, or gives an id to two members. No
// row of the inventory moves to another content. New ids of an uncertain member are recorded without a content, and
// complete no document. If no member is accepted, the batch is uncertain and the breaker opens, as after MarkUncertain.
//
// Errors: ErrBatchEnded if the batch was never sealed, or has its answer.
func (s *Journal) Accept(ctx context.Context, u *Upload, answer Answer) (Receipt, error) {
	var receipt Receipt
	err := s.updateUpload(ctx, u, func(t *tx, b batchRow, mode lockMode) (err error) {
		// The answer may come after recovery took the batch for uncertain: its sources must be recorded all the same.
		switch {
		case b.state == batchAnswered && u.failed:
			return nil
		case b.state != batchSealed && b.state != batchUncertain:
			return ErrBatchEnded
		}
		if mode == together && (b.state != batchSealed || b.breaker.changedBy(b.bytes)) {
			return errAlone
		}
		receipt, err = t.accept(b, u, answer, mode)
		return err
	})
	if err != nil {
		u.failed = true
		return Receipt{}, fmt.Errorf("record answer: %w", err)
	}
	return receipt, nil
}

// An acceptance is an answer while it is checked and recorded.
type acceptance struct {
	tx          *tx
	mode        lockMode
	batch       batchRow
	answer      Answer
	at          int64
	destination int64           // of the knowledge base that the answer names
	foreign     bool            // the answer names another knowledge base than the batch's
	known       map[int64]int64 // the contents of the answer's ids that the inventory has
	shared      map[int64]bool  // ids that the answer gives to more than one field
	usual       []usualMember
	receipt     Receipt
}

// A member is a document of a sealed batch.
type member struct {
	position          int
	key               string
	document, content int64
}

// A usualMember is a member with one source that fits into its content.
type usualMember struct {
	content int64
	source  SourceAnswer
}

func (t *tx) accept(b batchRow, u *Upload, answer Answer, mode lockMode) (Receipt, error) {
	a := acceptance{tx: t, mode: mode, batch: b, answer: answer, at: now()}
	if err := a.check(); err != nil {
		return Receipt{}, err
	}
	if mode == together && len(answer.Unasked) > 0 {
		return Receipt{}, errAlone
	}
	for i, doc := range u.spec.Members {
		m := member{position: i, key: doc.Key, document: doc.DocumentID, content: u.contents[i]}
		if err := a.acceptMember(m); err != nil {
			return Receipt{}, err
		}
	}
	if err := eachChunk(a.usual, a.acceptUsual); err != nil {
		return Receipt{}, err
	}
	for _, src := range answer.Unasked {
		if err := a.addStray(member{position: -1}, src); err != nil {
			return Receipt{}, err
		}
	}
	e := ending{state: batchAnswered, statusCode: answer.StatusCode}
	if n := len(u.contents); n > 0 && len(a.receipt.Uncertain) == n {
		e.state, e.message = batchUncertain, "the answer names no document with a source of its own"
	}
	var err error
	a.receipt.Streak, err = t.endBatch(b, e)
	return a.receipt, err
}

// check finds the destination of the answer, and the ids in it that cannot be trusted.
func (a *acceptance) check() (err error) {
	a.destination = a.batch.destination
	if kb := a.answer.KnowledgeBase; kb != 0 && kb != a.batch.knowledgeBase {
		if a.mode == together {
			return errAlone
		}
		a.foreign = true
		if a.destination, err = a.tx.siblingDestination(a.batch.destination, kb); err != nil {
			return err
		}
	}
	fields := slices.Concat(a.answer.Sources, [][]SourceAnswer{a.answer.Unasked})
	inField := map[int64]int{}
	var ids []int64
	for i, sources := range fields {
		for _, src := range sources {
			if j, ok := inField[src.ID]; ok && j != i {
				if a.shared == nil {
					a.shared = map[int64]bool{}
				}
				a.shared[src.ID] = true
			}
			inField[src.ID] = i
			ids = append(ids, src.ID)
		}
	}
	a.known, err = a.tx.knownSources(a.destination, ids)
	return err
}

// siblingDestination returns another knowledge base of a destination's account.
func (t *tx) siblingDestination(id, knowledgeBase int64) (int64, error) {
	d := Destination{KnowledgeBase: knowledgeBase}
	err := t.one(`SELECT origin, account FROM destinations WHERE id = $1`, []any{id}, &d.Origin, &d.Account)
	if err != nil {
		return 0, err
	}
	return t.ensureDestination(d)
}

// sourcesBetween selects the sources of the destination $1 with ids from $2 to $3. SQLite seeks from the first lower bound of the
// text, so the smallest id stands before the condition of the index.
const sourcesBetween = `SELECT source_id, content_id
	FROM sources
	WHERE destination_id = $1
	  AND source_id >= $2
	  AND source_id <= $3
	UNION ALL
	SELECT source_id, id
	FROM contents
	WHERE destination_id = $1
	  AND source_id >= $2
	  AND source_id <= $3
	  AND state > {content.uncertain}
	  AND source_id > 0`

// knownSources returns the contents of the ids that the inventory has. The ids of one answer are neighbours, so one range
// costs less than a lookup for each.
func (t *tx) knownSources(destination int64, ids []int64) (map[int64]int64, error) {
	known := map[int64]int64{}
	if len(ids) == 0 {
		return known, nil
	}
	asked := make(map[int64]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	err := t.each(sourcesBetween, []any{destination, max(slices.Min(ids), 1), slices.Max(ids)}, func(scan func(...any) error) error {
		var id, content int64
		err := scan(&id, &content)
		if asked[id] {
			known[id] = content
		}
		return err
	})
	return known, err
}

// acceptMember adds the member's sources, and gives its content the state that follows from them.
func (a *acceptance) acceptMember(m member) error {
	var sources []SourceAnswer
	if m.position < len(a.answer.Sources) {
		sources = a.answer.Sources[m.position]
	}
	reason := a.validate(m, sources)
	// An answer that comes late may find its content in another batch.
	if reason == "" && a.batch.state == batchSealed && len(sources) == 1 && fitsContent(sources[0], m.key) && len(a.known) == 0 {
		a.usual = append(a.usual, usualMember{m.content, sources[0]})
		return nil
	}
	if a.mode == together {
		return errAlone
	}
	if reason != "" {
		return a.markUncertain(m, sources, reason)
	}
	if err := a.acceptSources(m, sources); err != nil {
		return err
	}
	// If the content was sent again meanwhile, the knowledge base has it twice.
	_, err := a.tx.exec(`DELETE FROM members
		WHERE batch_id = $1
		  AND document_id = $2
		  AND content_id IN (SELECT id FROM contents WHERE id = $3 AND batch_id = $1)`, a.batch.id, m.document, m.content)
	return err
}

// acceptSources adds the member's sources, and gives its content the state that follows from them. Another batch may have the same
// sources, if the API recognizes a content. Then this answer says nothing new about them.
func (a *acceptance) acceptSources(m member, sources []SourceAnswer) error {
	if err := a.tx.moveSource(m.content); err != nil {
		return err
	}
	var sum outcomeSum
	isNew := false
	for _, src := range sources {
		added, err := a.addSource(m, src)
		if err != nil {
			return err
		}
		if added {
			isNew = true
			sum.add(src.Outcome, src.Errors)
		}
	}
	if !isNew {
		return nil
	}
	state, reason := sum.state()
	if err := a.setContent(m, state, reason); err != nil || state != contentFailed {
		return err
	}
	return a.tx.contentFailed(m.content)
}

// markUncertain records the sources of a member that cannot be trusted, and that the member is uncertain.
func (a *acceptance) markUncertain(m member, sources []SourceAnswer, reason string) error {
	a.receipt.Uncertain = append(a.receipt.Uncertain, m.position)
	for _, src := range sources {
		if err := a.addStray(m, src); err != nil {
			return err
		}
	}
	if _, err := a.tx.exec(`INSERT INTO members (batch_id, document_id, content_id)
		VALUES ($1, $2, $3)
		ON CONFLICT (batch_id, document_id) DO NOTHING`, a.batch.id, m.document, m.content); err != nil {
		return err
	}
	return a.setContent(m, contentUncertain, reason)
}

// setContent gives the member's content the state that follows from the answer. If another batch has sent the content again, that is
// its prior state.
func (a *acceptance) setContent(m member, state int, reason string) error {
	n, err := a.tx.exec(`UPDATE contents
		SET state = $1, reason = $2, since = $3, source_id = 0, next_poll = 0
		WHERE id = $4
		  AND batch_id = $5
		  AND state IN ({content.reserved}, {content.uncertain})`, state, reason, a.at, m.content, a.batch.id)
	if err != nil || n > 0 {
		return err
	}
	_, err = a.tx.exec(`UPDATE contents
		SET prior_state = $1
		WHERE id = $2
		  AND prior_batch = $3
		  AND state IN ({content.reserved}, {content.uncertain}, {content.failed})`, state, m.content, a.batch.id)
	if err != nil {
		return err
	}
	return a.tx.endResends(`id = $1`, m.content)
}

// acceptUsual records sources in their contents.
func (a *acceptance) acceptUsual(chunk []usualMember) error {
	args := []any{a.at, a.batch.id}
	for _, m := range chunk {
		var sum outcomeSum
		sum.add(m.source.Outcome, "")
		state, reason := sum.state()
		args = append(args, m.content, state, reason, m.source.ID, a.nextPoll(m.source.Outcome))
	}
	n, err := a.tx.exec(`UPDATE contents
		SET state = v.column2, reason = v.column3, source_id = v.column4, next_poll = v.column5, polls = 0, since = $1
		FROM (VALUES `+valueRows(3, len(chunk), 5)+`) AS v
		WHERE contents.id = v.column1
		  AND contents.batch_id = $2
		  AND contents.state = {content.reserved}`, args...)
	if err == nil && n != int64(len(chunk)) {
		err = fmt.Errorf("%d of %d contents are not reserved for batch %d", int64(len(chunk))-n, len(chunk), a.batch.id)
	}
	for _, m := range chunk {
		switch {
		case err != nil || m.source.Outcome != TrainingFailed:
		case a.mode == together:
			return errAlone // documents with the content may become pending
		default:
			err = a.tx.contentFailed(m.content)
		}
	}
	return err
}

// nextPoll is when a source with that outcome is to be asked for; 0 for never.
func (a *acceptance) nextPoll(o Outcome) int64 {
	if o.final() {
		return 0
	}
	return max(waitUntil(a.answer.NextPoll), 1)
}

// validate returns why the member's sources cannot be trusted, or an empty text.
func (a *acceptance) validate(m member, sources []SourceAnswer) string {
	if slices.Contains(a.answer.Unreadable, m.position) {
		return "the answer gave it a source without a readable id"
	}
	if len(sources) == 0 {
		return "the answer did not mention the document"
	}
	for _, src := range sources {
		if reason := a.conflict(m, src.ID); reason != "" {
			return fmt.Sprintf("the answer gave it source %d, but %s", src.ID, reason)
		}
	}
	return ""
}

// conflict returns why the id cannot be a source of the member, or an empty text.
func (a *acceptance) conflict(m member, id int64) string {
	content, known := a.known[id]
	switch {
	case a.foreign:
		return fmt.Sprintf("the answer names knowledge base %d", a.answer.KnowledgeBase)
	case a.shared[id]:
		return "the answer gives that id to more than one document"
	case known && content != m.content:
		return "the inventory has that id for another content"
	}
	return ""
}

// addStray records a source that is no member's: an unknown one enters the inventory without a content.
func (a *acceptance) addStray(m member, src SourceAnswer) error {
	if reason := a.conflict(m, src.ID); reason != "" {
		a.receipt.Conflicts = append(a.receipt.Conflicts, Conflict{SourceID: src.ID, Position: m.position, Reason: reason})
	}
	if _, known := a.known[src.ID]; known {
		return nil
	}
	a.known[src.ID] = 0
	m.content = 0
	if a.shared[src.ID] {
		m.document = 0
	}
	_, err := a.addSource(m, src)
	return err
}

// addSource adds a source to the table of sources, or updates a source of the same content there. If the content's last batch is another
// one, a source of that batch or of the batch before it stays as it is: the state of the content follows from it.
func (a *acceptance) addSource(m member, src SourceAnswer) (added bool, err error) {
	var outcomeAt int64
	if src.Outcome.final() {
		outcomeAt = a.at
	}
	n, err := a.tx.exec(`INSERT INTO sources (destination_id, source_id, content_id, batch_id, document_id, name, type, status,
			outcome, errors, created_at, outcome_at, next_poll)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (destination_id, source_id) DO UPDATE
		SET batch_id = excluded.batch_id, document_id = excluded.document_id, name = excluded.name,
			type = excluded.type, status = excluded.status, outcome = excluded.outcome, errors = excluded.errors,
			outcome_at = excluded.outcome_at, next_poll = excluded.next_poll, acked_at = 0
		WHERE sources.content_id = excluded.content_id
		  AND NOT EXISTS (
			SELECT 1
			FROM contents c
			WHERE c.id = sources.content_id
			  AND c.batch_id <> excluded.batch_id
			  AND sources.batch_id IN (c.batch_id, c.prior_batch))`,
		a.destination, src.ID, m.content, a.batch.id, m.document, src.Name, src.Type, src.Status,
		int(src.Outcome), src.Errors, a.at, outcomeAt, a.nextPoll(src.Outcome))
	return n > 0, err
}
