package state

import (
	"context"
	"errors"
	"fmt"
)

// SizeTaken reports whether another document that is pending or claimed, or a content of the destination, has this size
// of more than HashAhead bytes. If so, the document is to be hashed before it is sent.
func (s *Queue) SizeTaken(ctx context.Context, destinationID, size, documentID int64) (bool, error) {
	var taken bool
	err := s.queryOne(ctx, `SELECT EXISTS (
			SELECT 1
			FROM contents
			WHERE destination_id = $1
			  AND size = $2
			  AND size > {hash.ahead}
		) OR EXISTS (
			SELECT 1
			FROM documents d
			JOIN syncs y ON y.id = d.sync_id AND y.destination_id = $1
			WHERE d.size = $2
			  AND d.state < {doc.refused}
			  AND d.size > {hash.ahead}
			  AND d.id <> $3
		)`, []any{destinationID, size, documentID}, &taken)
	if err != nil {
		return false, fmt.Errorf("look up size: %w", err)
	}
	return taken, nil
}

// contentScope distinguishes contents with the same hash. It is empty where documents share a content, and else the names
// of the sync and the document, so that a sync that was forgotten finds its contents again.
func (t *tx) contentScope(sharing Sharing, syncID int64, key string) ([]byte, error) {
	if !sharing.Each {
		return []byte{}, nil
	}
	var name string
	err := t.one(`SELECT name FROM syncs WHERE id = $1`, []any{syncID}, &name)
	return fmt.Appendf(nil, "%q/%s", name, key), err // %q, because a name may have a slash
}

// Resolve decides for each hashed document whether it is to be uploaded. Verdicts are in the order of docs. Action
// describes the effect of each verdict on the claim.
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
	scope, err := t.contentScope(sharing, syncID, doc.Key)
	if err != nil {
		return Verdict{}, err
	}
	var content int64
	var state int
	err = t.one(`SELECT id, state
		FROM contents
		WHERE destination_id = $1
		  AND sha256 = $2
		  AND scope = $3`, []any{destination, doc.SHA256[:], scope}, &content, &state)
	if errors.Is(err, ErrNotFound) {
		return Verdict{Action: ActionUpload}, nil // Seal reports a lost claim
	} else if err != nil {
		return Verdict{}, err
	}
	var forced bool
	err = t.one(`SELECT forced
		FROM documents
		WHERE id = $1
		  AND state = {doc.claimed}
		  AND claim = $2`, []any{doc.DocumentID, doc.Claim}, &forced)
	if errors.Is(err, ErrNotFound) {
		return Verdict{Action: ActionLost}, nil
	} else if err != nil {
		return Verdict{}, err
	}
	if state == contentOpen || forced && state != contentReserved {
		return Verdict{Action: ActionUpload}, nil
	}
	if state == contentTraining || state == contentStuck || state == contentCompleted {
		verdict, err := t.resolveUploaded(content, doc, sharing)
		if err != nil || verdict.Action != ActionShare {
			return verdict, err
		}
	}
	return Verdict{Action: ActionShare}, t.linkDocument(doc.DocumentID, content)
}

// resolveUploaded decides on a content that is in the knowledge base.
func (t *tx) resolveUploaded(content int64, doc *HashedDocument, sharing Sharing) (Verdict, error) {
	live, err := t.contentLive(content)
	switch {
	case err != nil:
		return Verdict{}, err
	case !live && sharing.UploadRenamed:
		return Verdict{Action: ActionUpload}, nil
	case live || doc.Verified:
		return Verdict{Action: ActionShare}, nil
	}
	ids, err := t.sourcesToVerify(content)
	if err != nil || len(ids) > 0 {
		return Verdict{Action: ActionVerify, Verify: ids}, err
	}
	_, err = t.exec(`UPDATE contents SET state = {content.open} WHERE id = $1`, content)
	return Verdict{Action: ActionUpload}, err
}

// contentLive reports whether a document has the content.
func (t *tx) contentLive(content int64) (live bool, err error) {
	err = t.one(`SELECT EXISTS (SELECT 1 FROM documents WHERE content_id = $1)`, []any{content}, &live)
	return live, err
}

// linkDocument gives a claimed document the content, and ends the claim.
func (t *tx) linkDocument(document, content int64) error {
	if err := t.keepPastContents(`d.id = $2 AND d.content_id <> $3`, document, content); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE documents
		SET state = {doc.linked}, content_id = $1, forced = 0, claim = 0, attempts = 0, next_attempt = 0, reason = ''
		WHERE id = $2`, content, document)
	return err
}

// sourcesToVerify returns the sources of a left-behind content's last batch.
func (t *tx) sourcesToVerify(content int64) ([]int64, error) {
	return t.ids(`SELECT o.source_id
		FROM sources o
		JOIN contents c ON c.id = o.content_id AND c.batch_id = o.batch_id
		WHERE c.id = $1
		  AND o.acked_at = 0`, content)
}
