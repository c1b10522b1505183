package state

import (
	"strconv"
	"sync"
)

// sqliteTexts are the texts of queries for SQLite, and the values of their parameters.
//
// SQLite looks up the name of a numbered parameter at each binding, which costs more than the rest of a statement with many rows.
// So each $1 becomes a question mark, and the values follow in the order of the marks.
type sqliteTexts struct {
	texts  texts
	marked *sync.Map // query -> markedText
}

// A markedText is a query with question marks, and the positions of their values.
type markedText struct {
	text   string
	values []int
}

func newSQLiteTexts() *sqliteTexts {
	return &sqliteTexts{
		texts: newTexts("{skip.locked}", "", "{share.lock}", "", "{no.index}", "+",
			"{db.now}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
		marked: &sync.Map{},
	}
}

func (x *sqliteTexts) of(query string, args []any) (text string, values []any) {
	m := x.mark(query)
	values = make([]any, len(m.values))
	for i, position := range m.values {
		if position >= len(args) {
			return m.text, args // SQLite reports the number of values
		}
		values[i] = args[position]
	}
	return m.text, values
}

func (x *sqliteTexts) mark(query string) markedText {
	if m, ok := x.marked.Load(query); ok {
		return m.(markedText)
	}
	var m markedText
	m.text = parameter.ReplaceAllStringFunc(x.texts.of(query), func(p string) string {
		n, _ := strconv.Atoi(p[1:]) // the pattern has digits only
		m.values = append(m.values, n-1)
		return "?"
	})
	x.marked.Store(query, m)
	return m
}
