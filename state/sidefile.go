package state

import (
	"encoding/hex"
	"strings"
	"time"
)

// TokenSuffix is what the name of the file with the token of the status page adds to the name of a SQLite state. It is in lower case.
const TokenSuffix = ".listen-token"

// IsSideFile reports whether a suffix of the path of a SQLite state names a file that belongs to the state: the logs and the journal
// of SQLite, the lock files of syncs, backups, and the token of the status page. The suffix may be in lower case.
func IsSideFile(suffix string) bool {
	switch suffix {
	case "-wal", "-shm", "-journal", TokenSuffix:
		return true
	}
	if at, ok := strings.CutPrefix(suffix, backupMark); ok {
		_, err := time.Parse(backupTime, strings.ToUpper(at))
		return err == nil
	}
	name, ok := strings.CutSuffix(suffix, lockSuffix)
	if !ok || !strings.HasPrefix(name, ".") {
		return false
	}
	sum, err := hex.DecodeString(name[1:])
	return err == nil && len(sum) == lockNameSize
}
