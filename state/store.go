package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// HashAhead is the size in bytes up to which every document is hashed before it is sent. SizeTaken knows larger sizes only.
const HashAhead = 1 << 20

// A Store is an open state. Its groups hold the methods, so that a stage takes only the group that it works with. All
// methods may be called from several goroutines.
type Store struct {
	*db

	Syncs     *Syncs     // the named pairs of a root and a destination
	Scans     *Scans     // what a scan reads and records
	Queue     *Queue     // the documents that are to be uploaded
	Journal   *Journal   // every request, its seal and its outcome
	Inventory *Inventory // every source that was ever created
	Documents *Documents // documents as people and pages see them
	Outbox    *Outbox    // messages to hooks
}

// Syncs are the named pairs of a root and a destination.
type Syncs struct{ *db }

// Scans compare a root with the state: a scan reads Known, records its changes, and is finished or dropped.
type Scans struct{ *db }

// The Queue holds the documents that are to be uploaded. A claim takes them out of it for one owner.
type Queue struct{ *db }

// The Journal has a row for every upload request. It decides what is sent once and what is sent twice.
type Journal struct{ *db }

// The Inventory has a row for every source that ReplyCX created, and what its training came to. No row is ever deleted.
type Inventory struct{ *db }

// Documents reads documents for people and pages. It changes nothing.
type Documents struct{ *db }

// The Outbox holds the messages to hooks until they are delivered.
type Outbox struct{ *db }

// db is the open database that all groups share.
//
// All writes go through one connection. Writes that arrive while another one is being committed are committed together:
// with synchronous=FULL every commit waits for the disk, and many uploads end at the same time. A write that returned nil
// is on the disk.
type db struct {
	path  string
	write *sql.DB
	read  *sql.DB

	jobs    chan *job
	stop    chan struct{}
	stopped sync.WaitGroup

	mu    sync.Mutex
	begun map[int64]begun

	watching sync.Mutex
	watch    *sql.Conn // of Version; nil until it is asked for
	watches  int64     // how many there were
}

func newStore(d *db) *Store {
	return &Store{
		db: d, Syncs: &Syncs{d}, Scans: &Scans{d}, Queue: &Queue{d}, Journal: &Journal{d},
		Inventory: &Inventory{d}, Documents: &Documents{d}, Outbox: &Outbox{d},
	}
}

// Options of Open.
type Options struct {
	// Path of the SQLite database; its directory is made if need be.
	Path string
	// ReadOnly opens an existing state for reading alone, and an absent one as an empty one that leaves no file.
	ReadOnly bool
}

// Open opens or creates the state, and brings an older schema up to date. Errors: ErrNewerSchema, ErrCorrupt.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Path == "" {
		return nil, errors.New("open state: no path given")
	}
	dsn, absent, err := location(opts)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", opts.Path, err)
	}
	s := &db{path: opts.Path, jobs: make(chan *job), stop: make(chan struct{}), begun: map[int64]begun{}}
	if s.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate&_pragma=cache_size(-4096)"); err != nil {
		return nil, fmt.Errorf("open state %s: %w", opts.Path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)&_pragma=cache_size(-1024)"); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", opts.Path, err), s.write.Close())
	}
	s.read.SetMaxOpenConns(8)
	conn, err := s.prepare(ctx, opts.ReadOnly, absent)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", opts.Path, remedy(err)), s.read.Close(), s.write.Close())
	}
	s.stopped.Go(func() { s.run(conn) })
	return newStore(s), nil
}

// location makes sure that the database's file is there, readable by its owner alone, and returns its address. In memory, it
// stays there as long as a connection does.
func location(opts Options) (dsn string, absent bool, err error) {
	pragmas := "&_pragma=busy_timeout(30000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"
	_, err = os.Stat(opts.Path)
	absent = errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !absent:
		return "", false, err
	case opts.ReadOnly && absent:
		return fmt.Sprintf("file:/kbsync-%016x?vfs=memdb", rand.Uint64()) + pragmas, true, nil
	}
	path, err := filepath.Abs(opts.Path)
	if err != nil {
		return "", false, err
	}
	if err := refuseNetwork(filepath.Dir(path)); err != nil {
		return "", false, err
	}
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed
	}
	dsn = "file://" + (&url.URL{Path: slashed}).EscapedPath()
	if opts.ReadOnly {
		return dsn + "?mode=ro" + pragmas, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", false, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", false, err
	}
	if err := f.Close(); err != nil {
		return "", false, err
	}
	return dsn + "?mode=rw" + pragmas + "&_pragma=journal_mode(WAL)", absent, nil
}

// migrating is the name of the lock of migrations, which no sync has.
const (
	migrating         = ""
	migratingPatience = 2 * time.Minute
)

