package state

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// An Adoption is a claimed document whose content a lost state has uploaded. Nothing is sent for it.
type Adoption struct {
	HashedDocument
	// Sources have the content. If there are none, the knowledge base has a source of this Name, whose id is unknown.
	Sources []SourceAnswer
	Name    string
	// Former are older sources of the document, whose content is unknown. They are left behind.
	Former []SourceAnswer
}

// adoptedCode is the code of a batch that was never sent: its contents were adopted.
const adoptedCode = "ADOPTED"

// unknownScope is the scope of a content whose bytes kbsync has never seen. No document finds it by its hash, which is made up.
const unknownScope = "unknown content"

// ClaimAll takes up to limit pending documents of the sync with a greater id than after, in the order of their ids, whatever they
// wait for, even while the gate is shut. The caller releases the documents that it does not adopt.
func (s *Queue) ClaimAll(ctx context.Context, syncID, after int64, limit int) ([]ClaimedDocument, error) {
	always := func(*tx) (bool, error) { return true, nil }
	return s.claimIf(ctx, always, `SELECT id
			FROM documents
			WHERE sync_id = $2
			  AND state = {doc.pending}
			  AND state < {doc.linked}
			  AND id > $3
			ORDER BY id
			LIMIT $4 {skip.locked}`, []any{syncID, after, limit})
}

// Adopt records documents as uploaded without sending them, in one transaction. It reports by position which were adopted. It
// does not adopt a document whose claim was lost, whose content is being uploaded, or whose sources the inventory has for other
// contents; such documents are pending again if they are still claimed. Errors: ErrMoved, ErrLockLost, ErrLeaseLost.
//
// A source with an unknown id has a negative number in the inventory. kbsync never asks the API about it.
func (s *Journal) Adopt(ctx context.Context, syncID int64, docs []Adoption, sharing Sharing) (adopted []bool, err error) {
	err = s.update(ctx, func(t *tx) error {
		if err := errors.Join(t.lockSync(syncID, alone), s.inPlace(t, syncID)); err != nil {
			return err
		}
		adopted = make([]bool, len(docs))
		a, err := t.beginAdoption(syncID, docs, sharing)
		if err != nil {
			return err
		}
		for i := range docs {
			if adopted[i], err = a.adopt(&docs[i]); err != nil {
				return fmt.Errorf("document %q: %w", docs[i].Key, err)
			}
		}
		return a.end()
	})
	if err != nil {
		return nil, fmt.Errorf("adopt documents: %w", err)
	}
	return adopted, nil
}

// AdoptStrays records sources of which the root has no document as orphaned. It returns how many the inventory did not have.
func (s *Journal) AdoptStrays(ctx context.Context, syncID int64, sources []SourceAnswer) (recorded int, err error) {
	err = s.update(ctx, func(t *tx) error {
		if err := errors.Join(t.lockSync(syncID, alone), s.inPlace(t, syncID)); err != nil {
			return err
		}
		a, err := t.beginAdoption(syncID, []Adoption{{Sources: sources}}, Sharing{})
		if err != nil {
			return err
		}
		recorded = 0
		for _, src := range sources {
			if _, known := a.known[src.ID]; known {
				continue
			}
			if err := a.ensureBatch(); err != nil {
				return err
			}
			if err := a.addStray(member{position: -1}, src); err != nil {
				return err
			}
			recorded++
		}
		return a.end()
	})
	if err != nil {
		return 0, fmt.Errorf("adopt sources: %w", err)
	}
	return recorded, nil
}

// An adoption is an acceptance of an answer that never came.
type adoption struct {
	acceptance
	keyOf     keyer
	contents  map[contentKey]contentRow
	documents int
	bytes     int64
	unknown   int64 // the last number of a source with an unknown id
}

