package state

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Event is a line of a document's history.
type Event struct {
	At     time.Time
	What   string // a phrase for people
	Batch  int64  // 0 if the event has none
	Source int64  // 0 if the event has none
	SHA256 SHA256 // of the event's content; zero if unknown
}

// A history collects the events of one document.
type history struct {
	db       *db
	document int64
	events   []Event
}

func (h *history) add(at int64, what string, batch, source int64, sha []byte) {
	e := Event{At: fromMillis(at), What: what, Batch: batch, Source: source}
	copy(e.SHA256[:], sha)
	h.events = append(h.events, e)
}

// History returns the events of a document, oldest first.
func (s *Documents) History(ctx context.Context, documentID int64) ([]Event, error) {
	h := history{db: s.db, document: documentID}
	for _, read := range []func(context.Context) error{h.readBatches, h.readSources, h.readPastContents, h.readResave} {
		if err := read(ctx); err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
	}
	slices.SortStableFunc(h.events, func(a, b Event) int { return a.At.Compare(b.At) })
	return h.events, nil
}

// A Version is a content that a document has or had.
type Version struct {
	SHA256 SHA256 // zero if it is unknown
	Size   int64
	// Until is when the document left it; zero for the present one.
	Until  time.Time
	State  DocumentState // of the content: pending if it is not in the knowledge base any more
	Reason string        // of failed and uncertain
	// UploadedFor is the document that sent it, which may be another one with the same content.
	UploadedFor DocumentName
}

