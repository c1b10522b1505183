package state

import "time"

// checkpointDelay is the time from a write to the next checkpoint. SQLite moves its log into the main file only when the log has
// grown to logPages. A person who copies or restores the main file alone must not lose hours.
const checkpointDelay = 5 * time.Second

// checkpoint moves the log into the main file without waiting for a reader or another writer. It reports whether nothing is left
// to move. A checkpoint that fails loses nothing: the log keeps everything.
func (s *sqliteDB) checkpoint(t *sqliteTx) bool {
	if s.filesInPlace() != nil {
		// Another process may use the main file by another name, and so with another log.
		return false
	}
	var busy, logged, moved int
	err := (&tx{t}).one(`PRAGMA wal_checkpoint(PASSIVE)`, nil, &busy, &logged, &moved)
	return err == nil && busy == 0 && moved == logged
}

// checkpointAtEnd moves the log into the main file and empties it, as far as other processes allow that at once.
func (s *sqliteDB) checkpointAtEnd(t *sqliteTx) {
	if s.files == nil || s.filesInPlace() != nil {
		return // opened for reading, or see checkpoint
	}
	_ = t.command(`PRAGMA busy_timeout = 0`)
	// Pages of documents that are not pending or in training any more.
	_ = (&tx{t}).each(`PRAGMA incremental_vacuum`, nil, func(func(...any) error) error { return nil })
	_ = t.command(`PRAGMA wal_checkpoint(TRUNCATE)`) // the log keeps everything if this fails
}
