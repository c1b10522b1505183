package browsertest

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/kbsync/kbsync/state"
)

// manyDocuments is the number of documents of TestManyDocuments: 200,000, or KBSYNC_BROWSER_DOCUMENTS.
func manyDocuments(t *testing.T) int {
	t.Helper()
	text := os.Getenv("KBSYNC_BROWSER_DOCUMENTS")
	if text == "" {
		return 200_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fill writes completed documents into an empty state, with a few that failed, and sources that edits left behind.
func fill(t *testing.T, path string, documents int) {
	t.Helper()
	store, err := state.Open(t.Context(), state.Options{Path: path})
	if err == nil {
		_, err = store.Syncs.Ensure(t.Context(), "handbook", "/srv/handbook", state.Destination{Origin: "https://api.reply.cx", KnowledgeBase: 876}, false)
	}
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const numbers = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) `
	for _, text := range []string{
		`PRAGMA synchronous = OFF`,
		`INSERT INTO batches (id, sync_id, destination_id, state, owner, documents, bytes, created_at, sealed_at, ended_at, status_code) ` +
			numbers + `SELECT i, 1, 1, 2, 0, 20, 100000, ?2 - 1000 * i, ?2 - 1000 * i, ?2 - 1000 * i, 200 FROM n WHERE i <= ?1 / 20 + 1`,
		`INSERT INTO contents (id, destination_id, sha256, scope, size, state, batch_id, document_id, since, source_id) ` +
			numbers + `SELECT i, 1, CAST(1000000000000000 + i || '0123456789abcdef' AS BLOB), X'', 4000 + i % 9000,
				CASE WHEN i % 50000 = 7 THEN 6 ELSE 5 END, (i - 1) / 20 + 1, i, ?2 - i, 330000 + i FROM n`,
		`INSERT INTO documents (id, sync_id, key, size, mtime, ctime_offset, inode, state, content_id, changed_at) ` +
			numbers + `SELECT i, 1, CAST('department-' || (100 + i / 10000) || '/page-' || (10000000 + i) || '.md' AS BLOB), 4000 + i % 9000, ?2, 0, i, 3, i, ?2 - i FROM n`,
		`UPDATE documents SET content_id = id + 1 WHERE id % 1000 = 500`,
		`INSERT INTO past_contents (content_id, document_id, until) SELECT id, id, ?2 FROM documents WHERE id % 1000 = 500 AND ?1 > 0`,
		`UPDATE syncs SET scanned_at = ?2 WHERE ?1 > 0`,
	} {
		var args []any
		if text[:6] != "PRAGMA" && text[:6] != "UPDATE" || text[:12] == "UPDATE syncs" {
			args = []any{documents, time.Now().UnixMilli()}
		}
		if _, err := db.ExecContext(context.Background(), text, args...); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// mostRows is how many rows a page may have, in all of its tables.
const mostRows = 300

// A page of a large state has few rows, so that it does not freeze a browser. The log has the times of the pages.
func TestManyDocuments(t *testing.T) {
	if browser == nil {
		t.Skip("the test needs a browser: " + missing)
	}
	path := filepath.Join(t.TempDir(), "kbsync.db")
	begun := time.Now()
	documents := manyDocuments(t)
	fill(t, path, documents)
	t.Logf("filled in %v", time.Since(begun).Round(time.Millisecond))
	s := serveState(t, path, nil)
	b := s.open(desk)
	for _, path := range []string{
		"/", "/documents", "/documents?state=failed", "/documents?state=completed&prefix=department-110", "/documents?q=page-10150001", "/documents?q=nothing+has+this",
		"/documents?state=skipped", "/documents?state=removed", "/documents/department-110/page-10100001.md?sync=handbook", "/sources", "/confirm?action=retry&sync=handbook",
		"/confirm?action=sync&sync=handbook", "/confirm?action=reindex&sync=handbook&key=department-110/page-10100001.md",
		"/confirm?action=reindex&sync=handbook&all=true",
	} {
		took := b.visit(path)
		t.Logf("%v %s", took.Round(time.Millisecond), path)
		if rows := eval[int](b, `document.querySelectorAll("tr, li").length`); rows > mostRows {
			t.Errorf("%s has %d rows", path, rows)
		}
		b.shot("million: " + path)
		b.check(path)
	}
}
