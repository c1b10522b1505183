package state

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// smallTables have a row for a sync, a process, an account or a message: a query may read them whole. past_contents has a
// row for a version that an edit left behind, and the reports about such versions read all of it, as their docs say.
var smallTables = []string{
	"destinations", "syncs", "outbox", "reported", "owners", "leases", "rates", "past_contents", "failed_endings", "samples", "later",
}

// openIndexes have only the rows that somebody still works on, or that are rare. A query may read all entries of a sync or a destination in
// them. documents_open is among them although a first sync fills it: see TestHotQueriesReadNoWholeTable.
var openIndexes = []string{
	"documents_open", "documents_skipped", "documents_vanished", "contents_unfinished", "contents_due", "contents_again", "batches_open", "batches_unanswered",
	"batches_resends", "batches_too_large", "sources_due",
}

// narrow matches a condition that only a few rows meet. Other columns name a sync, a destination or a state. The expression is the
// address of a content, which PostgreSQL prints as substr(sha256, 1, 16). Two bounds of the key are a directory.
var narrow = regexp.MustCompile(`(\b(id|rowid|key|content_id|document_id|batch_id|source_id|size|inode|resend_of)|<expr>|substr\([^=]*\)) ?(=|IN )` +
	`|source_id ?>.* AND \(?source_id ?<` + `|\bkey ?>=.* AND \(?key ?<`)

// bounded matches a condition that gives the place where a reader begins.
var bounded = regexp.MustCompile(`\b(id|rowid|key|source_id|batch_id|document_id)\)? ?[<>]`)

// wholeRead returns why a step of a plan reads a table whole, or an empty text. limited says that the reader takes the first rows and
// stops.
func wholeRead(index, condition, filter string, limited bool) string {
	switch {
	case slices.Contains(openIndexes, index):
	case narrow.MatchString(condition):
	case limited && bounded.MatchString(condition):
	case limited && condition == "" && filter == "": // the first or the last rows
	case limited && index == "batches_accepted": // in the order of the ids
	case limited && index == "contents_source" && filter == "": // in the order of the sources' ids
	case limited && strings.HasPrefix(index, "sources_pkey") && filter == "(acked_at = 0)": // few are acknowledged
	default:
		return "it reads all of " + index + " " + condition
	}
	return ""
}

// A planNode is a part of PostgreSQL's EXPLAIN (FORMAT JSON).
type planNode struct {
	Type      string     `json:"Node Type"`
	Relation  string     `json:"Relation Name"`
	Index     string     `json:"Index Name"`
	Condition string     `json:"Index Cond"`
	Filter    string     `json:"Filter"`
	Plans     []planNode `json:"Plans"`
}

// rare matches a condition on an open index that few rows meet while many documents are pending or in training: claimed, refused,
// reserved, uncertain, stuck or failed; or beyond a time in the future.
var rare = regexp.MustCompile(`(sync_id|destination_id) = .*(state = '?[1246]|next_attempt > )`)

// openReads returns the faults of a plan for a database that is full of pending documents and sources in training: it reads or sorts
// all of them.
func (n *planNode) openReads(limited bool) (faults []string) {
	limited = n.limits(limited)
	if slices.Contains([]string{"documents_open", "contents_unfinished", "contents_due"}, n.Index) && !limited &&
		!rare.MatchString(n.Condition) && !narrow.MatchString(n.Condition) {
		faults = append(faults, "it reads all of "+n.Index+" "+n.Condition)
	}
	for i := range n.Plans {
		faults = append(faults, n.Plans[i].openReads(limited)...)
	}
	return faults
}

// limits reports whether a part takes only the first rows of those below, as they come.
func (n *planNode) limits(limited bool) bool {
	switch n.Type {
	case "Limit":
		return true
	case "Sort", "Incremental Sort", "Aggregate", "Hash", "Materialize", "Unique", "SetOp":
		return false
	}
	return limited
}

// wholeReads returns the faults of a plan. limited says that a Limit above takes the first rows as they come.
func (n *planNode) wholeReads(limited bool) (faults []string) {
	small := slices.ContainsFunc(smallTables, func(t string) bool { return n.Relation == t || strings.HasPrefix(n.Index, t+"_") })
	limited = n.limits(limited)
	switch n.Type {
	case "Seq Scan", "Sample Scan", "Tid Scan":
		if !small {
			faults = append(faults, "it reads all of "+n.Relation)
		}
	case "Index Scan", "Index Only Scan", "Bitmap Index Scan":
		if fault := wholeRead(n.Index, n.Condition, n.Filter, limited && n.Type != "Bitmap Index Scan"); fault != "" && !small {
			faults = append(faults, fault)
		}
	}
	for i := range n.Plans {
		faults = append(faults, n.Plans[i].wholeReads(limited)...)
	}
	return faults
}

