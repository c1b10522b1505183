package state

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// blockedPrefix begins the reason of a skipped document that a scan would upload: its content shows that it can never train.
const blockedPrefix = "blocked: "

// IsBlocked reports whether the reason of a skipped document means that it is blocked: a scan would upload it.
func IsBlocked(reason string) bool { return strings.HasPrefix(reason, blockedPrefix) }

// isBlocked is the condition that a document is skipped for its content.
const isBlocked = `state = {doc.skipped} AND substr(reason, 1, 9) = '` + blockedPrefix + `'`

// Block ends the claims of documents that must not be sent, with the reason of each. They are skipped. A document keeps its version
// and its source, which are better than the content that is blocked; and it keeps its fingerprint, so that no scan records it again
// until it changes. Lost claims are ignored.
func (s *Queue) Block(ctx context.Context, docs []ClaimedDocument, reasons []string) error {
	err := s.update(ctx, func(t *tx) error {
		for i, d := range docs {
			if _, err := t.exec(`UPDATE documents
				SET state = {doc.skipped}, reason = $1, claim = 0, forced = 0, attempts = 0, next_attempt = 0
				WHERE id = $2
				  AND state = {doc.claimed}
				  AND claim = $3`, blockedPrefix+reasons[i], d.DocumentID, d.Claim); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("block documents: %w", err)
	}
	return nil
}

// ReopenBlocked makes the blocked documents of the sync pending, to be looked at again. It returns how many.
func (s *Queue) ReopenBlocked(ctx context.Context, syncID int64) (int, error) {
	var n int64
	err := s.update(ctx, func(t *tx) (err error) {
		if err := t.lockSync(syncID, alone); err != nil {
			return err
		}
		n, err = t.exec(`UPDATE documents
			SET state = {doc.pending}, reason = '', changed_at = $1
			WHERE sync_id = $2
			  AND `+isBlocked, now(), syncID)
		if err != nil || n == 0 {
			return err
		}
		return t.notify()
	})
	if err != nil {
		return 0, fmt.Errorf("reopen blocked documents: %w", err)
	}
	return int(n), nil
}

// Blocked streams the sync's blocked documents in byte order of the key. It reads no others than skipped ones.
func (s *Documents) Blocked(ctx context.Context, syncID int64) iter.Seq2[Document, error] {
	return pages[Document]{
		subject: "blocked documents",
		query:   blockedDocuments,
		args:    []any{syncID, []byte{}},
		start:   []any{[]byte{}},
		after:   func(d Document) []any { return []any{keyAfter(d.Key)} },
		keep:    func(d Document) bool { return IsBlocked(d.Reason) },
		scan:    scanDocument,
	}.stream(ctx, s.db)
}

const blockedDocuments = `SELECT ` + documentRows + `
	  AND d.state = {doc.skipped}
	  AND d.key >= $3
	ORDER BY d.key
	LIMIT $4`

// CountBlocked returns the number of the sync's blocked documents.
func (s *Documents) CountBlocked(ctx context.Context, syncID int64) (n int, err error) {
	err = s.queryOne(ctx, countBlocked, []any{syncID}, &n)
	if err != nil {
		return 0, fmt.Errorf("count blocked documents: %w", err)
	}
	return n, nil
}

const countBlocked = `SELECT count(*)
	FROM documents
	WHERE sync_id = $1
	  AND ` + isBlocked