// prepare migrates the schema and returns the connection that all writes use. What is read only and absent is in memory.
func (s *db) prepare(ctx context.Context, readOnly, absent bool) (*sql.Conn, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files, goose.WithTableName("schema_version"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, err
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	version, err := schemaVersion(ctx, s.write)
	if err != nil {
		return nil, err
	}
	switch {
	case version > newest:
		return nil, fmt.Errorf("%w: its schema is %d, this one knows %d; upgrade kbsync", ErrNewerSchema, version, newest)
	case version < newest && readOnly && !absent:
		return nil, fmt.Errorf("its schema %d is older than this kbsync's %d; run any command that may write to it first, such as kbsync sync", version, newest)
	case version < newest && readOnly:
		if err := migrate(ctx, provider); err != nil {
			return nil, err
		}
	case version < newest:
		// Of several processes that open a new state at once, one migrates and the others find it done.
		lock, err := s.lock(ctx, migrating, migratingPatience)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(migrate(ctx, provider), lock.Unlock()); err != nil {
			return nil, err
		}
	}
	return s.write.Conn(ctx)
}

// migrate brings the schema up to date. The provider reads each migration into 4 MiB of a pool, which the heap would grow to the double
// of before the next collection; a pool is empty after two.
func migrate(ctx context.Context, provider *goose.Provider) error {
	_, err := provider.Up(ctx)
	runtime.GC()
	runtime.GC()
	return err
}

// schemaVersion is 0 for an empty database.
func schemaVersion(ctx context.Context, db *sql.DB) (int64, error) {
	var tables, version int64
	if err := db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(name = 'schema_version'), 0) FROM sqlite_master WHERE type = 'table'`).Scan(&tables, &version); err != nil {
		return 0, err
	}
	if tables > 0 && version == 0 {
		return 0, errors.New("it is a database of another program; name another file")
	}
	if tables == 0 {
		return 0, nil
	}
	err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM schema_version WHERE is_applied`).Scan(&version)
	return version, err
}

// remedy turns what SQLite says of a damaged file into ErrCorrupt.
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

// EphemeralReason says, in words that go behind "the state is", where the state's file is if that place is likely to be lost soon: memory, or
// what belongs to a container. It is empty for any other place, and where the system does not tell.
func (s *Store) EphemeralReason() string { return fleeting(filepath.Dir(s.path)) }

// Close ends the store. Every other call must have returned.
func (s *Store) Close() error {
	close(s.stop)
	s.stopped.Wait()
	s.unwatch()
	return errors.Join(s.read.Close(), s.write.Close())
}

// A job is one caller's transaction.
type job struct {
	fn   func(*tx) error
	done chan error
}

// update runs fn in a transaction. Once it is queued it is waited for whatever becomes of ctx: a caller must know whether
// a batch was sealed.
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

// run is the only writer. Jobs that wait are taken into one transaction, each in a savepoint of its own.
func (s *db) run(conn *sql.Conn) {
	t := &tx{conn: conn, stmts: map[string]*sql.Stmt{}}
	defer func() {
		t.close()
		_ = conn.Close() // nothing is open on it any more
	}()
	const most = 64
	var group []*job
	var results []error
	for {
		group, results = group[:0], results[:0]
		select {
		case j := <-s.jobs:
			group = append(group, j)
		case <-s.stop:
			return
		}
		begun := t.command("BEGIN IMMEDIATE")
		for i := 0; i < len(group); i++ {
			results = append(results, begun)
			if begun == nil {
				results[i] = t.savepoint(group[i].fn)
			}
			select {
			case j := <-s.jobs:
				if len(group) < most {
					group = append(group, j)
					continue
				}
				// The group is full: the job opens the next one.
				s.finish(t, begun, group, results)
				group, results = append(group[:0], j), results[:0]
				begun = t.command("BEGIN IMMEDIATE")
				i = -1
			default:
			}
		}
		s.finish(t, begun, group, results)
	}
}

func (s *db) finish(t *tx, begun error, group []*job, results []error) {
	if begun == nil {
		if err := t.command("COMMIT"); err != nil {
			_ = t.command("ROLLBACK") // fails where SQLite has rolled back by itself
			for i := range results {
				if results[i] == nil {
					results[i] = fmt.Errorf("commit: %w", err)
				}
			}
		}
	}
	for i, j := range group {
		j.done <- results[i]
	}
}

// A tx is the transaction at hand. Its statements are prepared once.
type tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
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

func (t *tx) savepoint(fn func(*tx) error) error {
	if err := t.command("SAVEPOINT job"); err != nil {
		return err
	}
	err := fn(t)
	if err != nil {
		if undo := t.command("ROLLBACK TO job"); undo != nil {
			return errors.Join(err, undo)
		}
	}
	return errors.Join(err, t.command("RELEASE job"))
}

// Statements are not interrupted: a transaction is short, and must not fail half-way for a reason that is not its own.
func (t *tx) prepared(query string) (*sql.Stmt, error) {
	stmt, ok := t.stmts[query]
	if !ok {
		var err error
		if stmt, err = t.conn.PrepareContext(context.Background(), query); err != nil {
			return nil, fmt.Errorf("prepare %q: %w", query, err)
		}
		t.stmts[query] = stmt
	}
	return stmt, nil
}

func (t *tx) exec(query string, args ...any) (int64, error) {
	stmt, err := t.prepared(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
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
	return err
}

// each calls row for every row, which scans it.
func (t *tx) each(query string, args []any, row func(scan func(...any) error) error) error {
	stmt, err := t.prepared(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	return drain(rows, row)
}

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
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return remedy(err)
	}
	return remedy(drain(rows, row))
}

// queryOne reads a single row outside of the writer's transaction. No row is ErrNotFound.
func (s *db) queryOne(ctx context.Context, query string, args []any, dest ...any) error {
	err := s.read.QueryRowContext(ctx, query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return remedy(err)
}

// millis is how times are stored: 0 for never.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func now() int64 { return time.Now().UnixMilli() }
