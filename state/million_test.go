package state

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// A shape is the mixture of states in a large database.
type shape struct {
	name string
	// of documents and contents, by their number i
	document, content string
}

// settled is a database in which almost every document is completed, with a ten-thousandth in each other state.
var settled = shape{
	name: "settled",
	document: `CASE i % 10000
		WHEN 1 THEN {doc.pending} WHEN 2 THEN {doc.claimed} WHEN 3 THEN {doc.refused} WHEN 4 THEN {doc.skipped}
		WHEN 5 THEN {doc.removed} ELSE {doc.linked} END`,
	content: `CASE i % 10000
		WHEN 1 THEN {content.open} WHEN 2 THEN {content.open} WHEN 3 THEN {content.open} WHEN 4 THEN {content.open}
		WHEN 11 THEN {content.reserved} WHEN 12 THEN {content.uncertain} WHEN 13 THEN {content.training}
		WHEN 14 THEN {content.stuck} WHEN 15 THEN {content.failed} ELSE {content.completed} END`,
}

// firstSync is a database in the middle of its first upload: four of ten documents are pending, and five in training.
var firstSync = shape{
	name: "first sync",
	document: `CASE
		WHEN i % 10 < 4 THEN {doc.pending} WHEN i % 1000 = 4 THEN {doc.claimed} ELSE {doc.linked} END`,
	content: `CASE
		WHEN i % 10 < 4 OR i % 1000 = 4 THEN {content.open} WHEN i % 1000 = 5 THEN {content.reserved}
		WHEN i % 10 = 9 THEN {content.completed} ELSE {content.training} END`,
}

