package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The lock of migrations has a name that no sync can have.
const (
	migrationLock     = ""
	migrationPatience = 2 * time.Minute
)

// prepare brings the schema up to date and returns the connection for all writes.
func (s *db) prepare(ctx context.Context, readOnly, absent bool) (*sql.Conn, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files,
		goose.WithTableName("schema_version"), goose.WithDisableGlobalRegistry(true))
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
		return nil, fmt.Errorf("%w: its schema is %d, this kbsync knows %d; upgrade kbsync", ErrNewerSchema, version, newest)
	case version < newest && readOnly && !absent:
		return nil, fmt.Errorf("its schema %d is older than this kbsync's %d; run a command that writes to it first, such as kbsync sync",
			version, newest)
	case version < newest && readOnly: // in memory
		if err := migrate(ctx, provider); err != nil {
			return nil, err
		}
	case version < newest:
		// Of several processes that open a new state together, one migrates and the others wait for it.
		lock, err := s.lock(ctx, migrationLock, migrationPatience)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(migrate(ctx, provider), lock.Unlock()); err != nil {
			return nil, err
		}
	}
	return s.write.Conn(ctx)
}

// migrate applies the missing migrations. goose reads each one into 4 MiB of a sync.Pool, and the heap would grow to
// twice that before the next collection. Two collections empty the pool.
func migrate(ctx context.Context, provider *goose.Provider) error {
	_, err := provider.Up(ctx)
	runtime.GC()
	runtime.GC()
	return err
}

// schemaVersion returns 0 for an empty database.
func schemaVersion(ctx context.Context, db *sql.DB) (int64, error) {
	var tables, version int64
	err := db.QueryRowContext(ctx, `
		SELECT count(*), coalesce(sum(name = 'schema_version'), 0)
		FROM sqlite_master
		WHERE type = 'table'`).Scan(&tables, &version)
	if err != nil {
		return 0, err
	}
	if tables > 0 && version == 0 {
		return 0, errors.New("the file is a database of another program; name another file")
	}
	if tables == 0 {
		return 0, nil
	}
	err = db.QueryRowContext(ctx, `
		SELECT coalesce(max(version_id), 0)
		FROM schema_version
		WHERE is_applied`).Scan(&version)
	return version, err
}
