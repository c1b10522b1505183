package state

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// recordLife runs steps in a small state, and returns the texts that ran.
func recordLife(r *fixture, steps []lifeStep) []recorded {
	r.t.Helper()
	rec := newRecorder(r.s.backend)
	r.s = newStore(rec)
	for _, step := range steps {
		rec.begin(step.methods)
		step.run(r)
	}
	return rec.texts
}

// TestHotQueriesReadNoWholeTable runs every method of a Store in a small state, and asks for the plan of each text that ran, with
// its values, in a large one. Texts of methods that run for a batch, a poll, a page or a status must not read a whole table.
//
// The large databases have 200,000 documents, because a million take a minute to write. `make plans` sets PLAN_DOCUMENTS to a
// million.
func TestHotQueriesReadNoWholeTable(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		hot := recordLife(newFixture(t), life)
		small := newFixture(t)
		small.put("a.md", "b.md")
		small.upload(map[string]string{"a.md": "A", "b.md": "B"})
		whole := recordLife(small, wholeLife)
		large := newFixture(t)
		large.fill(settled, manyRows(t))
		large.ignoreForeignKeys()
		large.checkPlans(hot)
		large.wantWholeReads(whole)
		if _, ok := large.s.backend.(*sqliteDB); ok {
			// kbsync collects no statistics of a file, but a person may.
			large.must(large.s.update(large.ctx(), func(t *tx) error { return t.command(`ANALYZE`) }))
			large.checkPlans(hot)
		}
	})
}

// ignoreForeignKeys keeps the checks of foreign keys out of SQLite's plans. They would read the tables that refer to a row when it is
// deleted, and no such row is ever deleted. In the plan of an insert they stand, too, and do not run.
func (r *fixture) ignoreForeignKeys() {
	r.t.Helper()
	db, ok := r.s.backend.(*sqliteDB)
	if !ok {
		return
	}
	db.read.SetMaxOpenConns(1)
	_, err := db.read.ExecContext(r.ctx(), `PRAGMA foreign_keys = 0`)
	r.must(err)
}

// TestHotQueriesTakeFromALongQueue is the same for a first sync, whose documents are almost all pending or in training. PostgreSQL
// plans by the numbers of rows, so that only its plans can differ. The reports of what is unfinished read all of it, and so does the
// search of the smallest document, which a probe of the breaker sends.
func TestHotQueriesTakeFromALongQueue(t *testing.T) {
	r := fixtureIn(t, inPostgres)
	hot := recordLife(fixtureIn(t, inPostgres), life)
	r.fill(firstSync, manyRows(t))
	for _, q := range hot {
		if q.query == outstanding || strings.Contains(q.query, unfinished) || strings.Contains(q.query, "ORDER BY size, id") {
			continue
		}
		for _, n := range r.postgresPlan(q) {
			if faults := n.openReads(false); len(faults) > 0 {
				t.Errorf("%s\n\truns %s\n\twith %v\n\tplan %s", strings.Join(faults, "; "), q.query, q.args, n.text(""))
			}
		}
	}
}

func (r *fixture) checkPlans(texts []recorded) {
	r.t.Helper()
	for _, q := range texts {
		if faults, plan := r.wholeReads(q); len(faults) > 0 {
			r.t.Errorf("%s\n\truns %s\n\twith %v\n\tplan %s", strings.Join(faults, "; "), q.query, q.args, plan)
		}
	}
}

// wantWholeReads checks that each step of wholeLife has a text that reads a table whole: else it belongs to life.
func (r *fixture) wantWholeReads(texts []recorded) {
	r.t.Helper()
	found := map[string]bool{}
	for _, q := range texts {
		faults, _ := r.wholeReads(q)
		found[q.step] = found[q.step] || len(faults) > 0
	}
	for step, whole := range found {
		if !whole {
			r.t.Errorf("%s reads no table whole", step)
		}
	}
}

// A new method must have its texts checked.
func TestLifeHasEveryMethod(t *testing.T) {
	var lived []string
	for _, step := range slices.Concat(life, wholeLife) {
		lived = append(lived, strings.Fields(step.methods)...)
	}
	groups := reflect.TypeFor[Store]()
	for i := range groups.NumField() {
		group := groups.Field(i)
		if !group.IsExported() {
			continue
		}
		for j := range group.Type.NumMethod() {
			if name := group.Name + "." + group.Type.Method(j).Name; !slices.Contains(lived, name) {
				t.Errorf("%s is not in life or wholeLife", name)
			}
		}
	}
}
