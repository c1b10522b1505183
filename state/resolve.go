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

// A contentKey identifies a content of a destination. scope is empty where documents share a content, and else the names of
// the sync and the document, so that a sync that was forgotten finds its contents again.
type contentKey struct {
	sha   SHA256
	scope string
}

// A contentRow is a content, as far as a verdict or a reservation needs it.
type contentRow struct {
	id, batch, source int64
	state, resends    int
}

// A keyer gives the contentKey of a document of a sync.
type keyer func(key string, sha SHA256) contentKey

// newKeyer returns the keyer of the sync. one reads a row.
func newKeyer(sharing Sharing, syncID int64, one func(query string, args []any, dest ...any) error) (keyer, error) {
	if !sharing.Each {
		return func(_ string, sha SHA256) contentKey { return contentKey{sha: sha} }, nil
	}
	var name string
	err := one(`SELECT name FROM syncs WHERE id = $1`, []any{syncID}, &name)
	return func(key string, sha SHA256) contentKey {
		return contentKey{sha: sha, scope: fmt.Sprintf("%q/%s", name, key)} // %q, because a name may have a slash
	}, err
}

// contents returns the contents that the destination has of those keys.
func contents(destination int64, keys []contentKey, query queryFunc) (map[contentKey]contentRow, error) {
	found := make(map[contentKey]contentRow)
	err := eachChunk(keys, func(chunk []contentKey) error {
		args := []any{destination}
		for _, k := range chunk {
			args = append(args, k.sha[:addressBytes], []byte(k.scope))
		}
		// SQLite keeps the order of a CROSS JOIN, and would else read all contents.
		return query(`SELECT c.sha256, c.scope, c.id, c.state, c.batch_id, c.resends, c.source_id
			FROM (VALUES `+valueRows(2, len(chunk), 2)+`) AS v
			CROSS JOIN contents c
			WHERE c.destination_id = $1
			  AND substr(c.sha256, 1, 16) = v.column1
			  AND c.scope = v.column2`,
			args, func(scan func(...any) error) error {
				var sha, scope []byte
				var c contentRow
				err := scan(&sha, &scope, &c.id, &c.state, &c.batch, &c.resends, &c.source)
				if err == nil {
					found[contentKey{SHA256(sha), string(scope)}] = c
				}
				return err
			})
	})
	return found, err
}

// addressBytes is the length of the part of a hash that the index of contents has.
const addressBytes = 16

