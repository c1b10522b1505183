package state

import (
	"database/sql"
	"errors"
)

// A tx is a transaction for writing. All texts that write run in one.
type tx struct{ session session }

// A session runs the statements of a transaction on one database. Statements run without the caller's context: a
// transaction is short, and its caller must learn its result.
type session interface {
	exec(query string, args []any) (rows int64, err error)
	// read runs a query and gives its rows to fn.
	read(query string, args []any, fn func(*sql.Rows) error) error
	// lockRow runs a query that locks a row until the transaction ends. It does nothing where there is only one writer.
	lockRow(query string, id any) error
	// lockDestination locks a destination until the transaction ends, for this transaction alone or for all that share the lock.
	// from is a FROM clause with the condition that selects the destination with the number id in column. It does nothing where
	// there is only one writer.
	lockDestination(column, from string, id int64, mode lockMode) error
	// lockPolls locks the polls of a destination until the transaction ends. A transaction that locks the destination too locks it
	// first. It does nothing where there is only one writer.
	lockPolls(destination int64) error
	// notify wakes the processes that share the state after the commit.
	notify() error
	// resetIdentities makes the next generated ids greater than every id in the tables.
	resetIdentities() error
}

func (t *tx) command(query string) error {
	_, err := t.exec(query)
	return err
}

func (t *tx) exec(query string, args ...any) (rows int64, err error) {
	return t.session.exec(query, args)
}

// one reads a single row. No row is ErrNotFound.
func (t *tx) one(query string, args []any, dest ...any) error {
	return t.session.read(query, args, func(rows *sql.Rows) error {
		if rows.Next() {
			return rows.Scan(dest...)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		return ErrNotFound
	})
}

// each calls row for every row. row gets the function that scans it, and runs no statement.
func (t *tx) each(query string, args []any, row func(scan func(...any) error) error) error {
	return t.session.read(query, args, func(rows *sql.Rows) error { return drain(rows, row) })
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

// A lockMode is how a transaction locks a destination.
type lockMode int

const (
	// alone lets no other transaction lock the destination. Everything that changes the breaker, or contents that are in the
	// table, needs it.
	alone lockMode = iota
	// together lets others lock it together, too. It is enough for new contents, for the answers to them and for usual
	// statuses, which are most of the work of several processes.
	together
)

// errAlone ends a transaction that has locked a destination together with others, and needs it alone.
var errAlone = errors.New("the destination must be locked alone")

// together calls update in a shared state with the mode together. If that returns errAlone, or another process has written the
// same row, it calls update again with the mode alone. In a file it calls update once, with the mode alone.
func (s *db) together(update func(lockMode) error) error {
	if s.shared() {
		err := update(together)
		if !errors.Is(err, errAlone) && !isUniqueViolation(err) {
			return err
		}
	}
	return update(alone)
}

// lockDestination locks the destination until the transaction ends. Other writers to its rows wait for each other row by row
// only.
func (t *tx) lockDestination(id int64, mode lockMode) error {
	return t.session.lockDestination("id", "FROM destinations WHERE id = $1", id, mode)
}

// lockSync locks the destination of the sync, see lockDestination.
func (t *tx) lockSync(id int64, mode lockMode) error {
	return t.session.lockDestination("destination_id", "FROM syncs WHERE id = $1", id, mode)
}

func (t *tx) resetIdentities() error { return t.session.resetIdentities() }

// readAll gives the rows to fn and closes them.
func readAll(rows *sql.Rows, fn func(*sql.Rows) error) error {
	err := fn(rows)
	if closed := rows.Close(); err == nil {
		err = closed
	}
	return err
}
