package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	// updateLimit is the time after which a transaction ends whose last statement has no answer. Its caller cannot end it.
	updateLimit = 30 * time.Second
	// readLimit is the same of a read. Its caller may end it earlier.
	readLimit = 2 * time.Minute
	// maxAttempts is the number of times that update runs a function that conflicts with other transactions.
	maxAttempts = 10
)

// postgresDB is the backend for PostgreSQL 15 or newer. Each update is a transaction on a connection of its own.
//
// It works through a pooler that gives each transaction another connection: it keeps nothing in a connection. So it has no
// prepared statements, settings, session locks or temporary tables.
type postgresDB struct {
	pool     *sql.DB
	renewals *sql.DB // one connection for the leases, because statements that wait for a lock may hold the pool's
	texts    postgresTexts
	schema   schema
	readOnly bool
	leases   *leases
	address  *pgx.ConnConfig
	limit    time.Duration // updateLimit, and shorter in tests
}

func openPostgres(ctx context.Context, opts Options) (backend, error) {
	address, err := parseURL(opts.Path)
	if err != nil {
		return nil, err
	}
	p := &postgresDB{pool: stdlib.OpenDB(*address.conn), texts: newPostgresTexts(), readOnly: opts.ReadOnly, limit: updateLimit}
	p.address = address.conn
	p.renewals = stdlib.OpenDB(*address.conn)
	p.renewals.SetMaxOpenConns(1)
	p.leases = newLeases(p, address.lease)
	p.pool.SetMaxOpenConns(address.maxConns)
	p.pool.SetMaxIdleConns(address.maxConns)
	p.pool.SetConnMaxIdleTime(address.maxIdle)
	p.pool.SetConnMaxLifetime(address.maxLife)
	empty, err := p.prepare(ctx)
	switch {
	case err != nil:
		return nil, errors.Join(postgresRemedy(err), p.renewals.Close(), p.pool.Close())
	case empty:
		if err := errors.Join(p.renewals.Close(), p.pool.Close()); err != nil {
			return nil, err
		}
		return openEmpty(ctx)
	}
	return p, nil
}

// prepare checks the server and brings the schema up to date. It reports whether the database is empty and stays so,
// because it is only read.
func (p *postgresDB) prepare(ctx context.Context) (empty bool, err error) {
	if err := p.checkServer(ctx); err != nil {
		return false, err
	}
	if p.schema, err = newSchema(goose.DialectPostgres, p.pool, "postgres"); err != nil {
		return false, err
	}
	version, err := p.schemaVersion(ctx)
	if err != nil || p.readOnly && version == 0 {
		return err == nil, err
	}
	return false, p.schema.upgrade(ctx, version, p.readOnly, p.migrateAlone)
}

// checkServer refuses a server on which a state is not safe.
func (p *postgresDB) checkServer(ctx context.Context) error {
	ctx, cancel := limited(ctx, readLimit)
	defer cancel()
	var version int
	var name, encoding, commit string
	err := p.pool.QueryRowContext(ctx, `SELECT current_setting('server_version_num'), current_setting('server_version'),
		current_setting('server_encoding'), current_setting('synchronous_commit')`).Scan(&version, &name, &encoding, &commit)
	switch {
	case err != nil:
		return err
	case version < 150000:
		return fmt.Errorf("the server is PostgreSQL %s; kbsync needs version 15 or newer", name)
	case encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s; create one with the encoding UTF8", encoding)
	case commit != "on" && commit != "remote_apply":
		return fmt.Errorf("synchronous_commit is %s, so that a crash may lose an answer that was recorded, "+
			"and its documents would be uploaded twice; set it to on for this role: ALTER ROLE … SET synchronous_commit = on", commit)
	}
	return nil
}

