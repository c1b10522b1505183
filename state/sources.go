package state

import "strings"

// Most sources need no row of their own: an upload makes one source of a document, and everything about it follows from its
// content. Such a source is the content's source_id. Every other source is a row of the table sources, and a source moves there
// before its content forgets it.

// fileType is the type of an uploaded file's source.
const fileType = "file"

// sourceRoom is the source_id of a content that has none yet. It is as long as an id of the API.
const sourceRoom = -1 << 31

// fitsContent reports whether everything about the source of a document follows from its content.
func fitsContent(src SourceAnswer, key string) bool {
	return src.ID > 0 && src.Type == fileType && src.Errors == "" && src.Status == usualStatus(src.Outcome) && src.Name == usualName(key)
}

// usualName is the name of a document's source unless the user asked for others.
func usualName(key string) string { return strings.ReplaceAll(key, "/", "__") }

// usualStatus is the API's word for an outcome.
func usualStatus(o Outcome) string {
	switch o {
	case TrainingCompleted:
		return "completed"
	case TrainingFailed:
		return "failed"
	default:
		return "in-progress"
	}
}

// contentOutcome is the outcome of the source in a content c.
const contentOutcome = `CASE c.state
		WHEN {content.completed} THEN {outcome.completed}
		WHEN {content.failed} THEN {outcome.failed}
		WHEN {content.stuck} THEN {outcome.stuck}
		ELSE {outcome.training}
	END`

// moveSource moves the source in a content, if it has one, to the table of sources.
func (t *tx) moveSource(content int64) error {
	var destination, source, batch, document, createdAt, since, polls, nextPoll int64
	var outcome Outcome
	var key []byte
	found := false
	err := t.each(`SELECT c.destination_id, c.source_id, c.batch_id, c.document_id, b.ended_at, c.since, c.polls, c.next_poll,
			`+contentOutcome+`, d.key
		FROM contents c
		JOIN batches b ON b.id = c.batch_id
		JOIN documents d ON d.id = c.document_id
		WHERE c.id = $1
		  AND c.source_id > 0`, []any{content}, func(scan func(...any) error) error {
		found = true
		return scan(&destination, &source, &batch, &document, &createdAt, &since, &polls, &nextPoll, &outcome, &key)
	})
	if err != nil || !found {
		return err
	}
	var outcomeAt int64
	if outcome.final() {
		outcomeAt = since
	}
	if _, err := t.exec(`UPDATE contents
		SET source_id = 0, polls = 0, next_poll = 0
		WHERE id = $1`, content); err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO sources (destination_id, source_id, content_id, batch_id, document_id, name, type, status,
			outcome, created_at, outcome_at, polls, next_poll)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		destination, source, content, batch, document, usualName(string(key)), fileType, usualStatus(outcome),
		int(outcome), createdAt, outcomeAt, polls, nextPoll)
	return err
}
