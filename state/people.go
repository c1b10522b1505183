package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// A Selection names documents of a sync for Mark. Skipped and removed documents, and those being uploaded, never match.
type Selection struct {
	States    []DocumentState       // any if empty
	Match     func(key string) bool // any if nil
	OlderThan time.Time             // settled before; any if zero
}

// Mark makes the selected documents pending, to be uploaded once more whatever their content. It needs no lock: a process
// that works on the sync goes on with them.
func (s *Queue) Mark(ctx context.Context, syncID int64, sel Selection) (int, error) {
	marked := 0
	err := s.update(ctx, func(t *tx) error {
		var ids []int64
		older := int64(1) << 62
		if !sel.OlderThan.IsZero() {
			older = millis(sel.OlderThan)
		}
		err := t.each(`SELECT d.id, d.key, `+documentState+` AS state FROM documents d LEFT JOIN contents c ON c.id = d.content_id WHERE d.sync_id = $1 AND d.state IN (0, 2, 3) AND coalesce(c.since, d.changed_at) < $2`, []any{syncID, older}, func(scan func(...any) error) error {
			var id int64
			var key []byte
			var state DocumentState
			err := scan(&id, &key, &state)
			if state != Uploading && (len(sel.States) == 0 || slices.Contains(sel.States, state)) && (sel.Match == nil || sel.Match(string(key))) {
				ids = append(ids, id)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := t.exec(`UPDATE documents SET state = 0, forced = 1, claim = 0, attempts = 0, next_attempt = 0, reason = '', changed_at = $1 WHERE id = $2`, now(), id); err != nil {
				return err
			}
		}
		marked = len(ids)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("mark documents: %w", err)
	}
	return marked, nil
}

func (s *db) counts(ctx context.Context, query string, args ...any) (map[DocumentState]int, error) {
	counts := map[DocumentState]int{}
	err := s.query(ctx, query, args, func(scan func(...any) error) error {
		var state DocumentState
		var n int
		err := scan(&state, &n)
		if n > 0 {
			counts[state] += n
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count documents: %w", err)
	}
	return counts, nil
}

// unsettled are the documents d of the sync $1 that wait for their content c, or failed with it. The plus before sync_id, here and
// elsewhere, keeps SQLite from reading all documents of the sync: from the few contents that are not completed the way is
// shorter. PostgreSQL does not mind it.
const unsettled = `FROM contents c JOIN documents d ON d.content_id = c.id AND d.state = 3 AND +d.sync_id = $1
	WHERE c.destination_id = (SELECT destination_id FROM syncs WHERE id = $1) AND c.state <> 5`

const outstanding = `SELECT CASE d.state WHEN 0 THEN 'pending' WHEN 1 THEN 'uploading' ELSE 'failed' END, count(*) FROM documents d WHERE d.sync_id = $1 AND d.state < 3 GROUP BY 1
	UNION ALL SELECT ` + documentState + `, count(*) ` + unsettled + ` GROUP BY 1`

// Outstanding returns the number of the sync's documents that are pending, uploading, training, failed, stuck or uncertain,
// by state. Its cost grows with their number alone.
func (s *Documents) Outstanding(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	return s.counts(ctx, outstanding, syncID)
}

// Counts returns the number of the sync's documents by state. It reads all of them, and sums: a GROUP BY would sort them all
// in memory.
func (s *Documents) Counts(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	return s.counts(ctx, `WITH own AS MATERIALIZED (SELECT coalesce(sum(CASE state WHEN 3 THEN 1 ELSE 0 END), 0) AS settled, coalesce(sum(CASE state WHEN 4 THEN 1 ELSE 0 END), 0) AS skipped,
		coalesce(sum(CASE state WHEN 5 THEN 1 ELSE 0 END), 0) AS removed FROM documents WHERE sync_id = $1)
		SELECT 'skipped', skipped FROM own UNION ALL SELECT 'removed', removed FROM own
		UNION ALL SELECT 'completed', settled - (SELECT count(*) `+unsettled+`) FROM own UNION ALL `+outstanding, syncID)
}

// A Document is a document as a person sees it.
type Document struct {
	ID          int64
	Sync        string
	Key         string
	State       DocumentState
	Reason      string // of failed, skipped and uncertain
	Fingerprint Fingerprint
	SHA256      SHA256    // of the version that it had last; zero while unknown
	ChangedAt   time.Time // when it became pending, skipped or removed last
	Attempts    int       // failed ones
	NextAttempt time.Time // of pending; zero for at once
	Held        bool      // uncertain, and not to be sent again unasked
}

const documentColumns = `d.id, y.name, d.key, ` + documentState + ` AS state, CASE WHEN d.reason <> '' THEN d.reason ELSE coalesce(c.reason, '') END, d.size, d.mtime, d.ctime, d.inode, d.etag,
	coalesce(c.sha256, $2), d.changed_at, d.attempts, d.next_attempt, coalesce(c.state = 2 AND c.resends > 0, 1 = 0)
	FROM documents d JOIN syncs y ON y.id = d.sync_id LEFT JOIN contents c ON c.id = d.content_id WHERE d.sync_id = $1`

func scanDocument(scan func(...any) error) (Document, error) {
	var d Document
	var key, sha []byte
	var inode, changed, next int64
	f := &d.Fingerprint
	err := scan(&d.ID, &d.Sync, &key, &d.State, &d.Reason, &f.Size, &f.MTime, &f.CTime, &inode, &f.ETag, &sha, &changed, &d.Attempts, &next, &d.Held)
	d.Key, f.Inode, d.ChangedAt, d.NextAttempt = string(key), uint64(inode), fromMillis(changed), fromMillis(next)
	copy(d.SHA256[:], sha)
	return d, err
}

// errStop ends a loop whose consumer has enough.
var errStop = errors.New("enough")

// stream turns a query into a sequence that reports an error as its last element.
func stream[T any](ctx context.Context, s *db, what, query string, args []any, row func(scan func(...any) error) (T, bool, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		err := s.query(ctx, query, args, func(scan func(...any) error) error {
			v, keep, err := row(scan)
			if err == nil && keep && !yield(v, nil) {
				return errStop
			}
			return err
		})
		if err != nil && !errors.Is(err, errStop) {
			var zero T
			yield(zero, fmt.Errorf("read %s: %w", what, err))
		}
	}
}

// All streams the sync's documents in the given states (all if none) in byte order of the key.
func (s *Documents) All(ctx context.Context, syncID int64, states ...DocumentState) iter.Seq2[Document, error] {
	return stream(ctx, s.db, "documents", `SELECT `+documentColumns+` ORDER BY d.key`, []any{syncID, []byte{}}, func(scan func(...any) error) (Document, bool, error) {
		d, err := scanDocument(scan)
		return d, len(states) == 0 || slices.Contains(states, d.State), err
	})
}

// Get returns one document. Errors: ErrNotFound.
func (s *Documents) Get(ctx context.Context, syncID int64, key string) (Document, error) {
	for d, err := range stream(ctx, s.db, "document", `SELECT `+documentColumns+` AND d.key = $3`, []any{syncID, []byte{}, []byte(key)}, func(scan func(...any) error) (Document, bool, error) {
		d, err := scanDocument(scan)
		return d, true, err
	}) {
		return d, err
	}
	return Document{}, fmt.Errorf("read document: %w", ErrNotFound)
}

// An Event is a line of a document's history.
type Event struct {
	At     time.Time
	What   string // a phrase for people
	Batch  int64  // 0 where none took part
	Source int64  // 0 where none took part
	SHA256 SHA256 // of the content it is about; zero where unknown
}

// History returns what happened to a document, oldest first.
func (s *Documents) History(ctx context.Context, documentID int64) ([]Event, error) {
	var events []Event
	none := []byte{}
	add := func(at int64, what string, batch, source int64, sha []byte) {
		e := Event{At: fromMillis(at), What: what, Batch: batch, Source: source}
		copy(e.SHA256[:], sha)
		events = append(events, e)
	}
	err := s.query(ctx, `SELECT b.id, b.state, b.created_at, b.sealed_at, b.ended_at, b.resend_of, b.status_code, b.message, coalesce(c.sha256, $2) FROM members m JOIN batches b ON b.id = m.batch_id LEFT JOIN contents c ON c.id = m.content_id WHERE m.document_id = $1`,
		[]any{documentID, none}, func(scan func(...any) error) error {
			var id, created, sealed, ended, resend int64
			var state, status int
			var message string
			var sha []byte
			if err := scan(&id, &state, &created, &sealed, &ended, &resend, &status, &message, &sha); err != nil {
				return err
			}
			begun := "upload began"
			if resend != 0 {
				begun = fmt.Sprintf("sent again, for batch %d has no answer", resend)
			}
			add(created, begun, id, 0, sha)
			said := ""
			if status != 0 {
				said = fmt.Sprintf(", HTTP status %d", status)
			}
			if message != "" {
				said += ": " + message
			}
			switch state {
			case batchAnswered:
				add(ended, "accepted"+said, id, 0, sha)
			case batchRefused:
				add(ended, "refused"+said, id, 0, sha)
			case batchAbandoned:
				add(ended, "ended unsent"+said, id, 0, sha)
			case batchUncertain:
				add(ended, "the answer was lost"+said, id, 0, sha)
			}
			return nil
		})
	if err == nil {
		err = s.query(ctx, `SELECT o.source_id, o.batch_id, o.status, o.errors, o.created_at, o.settled_at, o.acked_at, c.sha256 FROM members m JOIN sources o ON o.batch_id = m.batch_id AND o.position = m.position JOIN contents c ON c.id = o.content_id WHERE m.document_id = $1`,
			[]any{documentID}, func(scan func(...any) error) error {
				var id, batch, created, settled, acked int64
				var status, errors string
				var sha []byte
				if err := scan(&id, &batch, &status, &errors, &created, &settled, &acked, &sha); err != nil {
					return err
				}
				add(created, "source created", batch, id, sha)
				if settled != 0 {
					add(settled, strings.TrimSuffix("training "+status+": "+errors, ": "), batch, id, sha)
				}
				if acked != 0 {
					add(acked, "source gone from the knowledge base", batch, id, sha)
				}
				return nil
			})
	}
	if err == nil {
		err = s.query(ctx, `SELECT f.until, c.sha256 FROM former f JOIN contents c ON c.id = f.content_id WHERE f.document_id = $1`, []any{documentID}, func(scan func(...any) error) error {
			var at int64
			var sha []byte
			err := scan(&at, &sha)
			add(at, "this version was left behind", 0, 0, sha)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events, nil
}

// A Standing says whether documents still have a source's content.
type Standing string

// The standings of a source.
const (
	Live       Standing = "live"
	Superseded Standing = "superseded" // left behind by an edit, or by a newer completed source of the same content
	Orphaned   Standing = "orphaned"   // left behind by a delete, a filter, a rename or forget
	Gone       Standing = "gone"       // removed by hand, as a person or a status answer said
)

// A Source is a row of the inventory.
type Source struct {
	ID          int64
	Sync        string // that uploaded it
	Key         string // of the document that it was uploaded for; empty for a source that was not asked for
	Destination Destination
	Name        string
	Type        string
	Status      string // ReplyCX's last word
	Outcome     Outcome
	Errors      string
	Standing    Standing
	SHA256      SHA256
	Batch       int64
	CreatedAt   time.Time
	SettledAt   time.Time // zero while in training
	AckedAt     time.Time // of Gone
}

// A SourceFilter selects rows of the inventory; its zero value selects all.
type SourceFilter struct {
	SyncID    int64
	Standings []Standing
}

// standing is that of a source o.
const standing = `CASE WHEN o.acked_at <> 0 THEN 'gone'
	WHEN EXISTS (SELECT 1 FROM documents d WHERE d.content_id = o.content_id) THEN
		CASE WHEN EXISTS (SELECT 1 FROM sources n WHERE n.content_id = o.content_id AND n.batch_id > o.batch_id AND n.outcome = 1 AND n.acked_at = 0) THEN 'superseded' ELSE 'live' END
	WHEN EXISTS (SELECT 1 FROM former f JOIN documents d ON d.id = f.document_id WHERE f.content_id = o.content_id AND d.state <> 5) THEN 'superseded'
	ELSE 'orphaned' END`

// Sources streams the inventory by destination and id. Where only what was left behind is asked for, its cost grows with the
// number of contents that documents ever left.
func (s *Inventory) Sources(ctx context.Context, f SourceFilter) iter.Seq2[Source, error] {
	only := ""
	if len(f.Standings) > 0 && !slices.ContainsFunc(f.Standings, func(st Standing) bool { return st == Live || st == Gone }) {
		only = ` AND (o.content_id = 0 OR o.content_id IN (SELECT content_id FROM former UNION SELECT id FROM contents WHERE prior_batch <> 0))`
	}
	return stream(ctx, s.db, "inventory", `SELECT o.source_id, y.name, coalesce(d.key, $2), t.id, t.origin, t.account, t.knowledge_base, o.name, o.type, o.status, o.outcome, o.errors, `+standing+`,
		coalesce(c.sha256, $2), o.batch_id, o.created_at, o.settled_at, o.acked_at
		FROM sources o JOIN batches b ON b.id = o.batch_id JOIN syncs y ON y.id = b.sync_id JOIN destinations t ON t.id = o.destination_id
		LEFT JOIN members m ON m.batch_id = o.batch_id AND m.position = o.position LEFT JOIN documents d ON d.id = m.document_id LEFT JOIN contents c ON c.id = o.content_id
		WHERE ($1 = 0 OR b.sync_id = $1)`+only+` ORDER BY o.destination_id, o.source_id`, []any{f.SyncID, []byte{}}, func(scan func(...any) error) (Source, bool, error) {
		var r Source
		var key, sha []byte
		var created, settled, acked int64
		err := scan(&r.ID, &r.Sync, &key, &r.Destination.ID, &r.Destination.Origin, &r.Destination.Account, &r.Destination.KnowledgeBase, &r.Name, &r.Type, &r.Status, &r.Outcome, &r.Errors, &r.Standing,
			&sha, &r.Batch, &created, &settled, &acked)
		r.Key, r.CreatedAt, r.SettledAt, r.AckedAt = string(key), fromMillis(created), fromMillis(settled), fromMillis(acked)
		copy(r.SHA256[:], sha)
		return r, len(f.Standings) == 0 || slices.Contains(f.Standings, r.Standing), err
	})
}

// CountLeftBehind returns how many sources that the sync uploaded are superseded and orphaned. Its cost grows with the number of
// contents that documents ever left, or that were uploaded twice.
func (s *Inventory) CountLeftBehind(ctx context.Context, syncID int64) (superseded, orphaned int, err error) {
	err = s.query(ctx, `SELECT standing, count(*) FROM (SELECT `+standing+` AS standing FROM sources o JOIN batches b ON b.id = o.batch_id
		WHERE b.sync_id = $1 AND o.content_id IN (SELECT content_id FROM former UNION SELECT id FROM contents WHERE prior_batch <> 0)) GROUP BY standing`, []any{syncID}, func(scan func(...any) error) error {
		var st Standing
		var n int
		err := scan(&st, &n)
		switch st {
		case Superseded:
			superseded = n
		case Orphaned:
			orphaned = n
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("count left-behind sources: %w", err)
	}
	return superseded, orphaned, nil
}

// A PossibleDuplicate is a document that may have a source that is not in the inventory.
type PossibleDuplicate struct {
	Sync string
	Key  string
	// Class is "uncertain" (the whole request was sent, and no answer for the document came back) or "refused" (the request
	// was refused as a whole, and the document accepted later, so it has two if the refusal was not as whole as it said).
	Class      string
	Batch      int64
	ResentAs   int64 // the batch that carried it again; 0 if none did
	SHA256     SHA256
	At         time.Time
	LeftBehind bool // the document has another content by now, or is gone
}

// PossibleDuplicates streams them by batch; syncID 0 for all syncs.
func (s *Inventory) PossibleDuplicates(ctx context.Context, syncID int64) iter.Seq2[PossibleDuplicate, error] {
	// A later batch with the same content carried it again, whatever it was sent for.
	const later = `coalesce((SELECT min(l.batch_id) FROM sources l WHERE l.content_id = m.content_id AND l.batch_id > b.id), 0)`
	return stream(ctx, s.db, "possible duplicates", `SELECT y.name, d.key, CASE b.state WHEN 3 THEN 'refused' ELSE 'uncertain' END, b.id, `+later+`, c.sha256, b.ended_at, coalesce(d.content_id, 0) <> m.content_id
		FROM batches b JOIN syncs y ON y.id = b.sync_id JOIN members m ON m.batch_id = b.id JOIN documents d ON d.id = m.document_id JOIN contents c ON c.id = m.content_id
		WHERE ($1 = 0 OR b.sync_id = $1) AND b.sealed_at <> 0 AND (b.state IN (3, 5) AND (b.state = 5 OR b.status_code IN (400, 413, 422) AND `+later+` <> 0)
			OR b.state = 2 AND NOT EXISTS (SELECT 1 FROM sources o WHERE o.content_id = m.content_id AND o.batch_id = b.id))
		ORDER BY b.id, m.position`, []any{syncID}, func(scan func(...any) error) (PossibleDuplicate, bool, error) {
		var p PossibleDuplicate
		var key, sha []byte
		var at int64
		err := scan(&p.Sync, &key, &p.Class, &p.Batch, &p.ResentAs, &sha, &at, &p.LeftBehind)
		p.Key, p.At = string(key), fromMillis(at)
		copy(p.SHA256[:], sha)
		return p, true, err
	})
}

// KnownContents says, by position, what the destination has of each content: empty for nothing (or an upload that left nothing), else the
// state that a document with that content would have. A content that no document has any more would be asked for first.
func (s *Inventory) KnownContents(ctx context.Context, destination Destination, contents []SHA256) ([]DocumentState, error) {
	states := make([]DocumentState, len(contents))
	for i, sha := range contents {
		err := s.queryOne(ctx, `SELECT CASE c.state WHEN 0 THEN '' WHEN 1 THEN 'uploading' WHEN 2 THEN 'uncertain' WHEN 3 THEN 'training' WHEN 4 THEN 'stuck' WHEN 5 THEN 'completed' ELSE 'failed' END
			FROM contents c WHERE c.destination_id = $1 AND c.sha256 = $2 AND c.scope = $3`, []any{destination.ID, sha[:], []byte{}}, &states[i])
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("look up contents: %w", err)
		}
	}
	return states, nil
}
