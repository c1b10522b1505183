package state

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// A failure is a verdict on a content and on the ending of the name that it was sent under: ReplyCX reads the same bytes in another
// way under another ending. So the table failed_endings has the endings that failed, and a document with another one is tried once.

// endingOf returns the ending of a document's name, as ReplyCX tells formats apart.
func endingOf(key string) string {
	return strings.ToLower(path.Ext(key[strings.LastIndexByte(key, '/')+1:]))
}

// contentFailed records the ending under which a content has just failed, and makes the documents pending that have the content
// under an ending that has not failed. It does nothing for a content that has not failed.
func (t *tx) contentFailed(content int64) error {
	var key []byte
	var document int64
	err := t.one(`SELECT d.id, d.key
		FROM contents c
		JOIN documents d ON d.id = c.document_id
		WHERE c.id = $1
		  AND c.state = {content.failed}`, []any{content}, &document, &key)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO failed_endings (content_id, ending)
		VALUES ($1, $2)
		ON CONFLICT (content_id, ending) DO NOTHING`, content, []byte(endingOf(string(key)))); err != nil {
		return err
	}
	twins, err := t.untried(content, document, `d.state = {doc.linked}`)
	if err != nil || len(twins) == 0 {
		return err
	}
	for _, id := range twins {
		if _, err := t.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0, attempts = 0, next_attempt = 0
			WHERE id = $1
			  AND state = {doc.linked}`, id); err != nil {
			return err
		}
	}
	return t.notify()
}

// untried returns the documents d of a content, without one, that match where and have an ending that has not failed.
func (t *tx) untried(content, without int64, where string) ([]int64, error) {
	failed, err := t.failedEndings(content)
	if err != nil {
		return nil, err
	}
	var ids []int64
	err = t.each(`SELECT d.id, d.key
		FROM documents d
		WHERE d.content_id = $1
		  AND d.id <> $2
		  AND `+where, []any{content, without}, func(scan func(...any) error) error {
		var id int64
		var key []byte
		err := scan(&id, &key)
		if err == nil && !failed[endingOf(string(key))] {
			ids = append(ids, id)
		}
		return err
	})
	return ids, err
}

// failedEndings returns the endings under which a content failed.
func (t *tx) failedEndings(content int64) (map[string]bool, error) {
	failed := map[string]bool{}
	err := t.each(`SELECT ending FROM failed_endings WHERE content_id = $1`, []any{content}, func(scan func(...any) error) error {
		var ending []byte
		err := scan(&ending)
		failed[string(ending)] = true
		return err
	})
	return failed, err
}

// mayTry reports whether a document may be sent although its content failed: under an ending that has not failed.
func (t *tx) mayTry(content int64, key string) (bool, error) {
	failed, err := t.failedEndings(content)
	return err == nil && !failed[endingOf(key)], err
}

// resolveFailed decides on a document whose content failed. A document that a person marked is sent again under the same ending
// only if no other document with the content waits to be sent under an ending that has not failed.
func (t *tx) resolveFailed(c *contentRow, doc *HashedDocument, docs []HashedDocument, forced bool) (Verdict, error) {
	failed, err := t.failedEndings(c.id)
	if err != nil || !failed[endingOf(doc.Key)] {
		return Verdict{Action: ActionUpload}, err
	}
	if forced {
		waiting, err := t.untried(c.id, doc.DocumentID, `d.state IN ({doc.pending}, {doc.claimed})`)
		if err != nil {
			return Verdict{}, err
		}
		// A document that is resolved for the first time has no content in its row.
		if len(waiting) == 0 && !slices.ContainsFunc(docs, func(d HashedDocument) bool {
			return d.SHA256 == doc.SHA256 && !failed[endingOf(d.Key)]
		}) {
			return Verdict{Action: ActionUpload}, nil
		}
	}
	return Verdict{Action: ActionShare}, t.linkDocument(doc.DocumentID, c.id)
}
