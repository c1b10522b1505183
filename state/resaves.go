package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A document that was saved again with only its metadata changed has another SHA-256, and the core of the content that it had. It
// stays linked to that content; the table resaves has its bytes. Only the document's own content counts, and only while that is in
// the knowledge base: a failed or uncertain one is no reason to send nothing.

// mayBeResaved reports whether a document may have been saved again.
func mayBeResaved(d HashedDocument) bool { return d.Core != (SHA256{}) && d.content != 0 && !d.Forced }

// resavedContents are the contents c that a document d has and that its new content may only repeat.
const resavedContents = `FROM documents d
		JOIN contents c ON c.id = d.content_id
		JOIN cores k ON k.content_id = c.id
		WHERE d.forced = 0
		  AND c.state IN ({content.training}, {content.completed})`

// resolveResaved decides on a document whose content the destination does not have.
func (t *tx) resolveResaved(doc *HashedDocument, sharing Sharing) (Verdict, error) {
	if !mayBeResaved(*doc) {
		return Verdict{Action: ActionUpload}, nil
	}
	var content int64
	err := t.one(`SELECT c.id `+resavedContents+`
		  AND d.id = $1
		  AND d.state = {doc.claimed}
		  AND d.claim = $2
		  AND k.core = $3`, []any{doc.DocumentID, doc.Claim, doc.Core[:]}, &content)
	switch {
	case errors.Is(err, ErrNotFound):
		return Verdict{Action: ActionUpload}, nil
	case err != nil:
		return Verdict{}, err
	case sharing.UploadResaved:
		return Verdict{Action: ActionUpload, Resaved: true}, nil
	}
	if err := t.linkDocument(doc.DocumentID, content); err != nil {
		return Verdict{}, err
	}
	_, err = t.exec(`INSERT INTO resaves (document_id, content_id, sha256, since)
		VALUES ($1, $2, $3, $4)`, doc.DocumentID, content, doc.SHA256[:], now())
	return Verdict{Action: ActionShare, Resaved: true}, err
}

// endResave forgets the bytes of a document that gets a content.
func (t *tx) endResave(document int64) error {
	_, err := t.exec(`DELETE FROM resaves WHERE document_id = $1`, document)
	return err
}

// keepCore records the core of a content, if it has one.
func (t *tx) keepCore(content int64, core SHA256) error {
	if core == (SHA256{}) {
		return nil
	}
	_, err := t.exec(`INSERT INTO cores (content_id, core)
		VALUES ($1, $2)
		ON CONFLICT (content_id) DO NOTHING`, content, core[:])
	return err
}

// keepCores records the cores of the reserved contents.
func (r *reservation) keepCores() error {
	var positions []int
	for i, s := range r.seals {
		if s.Core != (SHA256{}) && r.contents[i] != 0 {
			positions = append(positions, i)
		}
	}
	return eachChunk(positions, func(chunk []int) error {
		var args []any
		for _, i := range chunk {
			args = append(args, r.contents[i], r.seals[i].Core[:])
		}
		_, err := r.tx.exec(`INSERT INTO cores (content_id, core)
			VALUES `+valueRows(1, len(chunk), 2)+`
			ON CONFLICT (content_id) DO NOTHING`, args...)
		return err
	})
}

// IsResaved reports whether a content with this core is the one that the document has, saved again with other metadata, so that an
// upload run would link the document to it.
func (s *Documents) IsResaved(ctx context.Context, syncID int64, key string, core SHA256) (resaved bool, err error) {
	if core == (SHA256{}) {
		return false, nil
	}
	err = s.queryOne(ctx, `SELECT EXISTS (SELECT 1 `+resavedContents+`
		  AND d.sync_id = $1
		  AND d.key = $2
		  AND k.core = $3)`, []any{syncID, []byte(key), core[:]}, &resaved)
	if err != nil {
		return false, fmt.Errorf("look up core: %w", err)
	}
	return resaved, nil
}

// A Resave describes a document that was saved again with only its metadata changed, and therefore not uploaded.
type Resave struct {
	SHA256 SHA256    // of the document's bytes
	Since  time.Time // when that was found
	// Content is the SHA-256 of the content that the document stays linked to, and SentAt when that was last sent.
	Content SHA256
	SentAt  time.Time
}

// Resave returns how a document differs from the content that it is linked to; ok is false if it does not.
func (s *Documents) Resave(ctx context.Context, documentID int64) (r Resave, ok bool, err error) {
	var sha, content []byte
	var since, sent int64
	err = s.queryOne(ctx, `SELECT r.sha256, r.since, c.sha256, coalesce(b.ended_at, 0)
		FROM resaves r
		JOIN documents d ON d.id = r.document_id AND d.content_id = r.content_id AND d.state = {doc.linked}
		JOIN contents c ON c.id = r.content_id
		LEFT JOIN batches b ON b.id = c.batch_id
		WHERE r.document_id = $1`, []any{documentID}, &sha, &since, &content, &sent)
	switch {
	case errors.Is(err, ErrNotFound):
		return Resave{}, false, nil
	case err != nil:
		return Resave{}, false, fmt.Errorf("look up save: %w", err)
	}
	return Resave{SHA256: SHA256(sha), Since: fromMillis(since), Content: SHA256(content), SentAt: fromMillis(sent)}, true, nil
}

// hasResave reports whether any of the documents may have been saved again.
func hasResave(docs []HashedDocument) bool { return slices.ContainsFunc(docs, mayBeResaved) }
