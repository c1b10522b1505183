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
	lazy bool // a crash of the machine may undo it, if no other job has followed
	done chan error
}

// update gives the job to the only writer, see run.
func (s *sqliteDB) update(ctx context.Context, fn func(*tx) error) error {
	return s.submit(ctx, &job{fn: fn, done: make(chan error, 1)})
}

// updateLazily is update, but its commit does not wait for the disk. The next durable commit takes it along, because the log
// is written in order.
func (s *sqliteDB) updateLazily(ctx context.Context, fn func(*tx) error) error {
	return s.submit(ctx, &job{fn: fn, lazy: true, done: make(chan error, 1)})
}

func (s *sqliteDB) submit(ctx context.Context, j *job) error {
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
func (s *sqliteDB) run(conn *sql.Conn) {
	t := &sqliteTx{conn: conn, texts: s.texts, stmts: map[string]*sql.Stmt{}}
	defer func() {
		s.checkpointAtEnd(t)
		t.close()
		_ = conn.Close() // no statement is open on it any more
	}()
	var due <-chan time.Time // of the next checkpoint; nil while there is nothing to move
	for {
		select {
		case j := <-s.jobs:
			for j != nil {
				j = s.commitGroup(t, j)
			}
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
// no job of it is on the disk. A group of lazy jobs ends before a durable one, which commitGroup returns.
func (s *sqliteDB) commitGroup(t *sqliteTx, first *job) (next *job) {
	var group []*job
	var results []error
	t.lost = nil
	begun := t.waitForDisk(!first.lazy)
	if begun == nil {
		begun = t.command("BEGIN IMMEDIATE")
	}
	t.lost = nil // without a transaction none is lost
	refused := begun
	if begun == nil {
		refused = s.schema.refuseNewer(&tx{t})
	}
	for j := first; j != nil; j = s.waiting(len(group)) {
		if first.lazy && !j.lazy {
			next = j
			break
		}
		result := refused
		if refused == nil {
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
	return next
}

// waiting returns the next job for a group of n, or nil if no job waits or the group is full.
func (s *sqliteDB) waiting(n int) *job {
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

// A sqliteTx is the current transaction of the writer. It prepares each statement once.
type sqliteTx struct {
	conn  *sql.Conn
	texts *sqliteTexts
	stmts map[string]*sql.Stmt
	lazy  bool  // commits do not wait for the disk
	lost  error // why SQLite rolled back, or may have rolled back, the whole transaction
}

func (t *sqliteTx) close() {
	for _, stmt := range t.stmts {
		_ = stmt.Close() // only frees memory
	}
}

func (t *sqliteTx) command(query string) error {
	_, err := t.exec(query, nil)
	return err
}

// waitForDisk sets whether the next commits wait for the disk. The statement is not prepared, because SQLite runs it when it is
// compiled.
func (t *sqliteTx) waitForDisk(wait bool) error {
	if wait == !t.lazy {
		return nil
	}
	level := "NORMAL"
	if wait {
		level = "FULL"
	}
	_, err := t.conn.ExecContext(context.Background(), "PRAGMA synchronous="+level)
	if err == nil {
		t.lazy = !wait
	}
	return err
}

// commit commits the transaction, or ends it if it is lost.
func (t *sqliteTx) commit() error {
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
func (t *sqliteTx) savepoint(fn func(*tx) error) error {
	if err := t.command("SAVEPOINT job"); err != nil {
		return err
	}
	err := fn(&tx{t})
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
func (t *sqliteTx) noteLost(err error) {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_INTERRUPT:
		t.lost = err
	}
}

// prepared returns the statement and its values. Statements run without the caller's context: a transaction is short, and a
// cancelled caller must not end the transaction of the others.
func (t *sqliteTx) prepared(query string, args []any) (*sql.Stmt, []any, error) {
	if t.lost != nil {
		return nil, nil, t.lost
	}
	text, values := t.texts.of(query, args)
	stmt, ok := t.stmts[query]
	if !ok {
		var err error
		if stmt, err = t.conn.PrepareContext(context.Background(), text); err != nil {
			return nil, nil, fmt.Errorf("prepare %q: %w", text, err)
		}
		t.stmts[query] = stmt
	}
	return stmt, values, nil
}

func (t *sqliteTx) exec(query string, args []any) (rows int64, err error) {
	stmt, values, err := t.prepared(query, args)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(context.Background(), values...)
	if err != nil {
		t.noteLost(err)
		return 0, err
	}
	return res.RowsAffected()
}

func (t *sqliteTx) read(query string, args []any, fn func(*sql.Rows) error) error {
	stmt, values, err := t.prepared(query, args)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(context.Background(), values...)
	if err == nil {
		err = readAll(rows, fn)
	}
	t.noteLost(err)
	return err
}

// lockRow does nothing: there is one writer.
func (t *sqliteTx) lockRow(string, any) error { return nil }

func (t *sqliteTx) lockDestination(string, string, int64, lockMode) error { return nil }

func (t *sqliteTx) lockPolls(int64) error { return nil }

// resetIdentities does nothing: SQLite continues after the greatest id.
func (t *sqliteTx) resetIdentities() error { return nil }
