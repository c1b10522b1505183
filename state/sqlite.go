package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteDB is the backend for a file. All writes go through one connection (see update).
type sqliteDB struct {
	path  string // absolute, without symbolic links; empty for openEmpty
	dsn   string // the address for writing, or for reading if the state was opened for it
	files []placedFile
	write *sql.DB
	read  *sql.DB
	texts *sqliteTexts
	reads sync.Map // text -> *sql.Stmt; see statement

	schema  schema
	jobs    chan *job
	stop    chan struct{}
	stopped sync.WaitGroup

	mu     sync.Mutex
	locks  map[string]*fileLock // the held ones, by the name of the sync
	ranges lockRange

	versions versionReader
}

func openSQLite(ctx context.Context, opts Options) (backend, error) {
	s := newSQLite()
	dsn, absent, err := s.locate(opts)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, dsn, opts.ReadOnly && !absent)
}

// openEmpty opens an empty state in memory, for a state that does not exist and is only read.
func openEmpty(ctx context.Context) (backend, error) {
	return newSQLite().open(ctx, inMemory(), false)
}

func newSQLite() *sqliteDB {
	return &sqliteDB{
		texts: newSQLiteTexts(),
		jobs:  make(chan *job), stop: make(chan struct{}), locks: map[string]*fileLock{},
	}
}

const pragmas = "&_pragma=busy_timeout(30000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"

// logPages is the number of pages to which the log grows before SQLite moves it into the main file: 32 MB. The index of the contents is
// random, so a small log would move most pages of a large state again and again.
const logPages = "&_pragma=wal_autocheckpoint(8000)"

// memoryVFS is the parameter of an address in memory.
const memoryVFS = "?vfs=memdb"

func inMemory() string { return fmt.Sprintf("file:/kbsync-%016x", rand.Uint64()) + memoryVFS + pragmas }

func (s *sqliteDB) open(ctx context.Context, dsn string, readOnly bool) (backend, error) {
	s.dsn = dsn
	vacuum := "&_pragma=auto_vacuum(2)"
	if readOnly {
		vacuum = ""
	}
	var err error
	if s.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate&_pragma=cache_size(-4096)"+logPages+vacuum); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)&_pragma=cache_size(-1024)"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	s.read.SetMaxOpenConns(8)
	conn, err := s.prepare(ctx, readOnly)
	if err == nil {
		err = s.placeLogs()
	}
	if err != nil {
		return nil, errors.Join(remedy(err), s.read.Close(), s.write.Close(), s.ranges.close())
	}
	s.stopped.Go(func() { s.run(conn) })
	return s, nil
}

// prepare brings the schema up to date and returns the connection for all writes.
func (s *sqliteDB) prepare(ctx context.Context, readOnly bool) (*sql.Conn, error) {
	var err error
	if s.schema, err = newSchema(goose.DialectSQLite3, s.write, "sqlite"); err != nil {
		return nil, err
	}
	version, err := s.schemaVersion(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.schema.upgrade(ctx, version, readOnly, s.migrateAlone); err != nil {
		return nil, err
	}
	return s.write.Conn(ctx)
}

// schemaVersion returns 0 for an empty database.
func (s *sqliteDB) schemaVersion(ctx context.Context) (version int64, err error) {
	var tables, versions int64
	err = s.write.QueryRowContext(ctx, `
		SELECT count(*), coalesce(sum(name = 'schema_version'), 0)
		FROM sqlite_master
		WHERE type = 'table'`).Scan(&tables, &versions)
	if err != nil || tables == 0 {
		return 0, err
	}
	if versions == 0 {
		return 0, errors.New("the file is a database of another program; name another file")
	}
	err = s.write.QueryRowContext(ctx, appliedVersion).Scan(&version)
	return version, err
}

// migrateAlone runs migrate under the lock of migrations: of several processes that open a new state together, one
// migrates and the others wait for it.
func (s *sqliteDB) migrateAlone(ctx context.Context, migrate func(context.Context) error) error {
	if s.files == nil { // in memory
		return migrate(ctx)
	}
	unlock, err := s.lock(ctx, migrationLock, migrationPatience)
	if err != nil {
		return err
	}
	return errors.Join(s.migrateCopied(ctx, migrate), unlock())
}

// migrateCopied runs migrate after it has copied a database that has tables. If the copy fails, nothing is migrated.
func (s *sqliteDB) migrateCopied(ctx context.Context, migrate func(context.Context) error) error {
	version, err := s.schemaVersion(ctx)
	if err != nil {
		return err
	}
	if version > 0 && version < s.schema.newest {
		if _, err := s.backupBeside(ctx, 0); err != nil {
			return fmt.Errorf("copy the state before its migration: %w", err)
		}
	}
	return migrate(ctx)
}

// locate finds the place of the database, whose links it resolves once: the names of the lock files derive from it. It creates
// the database's file, readable by its owner only, and returns its address. The address of a state that is absent and opened
// for reading is in memory.
func (s *sqliteDB) locate(opts Options) (dsn string, absent bool, err error) {
	given, err := filepath.Abs(opts.Path)
	if err != nil {
		return "", false, err
	}
	if s.path, err = resolveLinks(given); err != nil {
		return "", false, err
	}
	_, err = os.Stat(s.path)
	absent = errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !absent:
		return "", false, err
	case opts.ReadOnly && absent:
		return inMemory(), true, nil
	}
	if err := refuseNetwork(filepath.Dir(s.path)); err != nil {
		return "", false, err
	}
	slashed := filepath.ToSlash(s.path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed
	}
	dsn = "file://" + (&url.URL{Path: slashed}).EscapedPath()
	if opts.ReadOnly {
		return dsn + "?mode=ro" + pragmas, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return "", false, err
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", false, err
	}
	if err := f.Close(); err != nil {
		return "", false, err
	}
	if err := s.place(given); err != nil {
		return "", false, err
	}
	return dsn + "?mode=rw" + pragmas + "&_pragma=journal_mode(WAL)", absent, nil
}

