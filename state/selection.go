package state

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A Selection names documents of a sync for Mark. Skipped and removed documents, and documents that are being uploaded,
// never match.
type Selection struct {
	States    []DocumentState       // any if empty
	Keys      []string              // any if empty
	Match     func(key string) bool // any if nil
	OlderThan time.Time             // outcome recorded, or changed, before; any if zero
}

// Troubled selects what a retry uploads once more: failed, stuck and uncertain documents.
func Troubled() Selection { return Selection{States: []DocumentState{Failed, Stuck, Uncertain}} }

// Mark makes the selected documents pending, to be uploaded once more whatever their content. It needs no lock: a process
// that works on the sync uploads them.
func (s *Queue) Mark(ctx context.Context, syncID int64, sel Selection) (int, error) {
	marked := 0
	err := s.update(ctx, func(t *tx) error {
		if err := t.lockSync(syncID, alone); err != nil {
			return err
		}
		ids, err := t.selected(syncID, sel)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := t.exec(`UPDATE documents
				SET state = {doc.pending}, forced = 1, claim = 0, attempts = 0, next_attempt = 0, reason = '', changed_at = $1
				WHERE id = $2`, now(), id); err != nil {
				return err
			}
		}
		marked = len(ids)
		return t.notify()
	})
	if err != nil {
		return 0, fmt.Errorf("mark documents: %w", err)
	}
	return marked, nil
}

// CountSelected returns how many documents Mark would mark now, and the sum of their sizes in bytes.
func (s *Queue) CountSelected(ctx context.Context, syncID int64, sel Selection) (documents int, bytes int64, err error) {
	if len(sel.States) == 0 && len(sel.Keys) == 0 && sel.Match == nil && sel.OlderThan.IsZero() {
		return s.countAll(ctx, syncID)
	}
	query, args := sel.query(syncID)
	err = s.query(ctx, query, args, func(scan func(...any) error) error {
		_, size, err := sel.scan(scan)
		if size >= 0 {
			documents++
			bytes += size
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("count documents: %w", err)
	}
	return documents, bytes, nil
}

func (sel Selection) matches(state DocumentState, key []byte) bool {
	return state != Uploading &&
		(len(sel.States) == 0 || slices.Contains(sel.States, state)) &&
		(sel.Match == nil || sel.Match(string(key)))
}

// countAll is CountSelected for a selection of all documents. The database sums: a large sync has millions of rows.
func (s *Queue) countAll(ctx context.Context, syncID int64) (documents int, bytes int64, err error) {
	err = s.queryOne(ctx, `SELECT own.n - reserved.n, own.bytes - reserved.bytes
		FROM (
			SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes
			FROM documents
			WHERE sync_id = $1
			  AND state IN ({doc.pending}, {doc.refused}, {doc.linked})
		) AS own, (
			SELECT count(*) AS n, coalesce(sum(d.size), 0) AS bytes
			`+linkedUnfinished+`
			  AND c.state = {content.reserved}
		) AS reserved`, []any{syncID}, &documents, &bytes)
	if err != nil {
		return 0, 0, fmt.Errorf("count documents: %w", err)
	}
	return documents, bytes, nil
}

// query returns the text that reads the documents for scan. Only a selection of keys or of unfinished states does not read all
// documents of the sync.
func (sel Selection) query(syncID int64) (query string, args []any) {
	older := int64(1) << 62
	if !sel.OlderThan.IsZero() {
		older = millis(sel.OlderThan)
	}
	args = []any{syncID, older}
	query = `SELECT d.id, d.key, d.size, ` + documentStateName + ` AS state
		FROM documents d
		LEFT JOIN contents c ON c.id = d.content_id
		WHERE d.sync_id = $1
		  AND d.state IN ({doc.pending}, {doc.refused}, {doc.linked})
		  AND coalesce(c.since, d.changed_at) < $2`
	switch {
	case len(sel.Keys) > 0:
		query += ` AND d.key IN ` + valueRows(len(args)+1, 1, len(sel.Keys))
		for _, key := range sel.Keys {
			args = append(args, []byte(key))
		}
	case len(sel.States) > 0 && !slices.ContainsFunc(sel.States, func(s DocumentState) bool { _, ok := unfinishedCodes(s); return !ok }):
		query += ` AND d.id IN (SELECT id FROM (` + unfinished + `) AS u)`
	}
	return query, args
}

// scan reads a document, and returns its id and its size; the size is negative if the selection does not have it.
func (sel Selection) scan(scan func(...any) error) (id, size int64, err error) {
	var key []byte
	var state DocumentState
	err = scan(&id, &key, &size, &state)
	if !sel.matches(state, key) {
		size = -1
	}
	return id, size, err
}

func (t *tx) selected(syncID int64, sel Selection) (ids []int64, err error) {
	query, args := sel.query(syncID)
	err = t.each(query, args, func(scan func(...any) error) error {
		id, size, err := sel.scan(scan)
		if size >= 0 {
			ids = append(ids, id)
		}
		return err
	})
	return ids, err
}
