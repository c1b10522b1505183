package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Store is an open state. Its groups hold the methods, so that a stage takes only the group that it works with. All
// methods may be called from several goroutines.
type Store struct {
	*db

	Syncs     *Syncs     // the named pairs of a root and a destination
	Scans     *Scans     // scans of roots
	Queue     *Queue     // the documents that wait for their upload
	Journal   *Journal   // every request, its seal and its outcome
	Inventory *Inventory // every source that was ever created
	Documents *Documents // documents as people and pages see them
	Outbox    *Outbox    // messages to hooks
}

// db is the open database that all groups share.
type db struct {
	backend
	claims *atomic.Int64 // the number of claims of this process
}

// A backend is an open SQLite or PostgreSQL database. The same texts run on both.
type backend interface {
	// update runs fn in a transaction. If it returns nil, the transaction is durable. Once the transaction has begun, update
	// waits for its result even if ctx ends: a caller must learn whether a batch was sealed. fn may run again after an error.
	// Errors: ErrNewerSchema.
	update(ctx context.Context, fn func(*tx) error) error
	// updateLazily is update, but a crash of the database may undo the transaction, if no durable one has followed. It is for what
	// a process can do again: claims, polls, the times of requests.
	updateLazily(ctx context.Context, fn func(*tx) error) error
	// query reads outside of transactions, and calls row for every row. row gets the function that scans it.
	query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error
	// queryOne reads a single row outside of transactions. No row is ErrNotFound.
	queryOne(ctx context.Context, query string, args []any, dest ...any) error
	// snapshot runs fn, whose queries all read the database as of one moment.
	snapshot(ctx context.Context, fn func(query queryFunc) error) error
	// version returns a number that changes with every write.
	version(ctx context.Context) (int64, error)
	// integrity returns a sentence for each fault of the database itself.
	integrity(ctx context.Context) ([]string, error)
	// backup is Backup, and backupBeside is BackupBeside.
	backup(ctx context.Context, path string) error
	backupBeside(ctx context.Context, age time.Duration) (string, error)
	// ephemeralReason is EphemeralReason.
	ephemeralReason() string
	// lock takes the lock of a sync, and waits up to wait for it. Errors: ErrLocked.
	lock(ctx context.Context, sync string, wait time.Duration) (release func() error, err error)
	// recoveryLock takes the lock that is needed to end the work of processes that have died. Errors: ErrLocked.
	recoveryLock(ctx context.Context, sync string) (release func() error, err error)
	// shared reports whether several processes may work on one sync.
	shared() bool
	// owner returns the number of this process in a shared state, which it registers if need be; 0 if the state is not shared.
	owner(ctx context.Context) (int64, error)
	// owns checks that the lease of an owner has not run out. Errors: ErrLeaseLost.
	owns(t *tx, owner int64) error
	// lost returns a channel that is closed when the lease of this process is lost; nil for never.
	lost(ctx context.Context) (<-chan struct{}, error)
	// heldInPlace is inPlace as far as it needs no transaction.
	heldInPlace(sync string) error
	// inPlace checks that this process may still write the truth about a sync. Errors: ErrMoved, ErrLockLost.
	inPlace(t *tx, syncID int64) error
	// listen is Listen.
	listen(ctx context.Context, wake func())
	close() error
}

// A queryFunc is backend.query without a context.
type queryFunc func(query string, args []any, row func(scan func(...any) error) error) error

func newStore(b backend) *Store {
	d := &db{backend: b, claims: &atomic.Int64{}}
	return &Store{
		db: d, Syncs: &Syncs{d}, Scans: &Scans{d}, Queue: &Queue{d}, Journal: &Journal{d},
		Inventory: &Inventory{d}, Documents: &Documents{d}, Outbox: &Outbox{d},
	}
}

// Options of Open.
type Options struct {
	// Path of the SQLite database, or the URL of a PostgreSQL database: postgres://user@host:5432/name, with libpq's
	// parameters in its query. Open creates the directory of an SQLite database if it does not exist.
	//
	// The URL need not have the password: PGPASSWORD and .pgpass are read. pool_max_conns in the query is the number of
	// connections at most (8), and at least two. default_query_exec_mode is the one of pgx (exec).
	Path string
	// ReadOnly opens an existing state for reading only. A state that does not exist reads as an empty one, and Open
	// creates no file and no table.
	ReadOnly bool
}

// Open opens or creates the state, and brings an older schema up to date. PostgreSQL must be of version 15 or newer, with
// the encoding UTF8 and synchronous commits. No error has the password of a URL. Errors: ErrNewerSchema, ErrCorrupt.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Path == "" {
		return nil, errors.New("open state: no path given")
	}
	open := openSQLite
	if isURL(opts.Path) {
		open = openPostgres
	}
	b, err := open(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", redacted(opts.Path), err)
	}
	return newStore(b), nil
}

// Version returns a number that changes with every write, by this process or another. It costs little, so that a page
// need not read the state again to learn that nothing changed. Numbers of two Stores cannot be compared.
func (s *Store) Version(ctx context.Context) (int64, error) {
	version, err := s.version(ctx)
	if err != nil {
		return 0, fmt.Errorf("read version: %w", err)
	}
	return version, nil
}

// EphemeralReason returns why the state's file is likely to be lost soon, in words that follow "the state is": it is in
// memory or in a container's own layer. The text is empty for any other place, for PostgreSQL, and where the system does
// not report it.
func (s *Store) EphemeralReason() string { return s.ephemeralReason() }

// A Lock is a held lock of a sync. In a file the kernel releases it when its process ends, however it ends. In PostgreSQL it
// ends with the lease of its process.
type Lock struct{ release func() error }

// Unlock releases the lock. Further calls do nothing, and return what the first one returned.
func (l *Lock) Unlock() error { return l.release() }

// Lock takes the lock of a sync, and waits up to wait for it. In a file the holder owns every claim of that sync, and calls
// Recover first. In PostgreSQL the holder is the process that scans the root, and other processes may upload.
// Errors: ErrLocked.
func (s *Store) Lock(ctx context.Context, name string, wait time.Duration) (*Lock, error) {
	release, err := s.lock(ctx, name, wait)
	if err != nil {
		return nil, err
	}
	return &Lock{sync.OnceValue(release)}, nil
}

// Shared reports whether several processes may work on one sync at the same time.
func (s *Store) Shared() bool { return s.shared() }

// LeaseLost returns a channel that is closed when this process loses its present lease in a shared state: it was paused, or cut off
// from the database. What it claimed belongs to others then, so it must end its unsealed requests. The channel is nil if the
// state is not shared. A process that goes on gets another lease, and asks for the channel again.
func (s *Store) LeaseLost(ctx context.Context) (<-chan struct{}, error) {
	lost, err := s.lost(ctx)
	if err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	return lost, nil
}

// Close ends the store. Every other call must have returned.
func (s *Store) Close() error { return s.close() }