// remedy turns SQLite's error for a damaged file into ErrCorrupt, and adds the cause to its error for a locked one.
func remedy(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w (%w); move the file away and load a backup with kbsync state import", ErrCorrupt, err)
		case sqlite3.SQLITE_BUSY:
			return fmt.Errorf("another program has locked it: %w", err)
		}
	}
	return err
}

// statement returns the prepared statement of a text for reading. SQLite takes longer to prepare most texts than to run them.
func (s *sqliteDB) statement(ctx context.Context, text string) (*sql.Stmt, error) {
	if known, ok := s.reads.Load(text); ok {
		return known.(*sql.Stmt), nil
	}
	stmt, err := s.read.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if known, ok := s.reads.LoadOrStore(text, stmt); ok {
		return known.(*sql.Stmt), stmt.Close()
	}
	return stmt, nil
}

func (s *sqliteDB) query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error {
	text, values := s.texts.of(query, args)
	stmt, err := s.statement(ctx, text)
	if err != nil {
		return remedy(err)
	}
	rows, err := stmt.QueryContext(ctx, values...)
	if err != nil {
		return remedy(err)
	}
	return remedy(drain(rows, row))
}

func (s *sqliteDB) queryOne(ctx context.Context, query string, args []any, dest ...any) error {
	text, values := s.texts.of(query, args)
	stmt, err := s.statement(ctx, text)
	if err != nil {
		return remedy(err)
	}
	err = stmt.QueryRowContext(ctx, values...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return remedy(err)
}

func (s *sqliteDB) snapshot(ctx context.Context, fn func(query queryFunc) error) error {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return remedy(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return remedy(err)
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }() // it only read
	return remedy(fn(func(query string, args []any, row func(scan func(...any) error) error) error {
		text, values := s.texts.of(query, args)
		rows, err := conn.QueryContext(ctx, text, values...)
		if err != nil {
			return err
		}
		return drain(rows, row)
	}))
}

func (s *sqliteDB) integrity(ctx context.Context) (findings []string, err error) {
	err = s.query(ctx, `PRAGMA integrity_check`, nil, func(scan func(...any) error) error {
		var text string
		err := scan(&text)
		if text != "ok" {
			findings = append(findings, "The database is damaged: "+text+".")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var n int
	err = s.queryOne(ctx, `SELECT count(*) FROM pragma_foreign_key_check`, nil, &n)
	if n > 0 {
		findings = append(findings, fmt.Sprintf("%d rows refer to rows that do not exist.", n))
	}
	return findings, err
}

func (s *sqliteDB) ephemeralReason() string {
	if s.path == "" {
		return ""
	}
	return ephemeralReason(filepath.Dir(s.path))
}

// A file has no owners: the lock files say which process works on a sync.
func (s *sqliteDB) owner(context.Context) (int64, error) { return 0, nil }

func (s *sqliteDB) owns(*tx, int64) error { return nil }

func (s *sqliteDB) shared() bool { return false }

func (s *sqliteDB) lost(context.Context) (<-chan struct{}, error) { return nil, nil }

func (s *sqliteDB) recoveryLock(ctx context.Context, sync string) (release func() error, err error) {
	return s.lock(ctx, sync, 0)
}

func (s *sqliteDB) close() error {
	close(s.stop)
	s.stopped.Wait()
	s.versions.close()
	return errors.Join(s.read.Close(), s.write.Close(), s.ranges.close())
}
