package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
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

// query reads outside of the writer's transaction.
func (s *db) query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error {
	rows, err := s.read.QueryContext(ctx, sqlText(query), args...)
	if err != nil {
		return remedy(err)
	}
	return remedy(drain(rows, row))
}

// queryOne reads a single row outside of the writer's transaction. No row is ErrNotFound.
func (s *db) queryOne(ctx context.Context, query string, args []any, dest ...any) error {
	err := s.read.QueryRowContext(ctx, sqlText(query), args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return remedy(err)
}

// errStop ends a query whose consumer has stopped.
var errStop = errors.New("stop")

// stream turns a query into a sequence. Its last element reports an error. subject names the rows in that error.
func stream[T any](ctx context.Context, s *db, subject, query string, args []any,
	row func(scan func(...any) error) (value T, keep bool, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		err := s.query(ctx, query, args, func(scan func(...any) error) error {
			v, keep, err := row(scan)
			if err == nil && keep && !yield(v, nil) {
				return errStop
			}
			return err
		})
		if err != nil && !errors.Is(err, errStop) {
			var zero T
			yield(zero, fmt.Errorf("read %s: %w", subject, err))
		}
	}
}
