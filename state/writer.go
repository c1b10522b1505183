package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxGroup is the number of jobs that are committed together at most.
const maxGroup = 64

// A job is one caller's transaction.
type job struct {
	fn   func(*tx) error
	done chan error
}

// update runs fn in a transaction. If it returns nil, the transaction is on the disk. Once the job is queued, update
// waits for its result even if ctx ends: a caller must learn whether a batch was sealed. fn may run again after an error.
func (s *db) update(ctx context.Context, fn func(*tx) error) error {
	j := &job{fn: fn, done: make(chan error, 1)}
	select {
	case s.jobs <- j:
		return remedy(<-j.done)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.stop:
		return errors.New("the state is closed")
	}
}

// run is the only writer. With synchronous=FULL every commit waits for the disk, and many uploads end at the same time:
// so the jobs that wait are committed together, each in its own savepoint.
func (s *db) run(conn *sql.Conn) {
	t := &tx{conn: conn, stmts: map[string]*sql.Stmt{}}
	defer func() {
		s.checkpointAtEnd(t)
		t.close()
		_ = conn.Close() // no statement is open on it any more
	}()
	var due <-chan time.Time // of the next checkpoint; nil while there is nothing to move
	for {
		select {
		case j := <-s.jobs:
			s.commitGroup(t, j)
			if due == nil {
				due = time.After(checkpointDelay)
			}
		case <-due:
			due = nil
			if !s.checkpoint(t) {
				due = time.After(checkpointDelay)
			}
		case <-s.stop:
			return
		}
	}
}

// commitGroup runs first and the jobs that wait, and commits them. If a job loses the transaction, the group ends there, and
// no job of it is on the disk.
func (s *db) commitGroup(t *tx, first *job) {
	var group []*job
	var results []error
	t.lost = nil
	begun := t.command("BEGIN IMMEDIATE")
	t.lost = nil // without a transaction none is lost
	for j := first; j != nil; j = s.waiting(len(group)) {
		result := begun
		if begun == nil {
			result = t.savepoint(j.fn)
		}
		group, results = append(group, j), append(results, result)
		if t.lost != nil {
			break
		}
	}
	if begun == nil {
		if err := t.commit(); err != nil {
			for i := range results {
				if results[i] == nil {
					results[i] = err
				}
			}
		}
	}
	for i, j := range group {
		j.done <- results[i]
	}
}

// waiting returns the next job for a group of n, or nil if no job waits or the group is full.
func (s *db) waiting(n int) *job {
	if n == maxGroup {
		return nil
	}
	select {
	case j := <-s.jobs:
		return j
	default:
		return nil
	}
}

// A tx is the current transaction of the writer. It prepares each statement once.
type tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	lost  error // why SQLite rolled back, or may have rolled back, the whole transaction
}

func (t *tx) close() {
	for _, stmt := range t.stmts {
		_ = stmt.Close() // only frees memory
	}
}

func (t *tx) command(query string) error {
	_, err := t.exec(query)
	return err
}

// commit commits the transaction, or ends it if it is lost.
func (t *tx) commit() error {
	err := t.lost
	if err == nil {
		if err = t.command("COMMIT"); err == nil {
			return nil
		}
	}
	t.lost = nil
	_ = t.command("ROLLBACK") // fails if SQLite has already rolled back
	return fmt.Errorf("commit: %w", err)
}

// savepoint runs fn so that its error undoes only its own changes.
func (t *tx) savepoint(fn func(*tx) error) error {
	if err := t.command("SAVEPOINT job"); err != nil {
		return err
	}
	err := fn(t)
	if err == nil {
		err = t.lost // fn has ignored it
	}
	if t.lost != nil {
		return err
	}
	if err != nil {
		t.lost = t.command("ROLLBACK TO job")
	}
	if t.lost == nil {
		t.lost = t.command("RELEASE job")
	}
	return errors.Join(err, t.lost)
}

// noteLost keeps an error after which SQLite may have rolled back the whole transaction, such as a full disk. Any further
// statement would then be committed alone, so that none is run.
func (t *tx) noteLost(err error) {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT:
		t.lost = err
	}
}

// prepared returns the statement. Statements run without the caller's context: a transaction is short, and a cancelled
// caller must not end the transaction of the others.
func (t *tx) prepared(query string) (*sql.Stmt, error) {
	if t.lost != nil {
		return nil, t.lost
	}
	stmt, ok := t.stmts[query]
	if !ok {
		text := sqlText(query)
		var err error
		if stmt, err = t.conn.PrepareContext(context.Background(), text); err != nil {
			return nil, fmt.Errorf("prepare %q: %w", text, err)
		}
		t.stmts[query] = stmt
	}
	return stmt, nil
}

func (t *tx) exec(query string, args ...any) (rows int64, err error) {
	stmt, err := t.prepared(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		t.noteLost(err)
		return 0, err
	}
	return res.RowsAffected()
}

// one reads a single row. No row is ErrNotFound.
func (t *tx) one(query string, args []any, dest ...any) error {
	stmt, err := t.prepared(query)
	if err != nil {
		return err
	}
	err = stmt.QueryRowContext(context.Background(), args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	t.noteLost(err)
	return err
}

// each calls row for every row. row gets the function that scans it.
func (t *tx) each(query string, args []any, row func(scan func(...any) error) error) error {
	stmt, err := t.prepared(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(context.Background(), args...)
	if err == nil {
		err = drain(rows, row)
	}
	t.noteLost(err)
	return err
}

// ids returns the numbers in the only column of a query.
func (t *tx) ids(query string, args ...any) ([]int64, error) {
	var ids []int64
	err := t.each(query, args, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}
