package state

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/sqlite/*.sql migrations/postgres/*.sql
var migrations embed.FS

// The lock of migrations has a name that no sync can have.
const (
	migrationLock     = ""
	migrationPatience = 2 * time.Minute
)

// appliedVersion reads the version of a database's schema.
const appliedVersion = `SELECT coalesce(max(version_id), 0)
	FROM schema_version
	WHERE is_applied`

// A schema is the schema that this kbsync works with.
type schema struct {
	newest   int64
	provider *goose.Provider
}

// newSchema reads the migrations of a dialect from the directory of that name.
func newSchema(dialect goose.Dialect, db *sql.DB, name string) (schema, error) {
	files, err := fs.Sub(migrations, "migrations/"+name)
	if err != nil {
		return schema{}, err
	}
	provider, err := goose.NewProvider(dialect, db, files,
		goose.WithTableName("schema_version"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return schema{}, err
	}
	sources := provider.ListSources()
	return schema{newest: sources[len(sources)-1].Version, provider: provider}, nil
}

// upgrade brings a database of the given version up to date. alone runs a function while no other process migrates.
func (m schema) upgrade(ctx context.Context, version int64, readOnly bool,
	alone func(ctx context.Context, migrate func(context.Context) error) error) error {
	switch {
	case version > m.newest:
		return m.newer(version)
	case version == m.newest:
		return nil
	case readOnly:
		return fmt.Errorf("its schema %d is older than this kbsync's %d; run a command that writes to it first, such as kbsync sync",
			version, m.newest)
	}
	return alone(ctx, m.migrate)
}

// migrate applies the missing migrations. goose reads each one into 4 MiB of a sync.Pool, and the heap would grow to
// twice that before the next collection. Two collections empty the pool.
func (m schema) migrate(ctx context.Context) error {
	_, err := m.provider.Up(ctx)
	runtime.GC()
	runtime.GC()
	return err
}

func (m schema) newer(version int64) error {
	return fmt.Errorf("%w: its schema is %d, this kbsync knows %d; upgrade kbsync", ErrNewerSchema, version, m.newest)
}

// refuseNewer fails if a newer kbsync has migrated the database since it was opened. Every transaction for writing begins
// with it, because the texts of this kbsync may harm the new tables. Errors: ErrNewerSchema.
func (m schema) refuseNewer(t *tx) error {
	var version int64
	if err := t.one(appliedVersion, nil, &version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	return m.check(version)
}

// check fails if a newer kbsync has migrated the database to the version.
func (m schema) check(version int64) error {
	if version > m.newest {
		return m.newer(version)
	}
	return nil
}
