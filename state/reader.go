package state

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
)

func drain(rows *sql.Rows, row func(scan func(...any) error) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// pageSize is the number of rows that a stream reads at once.
const pageSize = 1000

// pages is a query that is read page by page. A stream holds no connection while its consumer works: a few slow consumers
// would otherwise starve every other reader, and a consumer that reads the state itself would wait for itself.
type pages[T any] struct {
	subject string // of the error
	query   string // takes args, then the values of a cursor, then the number of rows
	args    []any
	start   []any         // the first cursor
	after   func(T) []any // the cursor behind a row
	keep    func(T) bool  // nil for all
	scan    func(scan func(...any) error) (T, error)
}

// stream returns the rows as a sequence, each page as of one moment. Its last element reports an error.
func (p pages[T]) stream(ctx context.Context, s *db) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		cursor := p.start
		var page []T
		for {
			page = page[:0]
			args := slices.Concat(p.args, cursor, []any{pageSize})
			err := s.query(ctx, p.query, args, func(scan func(...any) error) error {
				v, err := p.scan(scan)
				page = append(page, v)
				return err
			})
			if err != nil {
				var zero T
				yield(zero, fmt.Errorf("read %s: %w", p.subject, err))
				return
			}
			for _, v := range page {
				if (p.keep == nil || p.keep(v)) && !yield(v, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			cursor = p.after(page[len(page)-1])
		}
	}
}

// keyAfter is the least key that is greater.
func keyAfter(key string) []byte { return append([]byte(key), 0) }