// Versions returns the versions of a document, the present one first, then the latest.
func (s *Documents) Versions(ctx context.Context, documentID int64) ([]Version, error) {
	var versions []Version
	err := s.query(ctx, `SELECT c.sha256, c.scope, c.size, v.until, `+contentStateName+`, c.reason, y.name, d.key
		FROM (
			SELECT content_id, 0 AS until
			FROM documents
			WHERE id = $1
			  AND content_id IS NOT NULL
			UNION ALL
			SELECT f.content_id, f.until
			FROM past_contents f
			WHERE f.document_id = $1
			  AND f.content_id <> coalesce((SELECT content_id FROM documents WHERE id = $1), 0)
		) AS v
		JOIN contents c ON c.id = v.content_id
		JOIN documents d ON d.id = c.document_id
		JOIN syncs y ON y.id = d.sync_id
		ORDER BY v.until <> 0, v.until DESC, c.id DESC`, []any{documentID}, func(scan func(...any) error) error {
		var v Version
		var sha, scope, key []byte
		var until int64
		err := scan(&sha, &scope, &v.Size, &until, &v.State, &v.Reason, &v.UploadedFor.Sync, &key)
		v.Until, v.UploadedFor.Key = fromMillis(until), string(key)
		if string(scope) != unknownScope {
			copy(v.SHA256[:], sha)
		}
		versions = append(versions, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read versions: %w", err)
	}
	return versions, nil
}

// contentsOf are the contents that the document $1 has or had.
const contentsOf = `SELECT content_id
		FROM documents
		WHERE id = $1
		  AND content_id IS NOT NULL
		UNION
		SELECT content_id
		FROM past_contents
		WHERE document_id = $1`

// uploadsOf are the batches that sent the document $1, or a content of it for another document, each with the content and the
// document.
const uploadsOf = `SELECT batch_id, content_id, document_id
		FROM members
		WHERE document_id = $1
		UNION
		SELECT batch_id, id, document_id
		FROM contents
		WHERE id IN (` + contentsOf + `)
		  AND batch_id <> 0
		UNION
		SELECT batch_id, content_id, document_id
		FROM sources
		WHERE content_id IN (` + contentsOf + `)`

func (h *history) readBatches(ctx context.Context) error {
	return h.db.query(ctx, `SELECT b.id, b.state, b.created_at, b.ended_at, b.resend_of,
			b.status_code, b.code, b.message, coalesce(c.sha256, $2), CASE WHEN m.document_id <> $1 THEN coalesce(d.key, $2) ELSE $2 END
		FROM (`+uploadsOf+`) AS m
		JOIN batches b ON b.id = m.batch_id
		LEFT JOIN contents c ON c.id = m.content_id
		LEFT JOIN documents d ON d.id = m.document_id`, []any{h.document, []byte{}}, func(scan func(...any) error) error {
		var id, created, ended, resendOf int64
		var state, status int
		var code, message string
		var sha, other []byte
		if err := scan(&id, &state, &created, &ended, &resendOf, &status, &code, &message, &sha, &other); err != nil {
			return err
		}
		if code == adoptedCode {
			h.add(created, "taken as uploaded, without sending it"+forOther(other), id, 0, sha)
			return nil
		}
		begun := "upload began" + forOther(other)
		if resendOf != 0 {
			begun = fmt.Sprintf("sent again, because batch %d has no answer", resendOf)
		}
		h.add(created, begun, id, 0, sha)
		detail := ""
		if status != 0 {
			detail = fmt.Sprintf(", HTTP status %d", status)
		}
		if message != "" {
			detail += ": " + message
		}
		switch state {
		case batchAnswered:
			h.add(ended, "accepted"+detail, id, 0, sha)
		case batchRefused:
			h.add(ended, "refused"+detail, id, 0, sha)
		case batchAbandoned:
			h.add(ended, "ended unsent"+detail, id, 0, sha)
		case batchUncertain:
			h.add(ended, "the answer was lost"+detail, id, 0, sha)
		}
		return nil
	})
}

// forOther names the document for which a content was uploaded, if it is another one.
func forOther(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return " for " + string(key)
}

func (h *history) readSources(ctx context.Context) error {
	return h.db.query(ctx, `SELECT o.source_id, o.batch_id, o.status, o.outcome, o.errors, o.created_at, o.outcome_at, o.acked_at, c.sha256, c.scope, b.code
		FROM (
			`+contentSources+`
			  AND c.id IN (`+contentsOf+`)
			UNION ALL
			`+ownSources+`
			  AND o.content_id IN (`+contentsOf+`)
		) AS o
		JOIN contents c ON c.id = o.content_id
		JOIN batches b ON b.id = o.batch_id`, []any{h.document}, func(scan func(...any) error) error {
		var id, batch, created, outcomeAt, acked int64
		var status, errors, code string
		var outcome Outcome
		var sha, scope []byte
		if err := scan(&id, &batch, &status, &outcome, &errors, &created, &outcomeAt, &acked, &sha, &scope, &code); err != nil {
			return err
		}
		if string(scope) == unknownScope {
			sha = nil
		}
		status = cmp.Or(status, usualStatus(outcome))
		if code == adoptedCode {
			h.add(created, "source recorded, with the status "+status, batch, id, sha)
		} else {
			h.add(created, "source created", batch, id, sha)
		}
		if outcomeAt > created || outcomeAt != 0 && code != adoptedCode { // they can have the same millisecond
			h.add(outcomeAt, strings.TrimSuffix("training "+status+": "+errors, ": "), batch, id, sha)
		}
		if acked != 0 {
			h.add(acked, "source gone from the knowledge base", batch, id, sha)
		}
		return nil
	})
}

func (h *history) readPastContents(ctx context.Context) error {
	return h.db.query(ctx, `SELECT f.until, c.sha256
		FROM past_contents f
		JOIN contents c ON c.id = f.content_id
		WHERE f.document_id = $1`, []any{h.document}, func(scan func(...any) error) error {
		var at int64
		var sha []byte
		err := scan(&at, &sha)
		h.add(at, "this version was left behind", 0, 0, sha)
		return err
	})
}

func (h *history) readResave(ctx context.Context) error {
	return h.db.query(ctx, `SELECT since, sha256
		FROM resaves
		WHERE document_id = $1`, []any{h.document}, func(scan func(...any) error) error {
		var at int64
		var sha []byte
		err := scan(&at, &sha)
		h.add(at, "saved again with only its metadata changed, so not uploaded", 0, 0, sha)
		return err
	})
}