// manyRows is the number of documents in a large database: 200,000, or PLAN_DOCUMENTS.
func manyRows(t *testing.T) int {
	t.Helper()
	text := os.Getenv("PLAN_DOCUMENTS")
	if text == "" {
		return 200_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100_000 {
		t.Fatalf("PLAN_DOCUMENTS is %q, and must be a number of documents, at least 100000", text)
	}
	return n
}

// numbers are the numbers i from $1 to $2.
const numbers = `WITH RECURSIVE numbers(i) AS (SELECT $1 UNION ALL SELECT i + 1 FROM numbers WHERE i < $2)`

// fills are the texts that fill the tables: documents and as many contents, in two syncs of one destination, and a few
// rows of the other tables. $3 is now. The hashes ascend, because the order of random ones costs most of the time.
var fills = []struct {
	share int // of the documents, as a divisor
	text  string
}{
	{20, `INSERT INTO batches (id, sync_id, destination_id, state, owner, resend_of, documents, bytes, created_at, sealed_at,
			ended_at, status_code)
		` + numbers + `
		SELECT i, CASE WHEN i % 10 = 0 THEN 2 ELSE 1 END, 1,
			CASE WHEN i % 1000 = 5 THEN {batch.sealed} WHEN i % 1000 = 1 THEN {batch.refused}
				WHEN i % 1000 = 2 THEN {batch.uncertain} WHEN i % 1000 = 3 THEN {batch.abandoned} ELSE {batch.answered} END,
			1, CASE WHEN i % 1000 = 4 THEN i - 2 ELSE 0 END, 20, 100000, $3 - i, $3 - i, $3 - i,
			CASE WHEN i % 5000 = 1 THEN 413 WHEN i % 1000 = 1 THEN 400 ELSE 200 END
		FROM numbers`},
	{1, `INSERT INTO contents (id, destination_id, sha256, scope, size, state, batch_id, document_id, since, source_id, next_poll,
			prior_batch)
		` + numbers + `, stated AS (SELECT i, {content} AS state FROM numbers)
		SELECT i, 1, CAST(CAST(1000000000000000 + i AS TEXT) || '0123456789abcdef' AS {bytes}), CAST('' AS {bytes}), CASE WHEN i % 100 = 0 THEN 2000000 + i ELSE 4000 + i % 9000 END,
			state, (i - 1) / 20 + 1, i, $3 - i, CASE WHEN state > {content.uncertain} THEN 330000 + i ELSE 0 END,
			CASE WHEN state IN ({content.training}, {content.stuck}) THEN $3 - i % 1000 ELSE 0 END,
			CASE WHEN i % 10000 = 16 THEN 1 ELSE 0 END
		FROM stated`},
	{1, `INSERT INTO documents (id, sync_id, key, size, mtime, ctime_offset, inode, state, content_id, forced, claim, vanished, changed_at)
		` + numbers + `, stated AS (SELECT i, {document} AS state FROM numbers)
		SELECT i, CASE WHEN i % 10 = 0 THEN 2 ELSE 1 END,
			CAST('department-' || CAST(100 + i / 10000 AS TEXT) || '/page-' || CAST(10000000 + i AS TEXT) || '.md' AS {bytes}),
			CASE WHEN i % 100 = 0 THEN 2000000 + i ELSE 4000 + i % 9000 END, $3, 0, i, state,
			CASE WHEN state = {doc.linked} THEN i END, CASE WHEN state = {doc.pending} AND i % 7 = 0 THEN 1 ELSE 0 END,
			CASE WHEN state = {doc.claimed} THEN 5 ELSE 0 END, CASE WHEN i % 10000 = 17 THEN 1 ELSE 0 END, $3 - i
		FROM stated`},
	{500, `INSERT INTO past_contents (content_id, document_id, until)
		` + numbers + ` SELECT 100 * i, 50 * i, $3 FROM numbers`},
	{5, `INSERT INTO cores (content_id, core)
		` + numbers + ` SELECT 5 * i, CAST('0123456789abcdef' AS {bytes}) FROM numbers WHERE $3 > 0`},
	{100, `INSERT INTO resaves (document_id, content_id, sha256, since)
		` + numbers + ` SELECT 100 * i, 100 * i, CAST('0123456789abcdef' AS {bytes}), $3 FROM numbers`},
	{20, `INSERT INTO members (batch_id, document_id, content_id)
		` + numbers + ` SELECT i, 20 * i, 20 * i FROM numbers WHERE $3 > 0`},
	{2, `INSERT INTO sources (destination_id, source_id, content_id, batch_id, document_id, name, type, status, outcome, created_at,
			next_poll)
		` + numbers + `
		SELECT 1, 100000000 + i, 2 * i, i / 10 + 1, 2 * i, 'page.md', 'file', 'in-progress',
			CASE WHEN i % 10000 = 0 THEN {outcome.training} ELSE {outcome.completed} END, $3,
			CASE WHEN i % 10000 = 0 THEN $3 ELSE 0 END
		FROM numbers`},
}

// fill writes documents of a shape into the empty fixture.
func (r *fixture) fill(s shape, documents int) {
	r.t.Helper()
	_, err := r.s.Syncs.Ensure(r.ctx(), "wiki", "/wiki", testDestination, false)
	r.must(err)
	_, inPostgres := r.s.backend.(*postgresDB)
	bytes := "BLOB"
	if inPostgres {
		bytes = "bytea"
	}
	words := strings.NewReplacer("{document}", s.document, "{content}", s.content, "{bytes}", bytes)
	start := time.Now()
	for _, f := range fills {
		text, rows := words.Replace(f.text), documents/f.share
		for first := 1; first <= rows; first += 100_000 {
			r.must(r.s.update(r.ctx(), func(t *tx) error {
				if inPostgres { // the foreign keys hold, and checking them takes longer than all else
					if err := t.command(`SET LOCAL session_replication_role = replica`); err != nil {
						return err
					}
				}
				_, err := t.exec(text, first, min(first+99_999, rows), now())
				return err
			}))
		}
	}
	filled := time.Since(start)
	if inPostgres {
		// The statistics of a sample differ from one run to the next, and so do the plans. This reads all rows.
		pgtest.Exec(r.t, r.opts.Path, `DO $$ BEGIN
			EXECUTE format('ALTER DATABASE %I SET default_statistics_target = 1000', current_database());
		END $$`)
		pgtest.Exec(r.t, r.opts.Path, `VACUUM (ANALYZE)`)
	}
	r.t.Logf("filled with %d documents in %v, analyzed in %v", documents, filled.Round(time.Millisecond),
		(time.Since(start) - filled).Round(time.Millisecond))
}