// schemaVersion returns 0 for an empty database.
func (p *postgresDB) schemaVersion(ctx context.Context) (version int64, err error) {
	ctx, cancel := limited(ctx, readLimit)
	defer cancel()
	var tables, versions int64
	err = p.pool.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE tablename = 'schema_version')
		FROM pg_tables
		WHERE schemaname = current_schema()`).Scan(&tables, &versions)
	if err != nil || tables == 0 {
		return 0, err
	}
	if versions == 0 {
		return 0, errors.New("the database has tables of another program; create a database for kbsync")
	}
	err = p.pool.QueryRowContext(ctx, appliedVersion).Scan(&version)
	return version, err
}

// migrationKey is the number of the lock of migrations in a database.
const migrationKey = 0x6b6273796e630001

// migrateAlone runs migrate while it holds the lock of migrations. A session lock would not survive a pooler, so the lock
// belongs to a transaction that waits on a connection of its own.
func (p *postgresDB) migrateAlone(ctx context.Context, migrate func(context.Context) error) error {
	ctx, cancel := limited(ctx, migrationPatience)
	defer cancel()
	t, err := p.pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }() // it only locked
	if _, err := t.ExecContext(ctx, fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, int64(migrationKey))); err != nil {
		return err
	}
	return migrate(ctx)
}

// update runs fn in a transaction of its own.
func (p *postgresDB) update(ctx context.Context, fn func(*tx) error) error {
	return p.updateCommit(ctx, "", fn)
}

// updateLazily commits without waiting for the disk, so that the locks of the transaction are held for a shorter time.
func (p *postgresDB) updateLazily(ctx context.Context, fn func(*tx) error) error {
	return p.updateCommit(ctx, "off", fn)
}

// updateCommit runs fn with that synchronous_commit; empty for the connection's.
func (p *postgresDB) updateCommit(ctx context.Context, commit string, fn func(*tx) error) error {
	var err error
	for range maxAttempts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err = p.transact(ctx, commit, fn); !mayRunAgain(err) {
			break
		}
	}
	return postgresRemedy(err)
}

// errBegin is the error of a transaction that did not begin.
type errBegin struct{ error }

func (e errBegin) Unwrap() error { return e.error }

// mayRunAgain reports whether a transaction certainly left nothing, for a cause that another attempt may not meet: a
// conflict, or a connection that was lost while it was idle.
func mayRunAgain(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Code == "40001" || e.Code == "40P01" || e.Code == "25P03") {
		return true
	}
	_, ok := errors.AsType[errBegin](err)
	return ok
}

func (p *postgresDB) transact(ctx context.Context, commit string, fn func(*tx) error) error {
	waiting, stop := limited(ctx, p.limit)
	conn, err := p.pool.Conn(waiting)
	err = unanswered(waiting, err)
	stop()
	if err != nil {
		return err
	}
	defer conn.Close() // returns it to the pool
	own := newPatience(ctx, p.limit)
	defer own.end()
	t, err := conn.BeginTx(own, &sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: p.readOnly})
	if err != nil {
		if own.Err() == nil {
			err = errBegin{err}
		}
		return unanswered(own, err)
	}
	defer func() { _ = t.Rollback() }() // an error after the commit
	x := &tx{&postgresTx{db: p, tx: t, patience: own}}
	if err = p.admit(x, commit); err == nil {
		err = fn(x)
	}
	if err == nil {
		own.renew()
		if err = t.Commit(); err != nil {
			err = fmt.Errorf("commit: %w", err)
		}
	}
	return unanswered(own, err)
}

// admit begins every transaction. It fails if a newer kbsync has migrated the database. And it lets the server end the
// transaction of a process that is paused or cut off, before the others lose their leases while they wait for the rows that it
// has locked. The settings end with the transaction, so they work through a pooler.
func (p *postgresDB) admit(t *tx, commit string) error {
	var version int64
	var limit string
	if err := t.one(`SELECT coalesce(max(version_id), 0), set_config('idle_in_transaction_session_timeout', $1, true),
			set_config('synchronous_commit', coalesce(nullif($2, ''), current_setting('synchronous_commit')), true)
		FROM schema_version
		WHERE is_applied`, []any{fmt.Sprint(p.leases.length.Milliseconds() / 2), commit}, &version, &limit, &commit); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	return p.schema.check(version)
}

// A postgresTx is the session of one update.
type postgresTx struct {
	db       *postgresDB
	tx       *sql.Tx
	patience *patience
}

func (t *postgresTx) exec(query string, args []any) (rows int64, err error) {
	text, values, err := t.db.texts.of(query, args)
	if err != nil {
		return 0, err
	}
	t.patience.renew()
	res, err := t.tx.ExecContext(t.patience, text, values...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (t *postgresTx) read(query string, args []any, fn func(*sql.Rows) error) error {
	text, values, err := t.db.texts.of(query, args)
	if err != nil {
		return err
	}
	t.patience.renew()
	rows, err := t.tx.QueryContext(t.patience, text, values...)
	if err != nil {
		return err
	}
	return readAll(rows, fn)
}

func (t *postgresTx) lockRow(query string, id any) error {
	_, err := t.exec(query+` FOR UPDATE`, []any{id})
	return err
}

// lockDestination takes an advisory lock, whose waiters are served in order. A row's lock would let the sharers starve
// the one that needs it alone. The lock ends with the transaction, so it works through a pooler.
func (t *postgresTx) lockDestination(column, from string, id int64, mode lockMode) error {
	lock := "pg_advisory_xact_lock"
	if mode == together {
		lock = "pg_advisory_xact_lock_shared"
	}
	_, err := t.exec(`SELECT `+lock+`(hashtextextended(current_schema(), `+column+`)) `+from, []any{id})
	return err
}

func (t *postgresTx) lockPolls(destination int64) error {
	_, err := t.exec(`SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' polls', $1))`, []any{destination})
	return err
}

func (t *postgresTx) resetIdentities() error {
	for _, table := range []string{"destinations", "syncs", "contents", "documents", "batches", "outbox"} {
		_, err := t.exec(`SELECT setval(pg_get_serial_sequence('`+table+`', 'id'), coalesce(max(id), 0) + 1, false)
			FROM `+table, nil)
		if err != nil {
			return fmt.Errorf("set the next id of %s: %w", table, err)
		}
	}
	return nil
}

func (p *postgresDB) query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error {
	ctx, cancel := limited(ctx, readLimit)
	defer cancel()
	return postgresRemedy(unanswered(ctx, p.rows(ctx, p.pool, query, args, row)))
}

// A querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (p *postgresDB) rows(ctx context.Context, from querier, query string, args []any,
	row func(scan func(...any) error) error) error {
	text, values, err := p.texts.of(query, args)
	if err != nil {
		return err
	}
	rows, err := from.QueryContext(ctx, text, values...)
	if err != nil {
		return err
	}
	return drain(rows, row)
}

func (p *postgresDB) queryOne(ctx context.Context, query string, args []any, dest ...any) error {
	text, values, err := p.texts.of(query, args)
	if err != nil {
		return err
	}
	ctx, cancel := limited(ctx, readLimit)
	defer cancel()
	err = p.pool.QueryRowContext(ctx, text, values...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return postgresRemedy(unanswered(ctx, err))
}

// snapshot has no limit: fn may write to a slow reader.
func (p *postgresDB) snapshot(ctx context.Context, fn func(query queryFunc) error) error {
	t, err := p.pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return postgresRemedy(err)
	}
	defer func() { _ = t.Rollback() }() // it only read
	return postgresRemedy(fn(func(query string, args []any, row func(scan func(...any) error) error) error {
		return p.rows(ctx, t, query, args, row)
	}))
}

// version is a hash of the set of transactions that have ended.
func (p *postgresDB) version(ctx context.Context) (int64, error) {
	var snapshot string
	if err := p.queryOne(ctx, `SELECT CAST(pg_current_snapshot() AS TEXT)`, nil, &snapshot); err != nil {
		return 0, err
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(snapshot)) // never fails
	return int64(h.Sum64()), nil
}

// integrity finds nothing: the server checks its own files.
func (p *postgresDB) integrity(context.Context) ([]string, error) { return nil, nil }

func (p *postgresDB) ephemeralReason() string { return "" }

func (p *postgresDB) shared() bool { return true }

func (p *postgresDB) heldInPlace(string) error { return nil }

func (p *postgresDB) close() error {
	p.leases.end()
	return errors.Join(p.renewals.Close(), p.pool.Close())
}