func (t *tx) beginAdoption(syncID int64, docs []Adoption, sharing Sharing) (*adoption, error) {
	a := &adoption{acceptance: acceptance{tx: t, at: now(), shared: map[int64]bool{}}}
	a.batch.sync, a.answer.NextPoll = syncID, fromMillis(a.at)
	if err := t.one(`SELECT destination_id FROM syncs WHERE id = $1`, []any{syncID}, &a.destination); err != nil {
		return nil, err
	}
	a.batch.destination = a.destination
	var err error
	if a.keyOf, err = newKeyer(sharing, syncID, t.one); err != nil {
		return nil, err
	}
	var keys []contentKey
	var ids []int64
	for i := range docs {
		keys = append(keys, a.keyOf(docs[i].Key, docs[i].SHA256))
		for _, src := range slices.Concat(docs[i].Sources, docs[i].Former) {
			ids = append(ids, src.ID)
		}
	}
	if a.contents, err = contents(a.destination, keys, t.each); err != nil {
		return nil, err
	}
	if a.known, err = t.knownSources(a.destination, ids); err != nil {
		return nil, err
	}
	err = t.one(`SELECT source_id
		FROM sources
		WHERE destination_id = $1
		  AND source_id < 0
		ORDER BY source_id
		LIMIT 1`, []any{a.destination}, &a.unknown)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return a, err
}

// ensureBatch enters the batch that stands for the uploads of the lost state into the journal.
func (a *adoption) ensureBatch() error {
	if a.batch.id != 0 {
		return nil
	}
	return a.tx.one(`INSERT INTO batches (sync_id, destination_id, state, owner, documents, bytes, created_at, sealed_at, ended_at, code)
		VALUES ($1, $2, {batch.answered}, 0, 0, 0, $3, $3, $3, $4)
		RETURNING id`, []any{a.batch.sync, a.batch.destination, a.at, adoptedCode}, &a.batch.id)
}

// end completes the row of the batch.
func (a *adoption) end() error {
	_, err := a.tx.exec(`UPDATE batches
		SET documents = $1, bytes = $2
		WHERE id = $3`, a.documents, a.bytes, a.batch.id)
	return err
}

func (a *adoption) adopt(d *Adoption) (bool, error) {
	err := a.tx.one(`SELECT 1
		FROM documents
		WHERE id = $1
		  AND state = {doc.claimed}
		  AND claim = $2`, []any{d.DocumentID, d.Claim}, new(int))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	key := a.keyOf(d.Key, d.SHA256)
	c, exists := a.contents[key]
	own := slices.DeleteFunc(slices.Clone(d.Sources), func(src SourceAnswer) bool {
		content, known := a.known[src.ID]
		return known && (!exists || content != c.id)
	})
	if exists && c.state == contentReserved || len(own) == 0 && len(d.Sources) > 0 {
		_, err := a.tx.exec(`UPDATE documents
			SET state = {doc.pending}, claim = 0
			WHERE id = $1`, d.DocumentID)
		return false, err
	}
	if err := a.ensureBatch(); err != nil {
		return false, err
	}
	switch {
	case exists && (c.state == contentTraining || c.state == contentStuck || c.state == contentCompleted):
		err = a.addCopies(c, d, own)
	default:
		c, err = a.takeContent(c, key, d, own)
		a.contents[key] = c
	}
	if err != nil {
		return false, err
	}
	a.documents++
	a.bytes += d.Size
	if err := a.tx.linkDocument(d.DocumentID, c.id); err != nil {
		return false, err
	}
	if err := a.tx.keepCore(c.id, d.Core); err != nil {
		return false, err
	}
	return true, a.addFormer(d)
}

