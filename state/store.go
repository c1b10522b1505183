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

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
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

// db is the open database that all groups share. All writes go through one connection (see update).
type db struct {
	path  string // absolute, without symbolic links
	files []placedFile
	write *sql.DB
	read  *sql.DB

	jobs    chan *job
	stop    chan struct{}
	stopped sync.WaitGroup

	mu     sync.Mutex
	locks  map[string]*Lock // the held ones, by the name of the sync
	ranges lockRange

	versions versionReader
}

func newStore(d *db) *Store {
	return &Store{
		db: d, Syncs: &Syncs{d}, Scans: &Scans{d}, Queue: &Queue{d}, Journal: &Journal{d},
		Inventory: &Inventory{d}, Documents: &Documents{d}, Outbox: &Outbox{d},
	}
}

// Options of Open.
type Options struct {
	// Path of the SQLite database. Open creates its directory if it does not exist.
	Path string
	// ReadOnly opens an existing state for reading only. A state that does not exist reads as an empty one, and Open
	// creates no file.
	ReadOnly bool
}

// Open opens or creates the state, and brings an older schema up to date. Errors: ErrNewerSchema, ErrCorrupt.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Path == "" {
		return nil, errors.New("open state: no path given")
	}
	s := &db{jobs: make(chan *job), stop: make(chan struct{}), locks: map[string]*Lock{}}
	dsn, absent, err := s.locate(opts)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", opts.Path, err)
	}
	vacuum := "&_pragma=auto_vacuum(2)"
	if opts.ReadOnly {
		vacuum = ""
	}
	if s.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate&_pragma=cache_size(-4096)"+vacuum); err != nil {
		return nil, fmt.Errorf("open state %s: %w", opts.Path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)&_pragma=cache_size(-1024)"); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", opts.Path, err), s.write.Close())
	}
	s.read.SetMaxOpenConns(8)
	conn, err := s.prepare(ctx, opts.ReadOnly, absent)
	if err == nil {
		err = s.placeLogs()
	}
	if err != nil {
		err = fmt.Errorf("open state %s: %w", opts.Path, remedy(err))
		return nil, errors.Join(err, s.read.Close(), s.write.Close(), s.ranges.close())
	}
	s.stopped.Go(func() { s.run(conn) })
	return newStore(s), nil
}

// locate finds the place of the database, whose links it resolves once: the names of the lock files derive from it. It creates
// the database's file, readable by its owner only, and returns its address. The address of a state that is absent and opened
// for reading is in memory.
func (s *db) locate(opts Options) (dsn string, absent bool, err error) {
	pragmas := "&_pragma=busy_timeout(30000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"
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
		return fmt.Sprintf("file:/kbsync-%016x?vfs=memdb", rand.Uint64()) + pragmas, true, nil
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

// EphemeralReason returns why the state's file is likely to be lost soon, in words that follow "the state is": it is in
// memory or in a container's own layer. The text is empty for any other place, and where the system does not report it.
func (s *Store) EphemeralReason() string { return ephemeralReason(filepath.Dir(s.path)) }

// Close ends the store. Every other call must have returned.
func (s *Store) Close() error {
	close(s.stop)
	s.stopped.Wait()
	s.versions.close()
	return errors.Join(s.read.Close(), s.write.Close(), s.ranges.close())
}
