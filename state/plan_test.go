package state

import (
	"slices"
	"strings"
	"testing"
)

// A waiting process asks these queries again and again: they must not read all documents.
func TestIdleQueriesReadLittle(t *testing.T) {
	r := newFixture(t)
	for name, query := range map[string]string{
		"outstanding": outstanding,
		"resendable":  `SELECT min(c.since) ` + resendable,
		"unfinished":  unfinished,
	} {
		for _, step := range r.plan(query, r.sync.ID) {
			if strings.Contains(step, "autoindex_documents") || strings.HasPrefix(step, "SCAN d") || strings.HasPrefix(step, "SCAN c") {
				t.Errorf("%s: %s", name, step)
			}
		}
	}
}

// plan returns the steps of SQLite's plan for a query.
func (r *fixture) plan(query string, args ...any) (steps []string) {
	r.t.Helper()
	r.must(r.s.query(r.ctx(), `EXPLAIN QUERY PLAN `+query, args, func(scan func(...any) error) error {
		var id, parent, unused int
		var detail string
		err := scan(&id, &parent, &unused, &detail)
		steps = append(steps, detail)
		return err
	}))
	return steps
}

func TestHotQueriesUsePartialIndexes(t *testing.T) {
	r := newFixture(t)
	for _, tt := range []struct {
		index, query string
		args         []any
	}{
		{"documents_open", `SELECT $1, id FROM (` + duePending + ` ORDER BY next_attempt, id LIMIT $4)`, []any{0, 1, 0, 10}},
		{"documents_open", outstanding, []any{1}},
		{"contents_unfinished", outstanding, []any{1}},
		{"contents_unfinished", `SELECT min(c.since) ` + resendable, []any{1}},
		{"documents_content", `SELECT min(c.since) ` + resendable, []any{1}},
		{"sources_due (destination_id=? AND next_poll>?)", duePolls, []any{1, 0, 10, 0}},
		{"sources_due (destination_id=? AND next_poll<?)", duePolls, []any{1, 0, 10, 0}},
		{"documents_open (sync_id=? AND state=? AND next_attempt>?)",
			`SELECT id, $2 FROM documents WHERE sync_id = $1 AND state = {doc.pending} AND state < {doc.linked} AND ` + tooFarAhead, []any{1, 0, 0, 0}},
		{"documents_skipped", `SELECT $2, $4, id FROM (` + blockedDocuments + `)`, []any{1, []byte{}, []byte{}, 10}},
		{"documents_skipped", countBlocked, []any{1}},
		{"documents_vanished", `SELECT $1, id FROM (` + someVanished + `)`, []any{0, 1, 1, 10}},
	} {
		if plan := strings.Join(r.plan(tt.query, tt.args...), "; "); !strings.Contains(plan, "INDEX "+tt.index) {
			t.Errorf("index %s is not used by\n%s\nplan: %s", tt.index, r.sqlite().texts.mark(tt.query).text, plan)
		}
	}
}

// The cost of an answer must not grow with the sources that the destination has: SQLite may take a condition of the index for the
// lower bound, and read all sources below the answer's.
func TestSourcesOfAnAnswerAreSoughtFromTheSmallest(t *testing.T) {
	r := newFixture(t)
	var seeks []string
	r.must(r.s.query(r.ctx(), `EXPLAIN `+sourcesBetween, []any{1, 2, 3}, func(scan func(...any) error) error {
		var code string
		var ignored any
		err := scan(&ignored, &code, &ignored, &ignored, &ignored, &ignored, &ignored, &ignored)
		if strings.HasPrefix(code, "Seek") {
			seeks = append(seeks, code)
		}
		return err
	}))
	if !slices.Equal(seeks, []string{"SeekGE", "SeekGE"}) {
		t.Errorf("the seeks are %v; SeekGT begins at the condition source_id > 0", seeks)
	}
}
