package state

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

// versionReader keeps the one connection on which Version asks: SQLite counts foreign writes for each connection.
type versionReader struct {
	mu    sync.Mutex
	conn  *sql.Conn // nil until the first call, and after an error
	conns int64     // number of connections so far
}

// Version returns a number that changes with every write, by this process or another. It costs little, so that a page
// need not read the state again to learn that nothing changed. Numbers of two Stores cannot be compared.
func (s *Store) Version(ctx context.Context) (int64, error) {
	r := &s.versions
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		conn, err := s.read.Conn(ctx)
		if err != nil {
			return 0, fmt.Errorf("read version: %w", err)
		}
		r.conn = conn
		r.conns++
	}
	var version int64
	if err := r.conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		_ = r.conn.Close() // the next call opens another one
		r.conn = nil
		return 0, fmt.Errorf("read version: %w", remedy(err))
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
