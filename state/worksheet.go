package state

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"
)

// A WorksheetRow is a source with what a person needs to decide on it.
type WorksheetRow struct {
	Source
	// Documents have the content of the source now, after a rename under another key than Source.Key. They are at most
	// MaxNamed; MoreDocuments reports that there are others.
	Documents     []DocumentName
	MoreDocuments bool
	// LeftAt is when the last document left the content of a superseded or orphaned source, or when a newer source of the same
	// content completed. It is zero for a source that is live or gone.
	LeftAt time.Time
	// ReplacedBy are the sources that answer in place of a superseded one now: those of the documents that had its content, or
	// the newer one of the same content. A source whose training failed replaces none. They are at most MaxNamed.
	ReplacedBy []int64
}

// A DocumentName identifies a document.
type DocumentName struct {
	Sync string `json:"sync"`
	Key  string `json:"key"`
}

// MaxNamed is the number of documents, and of ids, that a row of a worksheet names at most: a content may have any number of
// documents.
const MaxNamed = 100

// worksheetChunk is the number of rows that are completed together. With MaxNamed it bounds the memory of a worksheet.
const worksheetChunk = 100

// Worksheet streams the sources of Sources with more about each.
func (s *Inventory) Worksheet(ctx context.Context, f SourceFilter) iter.Seq2[WorksheetRow, error] {
	return inChunks(s.Sources(ctx, f), worksheetChunk,
		func(source Source) WorksheetRow { return WorksheetRow{Source: source} },
		func(rows []WorksheetRow) error { return s.complete(ctx, rows) })
}

// inChunks streams rows that complete fills in, several at a time.
func inChunks[T, R any](from iter.Seq2[T, error], size int, row func(T) R, complete func([]R) error) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var chunk []R
		flush := func() bool {
			if len(chunk) == 0 {
				return true
			}
			if err := complete(chunk); err != nil {
				var zero R
				yield(zero, err)
				return false
			}
			for _, r := range chunk {
				if !yield(r, nil) {
					return false
				}
			}
			chunk = chunk[:0]
			return true
		}
		for v, err := range from {
			if err != nil {
				var zero R
				yield(zero, err)
				return
			}
			if chunk = append(chunk, row(v)); len(chunk) == size && !flush() {
				return
			}
		}
		flush()
	}
}

// complete fills in rows.
func (s *Inventory) complete(ctx context.Context, rows []WorksheetRow) error {
	w := worksheet{db: s.db, rows: map[int64][]*WorksheetRow{}}
	for i := range rows {
		content := rows[i].content
		switch {
		case content == 0 && rows[i].Standing == Orphaned:
			rows[i].LeftAt = rows[i].CreatedAt // no document ever had it
		case content != 0 && rows[i].Standing != Gone:
			if w.rows[content] == nil {
				w.contents = append(w.contents, content)
			}
			w.rows[content] = append(w.rows[content], &rows[i])
		}
	}
	if len(w.contents) == 0 {
		return nil
	}
	w.of = `IN ` + valueRows(1, 1, len(w.contents))
	for _, read := range []func(context.Context) error{w.readDocuments, w.readLeft, w.readNewer, w.readSuccessors} {
		if err := read(ctx); err != nil {
			return fmt.Errorf("read worksheet: %w", err)
		}
	}
	return nil
}

// A worksheet is a chunk of rows that is filled in.
type worksheet struct {
	db       *db
	rows     map[int64][]*WorksheetRow // by content
	contents []any
	of       string // the condition on a column that names one of the contents
}

// read runs a query about the contents. row gets the rows of the worksheet with the content of each of its rows.
func (w *worksheet) read(ctx context.Context, query string, dest []any, row func(*WorksheetRow)) error {
	return w.db.query(ctx, query, w.contents, func(scan func(...any) error) error {
		var content int64
		if err := scan(append([]any{&content}, dest...)...); err != nil {
			return err
		}
		for _, r := range w.rows[content] {
			row(r)
		}
		return nil
	})
}

// readDocuments reads the first documents that have each content. They come in the order of an index, so none are sorted.
func (w *worksheet) readDocuments(ctx context.Context) error {
	var name string
	var key []byte
	return w.read(ctx, `SELECT n.content_id, y.name, n.key
		FROM (
			SELECT d.content_id, d.sync_id, d.key, row_number() OVER (PARTITION BY d.content_id ORDER BY d.id) AS position
			FROM documents d
			WHERE d.content_id `+w.of+`
		) AS n
		JOIN syncs y ON y.id = n.sync_id
		WHERE n.position <= {max.named} + 1
		ORDER BY n.content_id, n.position`, []any{&name, &key}, func(r *WorksheetRow) {
		if r.MoreDocuments = len(r.Documents) == MaxNamed; !r.MoreDocuments {
			r.Documents = append(r.Documents, DocumentName{name, string(key)})
		}
	})
}

// readLeft reads when the last document left each content.
func (w *worksheet) readLeft(ctx context.Context) error {
	var until int64
	return w.read(ctx, `SELECT f.content_id, max(f.until)
		FROM past_contents f
		WHERE f.content_id `+w.of+`
		GROUP BY f.content_id`, []any{&until}, func(r *WorksheetRow) {
		if len(r.Documents) == 0 {
			r.LeftAt = fromMillis(until)
		}
	})
}

// readNewer reads the sources of each content that completed, and finds the rows that a newer one replaced.
func (w *worksheet) readNewer(ctx context.Context) error {
	var id, batch, at int64
	newest := map[*WorksheetRow]int64{} // batch
	return w.read(ctx, `SELECT c.id, c.source_id, c.batch_id, c.since
		FROM contents c
		WHERE c.id `+w.of+`
		  AND c.source_id > 0
		  AND c.state = {content.completed}
		UNION ALL
		SELECT o.content_id, o.source_id, o.batch_id, o.outcome_at
		FROM sources o
		WHERE o.content_id `+w.of+`
		  AND o.outcome = {outcome.completed}
		  AND o.acked_at = 0`, []any{&id, &batch, &at}, func(r *WorksheetRow) {
		if r.Standing != Superseded || len(r.Documents) == 0 || batch <= r.Batch || batch < newest[r] {
			return
		}
		if batch > newest[r] {
			r.ReplacedBy, newest[r] = nil, batch
		}
		r.ReplacedBy = append(r.ReplacedBy, id)
		r.LeftAt = fromMillis(at)
	})
}

// readSuccessors reads the sources of the contents that the documents of each content have now.
func (w *worksheet) readSuccessors(ctx context.Context) error {
	const now = `FROM past_contents f
		JOIN documents d ON d.id = f.document_id AND d.state <> {doc.removed}
		JOIN contents n ON n.id = d.content_id`
	var id int64
	return w.read(ctx, `SELECT f.content_id, n.source_id
		`+now+`
		WHERE f.content_id `+w.of+`
		  AND n.source_id > 0
		  AND n.state IN ({content.training}, {content.stuck}, {content.completed})
		UNION ALL
		SELECT f.content_id, o.source_id
		`+now+`
		JOIN sources o ON o.content_id = n.id AND o.batch_id = n.batch_id
		WHERE f.content_id `+w.of+`
		  AND o.outcome <> {outcome.failed}
		  AND o.acked_at = 0`, []any{&id}, func(r *WorksheetRow) {
		if r.Standing == Superseded && len(r.Documents) == 0 && len(r.ReplacedBy) < MaxNamed && !slices.Contains(r.ReplacedBy, id) {
			r.ReplacedBy = append(r.ReplacedBy, id)
		}
	})
}
