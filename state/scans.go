package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Scans compare a root with the state: a scan reads Known, records its changes, and is finished or dropped.
type Scans struct{ *db }

// SetGate shuts or opens the sync's gate. While it is shut, no process claims a document of the sync. Errors: ErrLeaseLost.
func (s *Scans) SetGate(ctx context.Context, syncID int64, shut bool) error {
	err := s.update(ctx, func(t *tx) error {
		if err := s.inPlace(t, syncID); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE syncs
			SET gate = $1
			WHERE id = $2
			  AND gate <> $1`, shut, syncID)
		if err != nil || shut {
			return err
		}
		return t.notify()
	})
	if err != nil {
		return fmt.Errorf("set gate: %w", err)
	}
	return nil
}

// Begin starts a scan of the root below prefix: all of it, if prefix is empty; a directory, if it ends in a slash; else
// the one document of that key. Begin, Record and Finish fail with ErrLeaseLost if another process may scan the root.
func (s *Scans) Begin(ctx context.Context, syncID int64, prefix string) (Scan, error) {
	scan := Scan{SyncID: syncID, Prefix: prefix}
	err := s.update(ctx, func(t *tx) error {
		if err := s.inPlace(t, syncID); err != nil {
			return err
		}
		return t.one(`UPDATE syncs SET scan = scan + 1 WHERE id = $1 RETURNING scan`, []any{syncID}, &scan.ID)
	})
	if err != nil {
		return Scan{}, fmt.Errorf("begin scan: %w", err)
	}
	return scan, nil
}

// keysBelow returns the first key below prefix (see Begin) and the first one after them; nil for no end.
func keysBelow(prefix string) (first, end []byte) {
	first = []byte(prefix)
	switch {
	case prefix == "":
		return first, nil
	case strings.HasSuffix(prefix, "/"):
		return first, []byte(strings.TrimSuffix(prefix, "/") + "0") // '0' is the byte after '/'
	default:
		return first, keyAfter(prefix)
	}
}

// neverUploaded is a condition on a document: no version of it was ever sent.
const neverUploaded = `documents.content_id IS NULL
				AND NOT EXISTS (SELECT 1 FROM past_contents p WHERE p.document_id = documents.id)`

// knownDocuments are the documents of the sync $1 that are on the root.
const knownDocuments = `SELECT key, size, mtime, ctime_offset, inode, etag, state, reason, ` + neverUploaded + `
		FROM documents
		WHERE sync_id = $1
		  AND state <> {doc.removed}`

// Known streams the documents below prefix (see Begin) that the state knows to be on the root, in byte order of the key.
// Skip is set for documents that a scan skipped, not for blocked ones. The caller may write to the state meanwhile: the stream sees changes of keys that it
// has not come to.
func (s *Scans) Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[KnownDocument, error] {
	first, end := keysBelow(prefix)
	var key, etag, reason sql.RawBytes
	p := pages[KnownDocument]{
		subject: "known documents",
		query:   knownDocuments + ` AND key >= $2 ORDER BY key LIMIT $3`,
		args:    []any{syncID},
		start:   []any{first},
		after:   func(k KnownDocument) []any { return []any{keyAfter(k.Key)} },
		scan: func(scan func(...any) error) (KnownDocument, error) {
			var k KnownDocument
			var inode int64
			var state int
			f := &k.Fingerprint
			err := scan(&key, &f.Size, &f.MTime, &f.CTime, &inode, &etag, &state, &reason, &k.NeverUploaded)
			k.Key, f.ETag, f.Inode = string(key), string(etag), uint64(inode)
			f.CTime += f.MTime // the table has the difference
			if state == docSkipped && !IsBlocked(string(reason)) {
				k.Skip = string(reason)
			}
			return k, err
		},
	}
	if end != nil {
		p.query = knownDocuments + ` AND key < $2 AND key >= $3 ORDER BY key LIMIT $4`
		p.args = append(p.args, end)
	}
	return p.stream(ctx, s.db)
}

// Record writes changes of a scan in one transaction: all or none. Vanish only marks until Finish. A changed document is
// due at once, or when Scan.Rest has passed since its last upload.
func (s *Scans) Record(ctx context.Context, scan Scan, changes []Change) error {
	var puts []Change
	together := scan.Rest <= 0 // else put reads batches that may be in the hands of others
	for _, c := range changes {
		if c.Op == Put {
			puts = append(puts, c)
		}
		together = together && c.Op != Skip // which changes what the document's content is
	}
	record := func(mode lockMode) error {
		return s.update(ctx, func(t *tx) error { return s.record(t, scan, changes, puts, mode) })
	}
	var err error
	if together {
		err = s.together(record)
	} else {
		err = record(alone)
	}
	if err != nil {
		return fmt.Errorf("record changes: %w", err)
	}
	return nil
}

func (s *Scans) record(t *tx, scan Scan, changes, puts []Change, mode lockMode) error {
	if err := errors.Join(t.lockSync(scan.SyncID, mode), s.inPlace(t, scan.SyncID)); err != nil {
		return err
	}
	at := now()
	if err := eachChunk(puts, func(chunk []Change) error { return t.put(scan, chunk, at) }); err != nil {
		return err
	}
	for i := range changes {
		var err error
		switch c := &changes[i]; c.Op {
		case Skip:
			err = t.skip(scan, c, at)
		case Vanish:
			_, err = t.exec(`UPDATE documents
				SET vanished = $1
				WHERE sync_id = $2
				  AND key = $3
				  AND state <> {doc.removed}`, scan.ID, scan.SyncID, []byte(c.Key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put makes new or changed documents pending.
func (t *tx) put(scan Scan, changes []Change, at int64) error {
	const columns = 9
	args := make([]any, 0, 2+columns*len(changes))
	args = append(args, at, min(scan.Rest, maxRest).Milliseconds())
	for i := range changes {
		f := &changes[i].Fingerprint
		args = append(args, scan.SyncID, []byte(changes[i].Key), f.Size, f.MTime, f.CTime-f.MTime, int64(f.Inode), f.ETag,
			docPending, at)
	}
	_, err := t.exec(`INSERT INTO documents (sync_id, key, size, mtime, ctime_offset, inode, etag, state, changed_at)
		VALUES `+valueRows(3, len(changes), columns)+`
		ON CONFLICT (sync_id, key) DO UPDATE
		SET size = excluded.size, mtime = excluded.mtime, ctime_offset = excluded.ctime_offset, inode = excluded.inode,
			etag = excluded.etag, state = excluded.state, claim = 0, attempts = 0, vanished = 0, reason = '',
			changed_at = excluded.changed_at,
			next_attempt = CASE
				WHEN $2 <= 0 OR documents.content_id IS NULL THEN 0
				ELSE coalesce((
					SELECT b.sealed_at + $2
					FROM contents c
					JOIN batches b ON b.id = c.batch_id
					WHERE c.id = documents.content_id
					  AND b.sealed_at <= $1
					  AND b.sealed_at + $2 > $1), 0)
			END`, args...)
	return err
}

// skip takes a document's content and saves why it is not uploaded.
func (t *tx) skip(scan Scan, c *Change, at int64) error {
	if err := t.keepPastContents(`d.sync_id = $2 AND d.key = $3`, scan.SyncID, []byte(c.Key)); err != nil {
		return err
	}
	f := &c.Fingerprint
	_, err := t.exec(`INSERT INTO documents (sync_id, key, size, mtime, ctime_offset, inode, etag, state, changed_at, reason)
		VALUES ($1, $2, $3, $4, $5, $6, $7, {doc.skipped}, $8, $9)
		ON CONFLICT (sync_id, key) DO UPDATE
		SET size = excluded.size, mtime = excluded.mtime, ctime_offset = excluded.ctime_offset, inode = excluded.inode, etag = excluded.etag,
			state = excluded.state, content_id = NULL, forced = 0, claim = 0, attempts = 0, next_attempt = 0, vanished = 0,
			reason = excluded.reason, changed_at = excluded.changed_at`,
		scan.SyncID, []byte(c.Key), f.Size, f.MTime, f.CTime-f.MTime, int64(f.Inode), f.ETag, at, c.Reason)
	return err
}

// A ScanCount is the basis of the guard against mass removals. Removing a document that was never uploaded loses nothing, and a
// root that was wrong for one scan may have left many of them: the guard does not count them.
type ScanCount struct {
	Vanished int // known documents that are not listed any more
	Renamed  int // vanished documents that seem to be listed under a new key: same inode, size and mtime
	// NeverUploaded are those of Vanished, and NeverUploadedRenamed those of Renamed, of which no version was ever sent.
	NeverUploaded, NeverUploadedRenamed int
}

// Removals is the number of documents that were uploaded, vanished and were not renamed.
func (n ScanCount) Removals() int {
	return max(n.Vanished-n.NeverUploaded-(n.Renamed-n.NeverUploadedRenamed), 0)
}

// Count counts the documents that Finish would remove.
func (s *Scans) Count(ctx context.Context, scan Scan) (ScanCount, error) {
	return s.count(ctx, scan, vanishedBelow(""))
}

// CountBelow counts the documents below a directory, with a slash at its end, that Finish would remove.
func (s *Scans) CountBelow(ctx context.Context, scan Scan, directory string) (ScanCount, error) {
	first, end := keysBelow(directory)
	return s.count(ctx, scan, vanishedBelow(`AND {no.index}documents.key >= $3 AND {no.index}documents.key < $4`), first, end)
}

// A vanishedCount has the texts that count the vanished documents, and the renamed ones of them.
type vanishedCount struct{ all, renamed string }

func vanishedBelow(within string) vanishedCount {
	return vanishedCount{
		all: `SELECT count(*), count(CASE WHEN ` + neverUploaded + ` THEN 1 END)
		FROM documents
		WHERE sync_id = $1
		  AND vanished = $2
		  AND vanished <> 0 ` + within,
		renamed: `SELECT count(DISTINCT documents.id),
				count(DISTINCT CASE WHEN ` + neverUploaded + ` THEN documents.id END)
			FROM documents n
			JOIN documents ON documents.sync_id = $1 AND documents.vanished = $2 AND documents.vanished <> 0
				AND documents.size = n.size AND documents.inode = n.inode ` + within + `
			WHERE n.sync_id = $1
			  AND n.state = {doc.pending}
			  AND n.state < {doc.linked}
			  AND n.inode <> 0
			  AND n.mtime = documents.mtime
			  AND n.vanished = 0`,
	}
}

func (s *Scans) count(ctx context.Context, scan Scan, q vanishedCount, keys ...any) (ScanCount, error) {
	var n ScanCount
	args := append([]any{scan.SyncID, scan.ID}, keys...)
	err := s.queryOne(ctx, q.all, args, &n.Vanished, &n.NeverUploaded)
	if err == nil && n.Vanished > 0 {
		err = s.queryOne(ctx, q.renamed, args, &n.Renamed, &n.NeverUploadedRenamed)
	}
	if err != nil {
		return ScanCount{}, fmt.Errorf("count scan: %w", err)
	}
	return n, nil
}

// vanishedAtOnce is the number of documents that Finish and Drop take in one transaction: SQLite keeps the earlier
// pages of a transaction in memory.
const vanishedAtOnce = 1000

// someVanished selects vanishedAtOnce documents that a scan marked, always the same until they change.
const someVanished = `SELECT id
		FROM documents
		WHERE sync_id = $2
		  AND vanished = $3
		  AND vanished <> 0
		ORDER BY size, inode, id
		LIMIT $4`

// Finish ends a complete scan: the vanished documents are removed, and identity becomes the root's if the scan was of
// the whole root. Drop ends a scan that broke off, or that a guard halted. After an error some documents may be
// removed; another scan finds the others.
func (s *Scans) Finish(ctx context.Context, scan Scan, identity string) (removed int, err error) {
	for n := int64(vanishedAtOnce); n == vanishedAtOnce; {
		err := s.update(ctx, func(t *tx) (err error) {
			if err := errors.Join(t.lockSync(scan.SyncID, alone), s.inPlace(t, scan.SyncID)); err != nil {
				return err
			}
			err = t.keepPastContents(`d.id IN (`+someVanished+`)`, scan.SyncID, scan.ID, vanishedAtOnce)
			if err != nil {
				return err
			}
			n, err = t.exec(`UPDATE documents
				SET state = {doc.removed}, content_id = NULL, forced = 0, claim = 0, vanished = 0, reason = '', changed_at = $1
				WHERE id IN (`+someVanished+`)`, now(), scan.SyncID, scan.ID, vanishedAtOnce)
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("finish scan: %w", err)
		}
		removed += int(n)
	}
	if scan.Prefix != "" {
		return removed, nil
	}
	err = s.update(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE syncs
			SET root_identity = $1, scanned_at = $2
			WHERE id = $3`, identity, now(), scan.SyncID)
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("finish scan: %w", err)
	}
	return removed, nil
}

// Drop clears the vanish marks of a scan.
func (s *Scans) Drop(ctx context.Context, scan Scan) error {
	for n := int64(vanishedAtOnce); n == vanishedAtOnce; {
		err := s.update(ctx, func(t *tx) (err error) {
			n, err = t.exec(`UPDATE documents
				SET vanished = $1
				WHERE id IN (`+someVanished+`)`, 0, scan.SyncID, scan.ID, vanishedAtOnce)
			return err
		})
		if err != nil {
			return fmt.Errorf("drop scan: %w", err)
		}
	}
	return nil
}
