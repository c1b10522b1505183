package state

import (
	"encoding/hex"
	"strings"
)

// IsSideFile reports whether a suffix of the path of a SQLite state names a file that belongs to the state: the logs and the journal
// of SQLite, and the lock files of syncs.
func IsSideFile(suffix string) bool {
	switch suffix {
	case "-wal", "-shm", "-journal":
		return true
	}
	name, ok := strings.CutSuffix(suffix, lockSuffix)
	if !ok || !strings.HasPrefix(name, ".") {
		return false
	}
	sum, err := hex.DecodeString(name[1:])
	return err == nil && len(sum) == lockNameSize
}