// takeContent records that a content is in the knowledge base. c is its row; its id is 0 if it has none.
func (a *adoption) takeContent(c contentRow, key contentKey, d *Adoption, own []SourceAnswer) (contentRow, error) {
	if len(own) == 0 {
		a.unknown--
		own = []SourceAnswer{{ID: a.unknown, Type: fileType, Name: d.Name, Status: usualStatus(TrainingCompleted), Outcome: TrainingCompleted}}
	}
	var sum outcomeSum
	for _, src := range own {
		sum.add(src.Outcome, src.Errors)
	}
	state, reason := sum.state()
	var err error
	if c.id == 0 {
		err = a.tx.one(`INSERT INTO contents (destination_id, sha256, scope, size, state, batch_id, document_id, since, reason)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			RETURNING id`, []any{
			a.destination, key.sha[:], []byte(key.scope), d.Size, state, a.batch.id, d.DocumentID, a.at, reason,
		}, &c.id)
	} else if err = a.tx.moveSource(c.id); err == nil {
		_, err = a.tx.exec(`UPDATE contents
			SET state = $1, batch_id = $2, document_id = $3, since = $4, reason = $5, source_id = 0, polls = 0, next_poll = 0,
				prior_state = state, prior_batch = batch_id, resends = 0
			WHERE id = $6`, state, a.batch.id, d.DocumentID, a.at, reason, c.id)
	}
	if err != nil {
		return c, err
	}
	c.state, c.batch = state, a.batch.id
	return c, a.addSources(d, c, own)
}

// addCopies records sources of a content that has others.
func (a *adoption) addCopies(c contentRow, d *Adoption, own []SourceAnswer) error {
	if len(own) == 0 {
		return nil
	}
	if err := a.tx.moveSource(c.id); err != nil {
		return err
	}
	return a.addSources(d, c, own)
}

// addSources adds sources to the last batch of a content.
func (a *adoption) addSources(d *Adoption, c contentRow, sources []SourceAnswer) error {
	batch := a.batch.id
	defer func() { a.batch.id = batch }()
	a.batch.id = c.batch
	for _, src := range sources {
		if _, known := a.known[src.ID]; known {
			continue
		}
		a.known[src.ID] = c.id
		if _, err := a.addSource(member{document: d.DocumentID, content: c.id}, src); err != nil {
			return err
		}
	}
	return nil
}

// addFormer records older sources of a document, each with a content of its own that the document had before.
func (a *adoption) addFormer(d *Adoption) error {
	for _, src := range d.Former {
		if _, known := a.known[src.ID]; known {
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "the content of source %d", src.ID))
		c := contentRow{batch: a.batch.id}
		if err := a.tx.one(`INSERT INTO contents (destination_id, sha256, scope, size, state, batch_id, document_id, since)
			VALUES ($1, $2, $3, 0, {content.completed}, $4, $5, $6)
			RETURNING id`, []any{a.destination, sum[:], []byte(unknownScope), c.batch, d.DocumentID, a.at}, &c.id); err != nil {
			return err
		}
		if err := a.addSources(d, c, []SourceAnswer{src}); err != nil {
			return err
		}
		if _, err := a.tx.exec(`INSERT INTO past_contents (content_id, document_id, until)
			VALUES ($1, $2, $3)`, c.id, d.DocumentID, a.at); err != nil {
			return err
		}
	}
	return nil
}

// Missing returns those of the ids that the inventory of the destination does not have, in their order.
func (s *Inventory) Missing(ctx context.Context, destinationID int64, ids []int64) (missing []int64, err error) {
	for chunk := range slices.Chunk(ids, worksheetChunk) {
		args := []any{destinationID}
		for _, id := range chunk {
			args = append(args, id)
		}
		in := valueRows(2, 1, len(chunk))
		known := map[int64]bool{}
		err := s.query(ctx, `SELECT source_id
			FROM sources
			WHERE destination_id = $1
			  AND source_id IN `+in+`
			UNION ALL
			SELECT source_id
			FROM contents
			WHERE destination_id = $1
			  AND state > {content.uncertain}
			  AND source_id > 0
			  AND source_id IN `+in, args, func(scan func(...any) error) error {
			var id int64
			err := scan(&id)
			known[id] = true
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look up sources: %w", err)
		}
		for _, id := range chunk {
			if !known[id] {
				missing = append(missing, id)
			}
		}
	}
	return missing, nil
}
