package state

import (
	"context"
	"database/sql"
	"sync"
)

// versionReader keeps the one connection on which Version asks: SQLite counts foreign writes for each connection.
type versionReader struct {
	mu    sync.Mutex
	conn  *sql.Conn // nil until the first call, and after an error
	conns int64     // number of connections so far
}

func (s *sqliteDB) version(ctx context.Context) (int64, error) {
	r := &s.versions
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		conn, err := s.read.Conn(ctx)
		if err != nil {
			return 0, err
		}
		r.conn = conn
		r.conns++
	}
	var version int64
	if err := r.conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		_ = r.conn.Close() // the next call opens another one
		r.conn = nil
		return 0, remedy(err)
	}
	return r.conns<<32 + version, nil
}

func (r *versionReader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.Close() // it only read
		r.conn = nil
	}
}
