package state

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"
)

// Begin starts a scan of the root below prefix: all of it, if prefix is empty; a directory, if it ends in a slash; else
// the one document of that key.
func (s *Scans) Begin(ctx context.Context, syncID int64, prefix string) (Scan, error) {
	scan := Scan{SyncID: syncID, Prefix: prefix}
	err := s.update(ctx, func(t *tx) error {
		return t.one(`UPDATE syncs SET scan = scan + 1 WHERE id = $1 RETURNING scan`, []any{syncID}, &scan.ID)
	})
	if err != nil {
		return Scan{}, fmt.Errorf("begin scan: %w", err)
	}
	return scan, nil
}

// below returns a condition on the column key, whose arguments are numbered from n, that holds for the keys below prefix.
func below(prefix string, n int) (string, []any) {
	switch {
	case prefix == "":
		return "1 = 1", nil
	case strings.HasSuffix(prefix, "/"):
		// '0' is the byte after '/'.
		return fmt.Sprintf("key >= $%d AND key < $%d", n, n+1), []any{[]byte(prefix), []byte(strings.TrimSuffix(prefix, "/") + "0")}
	default:
		return fmt.Sprintf("key = $%d", n), []any{[]byte(prefix)}
	}
}

// Known streams the documents that are on the root as far as is known, below prefix (see BeginScan), in byte order of the
// key, from one moment. Skip is set for those that are skipped. The state may be written to meanwhile.
func (s *Scans) Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[KnownDocument, error] {
	return func(yield func(KnownDocument, error) bool) {
		where, args := below(prefix, 2)
		rows, err := s.read.QueryContext(ctx, `SELECT key, size, mtime, ctime, inode, etag, state, reason FROM documents WHERE sync_id = $1 AND `+where+` AND state <> 5 ORDER BY key`,
			append([]any{syncID}, args...)...)
		if err != nil {
			yield(KnownDocument{}, fmt.Errorf("read known documents: %w", remedy(err)))
			return
		}
		defer rows.Close()
		var key, etag, reason sql.RawBytes
		for rows.Next() {
			var k KnownDocument
			var inode int64
			var state int
			if err := rows.Scan(&key, &k.Fingerprint.Size, &k.Fingerprint.MTime, &k.Fingerprint.CTime, &inode, &etag, &state, &reason); err != nil {
				yield(KnownDocument{}, fmt.Errorf("read known documents: %w", err))
				return
			}
			k.Key, k.Fingerprint.ETag, k.Fingerprint.Inode = string(key), string(etag), uint64(inode)
			if state == docSkipped {
				k.Skip = string(reason)
			}
			if !yield(k, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(KnownDocument{}, fmt.Errorf("read known documents: %w", remedy(err)))
		}
	}
}

// Record writes changes of a scan in one transaction: all or none. Vanish only marks until FinishScan. A changed document is
// due at once, or when Scan.Rest has passed since its last upload.
func (s *Scans) Record(ctx context.Context, scan Scan, changes []Change) error {
	err := s.update(ctx, func(t *tx) error {
		at := now()
		for i := range changes {
			c := &changes[i]
			f := &c.Fingerprint
			var err error
			switch c.Op {
			case Put:
				_, err = t.exec(`INSERT INTO documents (sync_id, key, size, mtime, ctime, inode, etag, state, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)
					ON CONFLICT (sync_id, key) DO UPDATE SET size = excluded.size, mtime = excluded.mtime, ctime = excluded.ctime, inode = excluded.inode, etag = excluded.etag,
					state = 0, claim = 0, attempts = 0, vanished = 0, reason = '', changed_at = excluded.changed_at,
					next_attempt = CASE WHEN $9 <= 0 OR documents.content_id IS NULL THEN 0
						ELSE coalesce((SELECT b.sealed_at + $9 FROM contents c JOIN batches b ON b.id = c.batch_id WHERE c.id = documents.content_id AND b.sealed_at <= $8 AND b.sealed_at + $9 > $8), 0) END`,
					scan.SyncID, []byte(c.Key), f.Size, f.MTime, f.CTime, int64(f.Inode), f.ETag, at, scan.Rest.Milliseconds())
			case Skip:
				if _, err = t.exec(`INSERT INTO former (content_id, document_id, until) SELECT content_id, id, $1 FROM documents WHERE sync_id = $2 AND key = $3 AND content_id IS NOT NULL
					ON CONFLICT (content_id, document_id) DO UPDATE SET until = excluded.until`, at, scan.SyncID, []byte(c.Key)); err != nil {
					break
				}
				_, err = t.exec(`INSERT INTO documents (sync_id, key, size, mtime, ctime, inode, etag, state, changed_at, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, 4, $8, $9)
					ON CONFLICT (sync_id, key) DO UPDATE SET size = excluded.size, mtime = excluded.mtime, ctime = excluded.ctime, inode = excluded.inode, etag = excluded.etag,
					state = 4, content_id = NULL, forced = 0, claim = 0, attempts = 0, next_attempt = 0, vanished = 0, reason = excluded.reason, changed_at = excluded.changed_at`,
					scan.SyncID, []byte(c.Key), f.Size, f.MTime, f.CTime, int64(f.Inode), f.ETag, at, c.Reason)
			case Vanish:
				_, err = t.exec(`UPDATE documents SET vanished = $1 WHERE sync_id = $2 AND key = $3 AND state <> 5`, scan.ID, scan.SyncID, []byte(c.Key))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record changes: %w", err)
	}
	return nil
}

// A ScanCount is what the guard against mass removals weighs.
type ScanCount struct {
	Vanished int // documents that are known, and not listed any more
	Renamed  int // of these, those that seem to be listed under a new key: same inode, size and mtime
}

// Count counts what FinishScan would remove.
func (s *Scans) Count(ctx context.Context, scan Scan) (ScanCount, error) {
	var n ScanCount
	if err := s.queryOne(ctx, `SELECT count(*) FROM documents WHERE sync_id = $1 AND vanished = $2 AND vanished <> 0`, []any{scan.SyncID, scan.ID}, &n.Vanished); err != nil {
		return ScanCount{}, fmt.Errorf("count scan: %w", err)
	}
	if n.Vanished == 0 {
		return n, nil
	}
	err := s.queryOne(ctx, `SELECT count(DISTINCT v.id) FROM documents n JOIN documents v ON v.sync_id = $1 AND v.vanished = $2 AND v.vanished <> 0 AND v.size = n.size AND v.inode = n.inode
		WHERE n.sync_id = $1 AND n.state = 0 AND n.state < 3 AND n.inode <> 0 AND n.mtime = v.mtime AND n.vanished = 0`, []any{scan.SyncID, scan.ID}, &n.Renamed)
	if err != nil {
		return ScanCount{}, fmt.Errorf("count scan: %w", err)
	}
	return n, nil
}

// vanishedAtOnce is how many documents FinishScan and DropScan take in one transaction: SQLite keeps in memory what the pages that a
// transaction of ours changes were before.
const vanishedAtOnce = 1000

// someVanished are the ids of vanishedAtOnce documents that a scan marked, always the same until they change.
const someVanished = `SELECT id FROM documents WHERE sync_id = $2 AND vanished = $3 AND vanished <> 0 ORDER BY size, inode, id LIMIT $4`

// Finish ends a complete scan: the vanished documents are removed, and identity becomes the root's if the scan was of
// the whole root. A scan that broke off, or that a guard halted, is ended by DropScan. After an error some documents may be
// removed; another scan finds the others.
func (s *Scans) Finish(ctx context.Context, scan Scan, identity string) (removed int, err error) {
	for n := int64(vanishedAtOnce); n == vanishedAtOnce; {
		err := s.update(ctx, func(t *tx) (err error) {
			if _, err = t.exec(`INSERT INTO former (content_id, document_id, until) SELECT content_id, id, $1 FROM documents WHERE id IN (`+someVanished+`) AND content_id IS NOT NULL
				ON CONFLICT (content_id, document_id) DO UPDATE SET until = excluded.until`, now(), scan.SyncID, scan.ID, vanishedAtOnce); err != nil {
				return err
			}
			n, err = t.exec(`UPDATE documents SET state = 5, content_id = NULL, forced = 0, claim = 0, vanished = 0, reason = '', changed_at = $1 WHERE id IN (`+someVanished+`)`,
				now(), scan.SyncID, scan.ID, vanishedAtOnce)
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
		_, err := t.exec(`UPDATE syncs SET root_identity = $1, scanned_at = $2 WHERE id = $3`, identity, now(), scan.SyncID)
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("finish scan: %w", err)
	}
	return removed, nil
}

// Drop forgets the vanish marks of a scan.
func (s *Scans) Drop(ctx context.Context, scan Scan) error {
	for n := int64(vanishedAtOnce); n == vanishedAtOnce; {
		err := s.update(ctx, func(t *tx) (err error) {
			n, err = t.exec(`UPDATE documents SET vanished = $1 WHERE id IN (`+someVanished+`)`, 0, scan.SyncID, scan.ID, vanishedAtOnce)
			return err
		})
		if err != nil {
			return fmt.Errorf("drop scan: %w", err)
		}
	}
	return nil
}