// wholeReads returns the faults of the database's plan for a text, and the plan.
func (r *fixture) wholeReads(q recorded) (faults []string, plan string) {
	r.t.Helper()
	if db, ok := r.s.backend.(*sqliteDB); ok {
		steps := r.steps(q)
		for _, step := range steps {
			plan += step.detail + "\n"
		}
		return sqliteWholeReads(db.texts.mark(q.query).text, steps), plan
	}
	for _, n := range r.postgresPlan(q) {
		faults = append(faults, n.wholeReads(false)...)
		plan += n.text("")
	}
	return faults, plan
}

func (r *fixture) postgresPlan(q recorded) (nodes []planNode) {
	r.t.Helper()
	var text []byte
	r.must(r.s.queryOne(r.ctx(), `EXPLAIN (FORMAT JSON) `+q.query, q.args, &text))
	var plans []struct{ Plan planNode }
	r.must(json.Unmarshal(text, &plans))
	for _, p := range plans {
		nodes = append(nodes, p.Plan)
	}
	return nodes
}

func (n *planNode) text(indent string) string {
	text := strings.Join(strings.Fields(n.Type+" "+n.Relation+" "+n.Index+" "+n.Condition), " ")
	if n.Filter != "" {
		text += ", filter " + n.Filter
	}
	text = indent + text + "\n"
	for i := range n.Plans {
		text += n.Plans[i].text(indent + "  ")
	}
	return text
}

// A sqliteStep is a row of SQLite's EXPLAIN QUERY PLAN.
type sqliteStep struct {
	id, parent int
	detail     string
}

func (r *fixture) steps(q recorded) (steps []sqliteStep) {
	r.t.Helper()
	r.must(r.s.query(r.ctx(), `EXPLAIN QUERY PLAN `+q.query, q.args, func(scan func(...any) error) error {
		var step sqliteStep
		var unused int
		err := scan(&step.id, &step.parent, &unused, &step.detail)
		steps = append(steps, step)
		return err
	}))
	return steps
}

// accessStep matches a step that reads a table: SEARCH d USING COVERING INDEX documents_open (sync_id=? AND state=?).
var accessStep = regexp.MustCompile(`^(SCAN|SEARCH) (\S+)` +
	`(?: USING (AUTOMATIC )?(?:PARTIAL )?(?:COVERING )?(?:INDEX ([^ (]\S*)|INDEX|INTEGER PRIMARY KEY|PRIMARY KEY))?(?: \((.*)\))?`)

// smallNames are the names that the texts give small tables, and SQLite's names of rows without a table.
var smallNames = append([]string{"y", "s", "t", "v", "f", "p", "CONSTANT"}, smallTables...)

// sqliteWholeReads returns the faults of a plan of SQLite.
func sqliteWholeReads(query string, steps []sqliteStep) (faults []string) {
	sorted := map[int]bool{} // by parent
	derived := map[string]int{}
	for _, step := range steps {
		sorted[step.parent] = sorted[step.parent] || step.detail == "USE TEMP B-TREE FOR ORDER BY"
		if kind, name, ok := strings.Cut(step.detail, " "); ok && (kind == "CO-ROUTINE" || kind == "MATERIALIZE") {
			derived[name]++
		}
	}
	limits := regexp.MustCompile(`LIMIT|\b(min|max)\(`).MatchString(query)
	for _, step := range steps {
		m := accessStep.FindStringSubmatch(step.detail)
		if m == nil || slices.Contains(smallNames, m[2]) || strings.HasSuffix(m[2], "-ROW") || strings.HasPrefix(m[2], "(") ||
			m[2] == "o" && strings.Contains(query, "FROM owners o") {
			continue
		}
		limited := limits && !sorted[step.parent]
		fault := wholeRead(m[4], m[5], "", limited)
		switch {
		case derived[m[2]] > 0 && (m[4] == "" && m[5] == "" || m[3] != ""): // rows of a subquery
			if m[1] == "SCAN" {
				derived[m[2]]--
			}
			continue
		case m[3] != "":
			fault = "it builds an index"
		case m[1] == "SCAN" && limited && m[4] == "" && !strings.Contains(query, "WHERE"): // the first or the last rows
			continue
		case m[1] == "SCAN" && !slices.Contains(openIndexes, m[4]):
			fault = "it reads all"
		case limited && m[2] == "sources" && m[5] == "destination_id=?": // few are acknowledged
			continue
		}
		if fault != "" {
			faults = append(faults, step.detail+": "+fault)
		}
	}
	return faults
}