// Resolve decides for each hashed document whether it is to be uploaded. Verdicts are in the order of docs. Action
// describes the effect of each verdict on the claim.
func (s *Queue) Resolve(ctx context.Context, syncID int64, docs []HashedDocument, sharing Sharing) ([]Verdict, error) {
	verdicts := make([]Verdict, len(docs)) // ActionUpload
	known, _, err := s.db.lookUp(ctx, syncID, docs, sharing)
	// A new content needs no transaction: Seal looks again, and reports a lost claim.
	if err == nil && (len(known) > 0 || hasResave(docs)) {
		err = s.update(ctx, func(t *tx) (err error) {
			verdicts, err = t.resolveAll(syncID, docs, sharing)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("resolve contents: %w", err)
	}
	return verdicts, nil
}

// lookUp returns the contents that the destination of the sync has of the documents, and the keys of all.
func (s *db) lookUp(ctx context.Context, syncID int64, docs []HashedDocument, sharing Sharing) (
	map[contentKey]contentRow, []contentKey, error) {
	return lookUp(syncID, docs, sharing,
		func(query string, args []any, dest ...any) error { return s.queryOne(ctx, query, args, dest...) },
		func(query string, args []any, row func(scan func(...any) error) error) error {
			return s.query(ctx, query, args, row)
		})
}

func lookUp(syncID int64, docs []HashedDocument, sharing Sharing, one func(query string, args []any, dest ...any) error,
	each queryFunc) (known map[contentKey]contentRow, keys []contentKey, err error) {
	var destination int64
	if err := one(`SELECT destination_id FROM syncs WHERE id = $1`, []any{syncID}, &destination); err != nil {
		return nil, nil, err
	}
	keyOf, err := newKeyer(sharing, syncID, one)
	if err != nil {
		return nil, nil, err
	}
	keys = make([]contentKey, len(docs))
	for i, d := range docs {
		keys[i] = keyOf(d.Key, d.SHA256)
	}
	known, err = contents(destination, keys, each)
	return known, keys, err
}

func (t *tx) resolveAll(syncID int64, docs []HashedDocument, sharing Sharing) ([]Verdict, error) {
	if err := t.lockSync(syncID, alone); err != nil {
		return nil, err
	}
	known, keys, err := lookUp(syncID, docs, sharing, t.one, t.each)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Verdict, len(docs))
	for i := range docs {
		c, ok := known[keys[i]]
		if !ok {
			if verdicts[i], err = t.resolveResaved(&docs[i], sharing); err != nil {
				return nil, err
			}
			continue
		}
		if verdicts[i], err = t.resolve(&c, &docs[i], docs, sharing); err != nil {
			return nil, err
		}
		known[keys[i]] = c
	}
	return verdicts, nil
}

// resolve decides on one of the documents, whose content the destination has.
func (t *tx) resolve(c *contentRow, doc *HashedDocument, docs []HashedDocument, sharing Sharing) (Verdict, error) {
	var forced bool
	err := t.one(`SELECT forced
		FROM documents
		WHERE id = $1
		  AND state = {doc.claimed}
		  AND claim = $2`, []any{doc.DocumentID, doc.Claim}, &forced)
	if errors.Is(err, ErrNotFound) {
		return Verdict{Action: ActionLost}, nil
	} else if err != nil {
		return Verdict{}, err
	}
	if c.state == contentFailed {
		return t.resolveFailed(c, doc, docs, forced)
	}
	if c.state == contentOpen || forced && c.state != contentReserved {
		return Verdict{Action: ActionUpload}, nil
	}
	if c.state == contentTraining || c.state == contentStuck || c.state == contentCompleted {
		verdict, err := t.resolveUploaded(c, doc, sharing)
		if err != nil || verdict.Action != ActionShare {
			return verdict, err
		}
	}
	if err := t.linkDocument(doc.DocumentID, c.id); err != nil {
		return Verdict{}, err
	}
	return Verdict{Action: ActionShare}, t.keepCore(c.id, doc.Core)
}

// resolveUploaded decides on a content that is in the knowledge base.
func (t *tx) resolveUploaded(c *contentRow, doc *HashedDocument, sharing Sharing) (Verdict, error) {
	live, err := t.contentLive(c.id)
	switch {
	case err != nil:
		return Verdict{}, err
	case !live && sharing.UploadRenamed:
		return Verdict{Action: ActionUpload}, nil
	case live || doc.Verified:
		return Verdict{Action: ActionShare}, nil
	}
	ids, err := t.sourcesToVerify(c)
	if err != nil || len(ids) > 0 {
		return Verdict{Action: ActionVerify, Verify: ids}, err
	}
	c.state = contentOpen
	_, err = t.exec(`UPDATE contents SET state = {content.open} WHERE id = $1`, c.id)
	return Verdict{Action: ActionUpload}, err
}

// contentLive reports whether a document has the content.
func (t *tx) contentLive(content int64) (live bool, err error) {
	err = t.one(`SELECT EXISTS (SELECT 1 FROM documents WHERE content_id = $1)`, []any{content}, &live)
	return live, err
}

// linkDocument gives a claimed document the content, and ends the claim.
func (t *tx) linkDocument(document, content int64) error {
	if err := t.endResave(document); err != nil {
		return err
	}
	if err := t.keepPastContents(`d.id = $2 AND d.content_id <> $3`, document, content); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE documents
		SET state = {doc.linked}, content_id = $1, forced = 0, claim = 0, attempts = 0, next_attempt = 0, reason = ''
		WHERE id = $2`, content, document)
	return err
}

// sourcesToVerify returns the sources of a left-behind content's last batch, as far as their ids are known.
func (t *tx) sourcesToVerify(c *contentRow) ([]int64, error) {
	if c.source > 0 {
		return []int64{c.source}, nil
	}
	return t.ids(`SELECT source_id
		FROM sources
		WHERE content_id = $1
		  AND batch_id = $2
		  AND source_id > 0
		  AND acked_at = 0`, c.id, c.batch)
}
