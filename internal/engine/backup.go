package engine

import (
	"context"
	"time"
)

const (
	// backupAge is the age of the last copy of the state at which a daemon makes another one.
	backupAge = 24 * time.Hour
	// firstBackup is how long after its start a daemon looks at that age, and backupEvery how often. A daemon that is often
	// restarted makes its copies, too.
	firstBackup = time.Minute
	backupEvery = time.Hour
)

// backUpDaily copies the state beside itself once a day, until ctx ends. It does nothing for a database.
func backUpDaily(ctx context.Context, opts Options) {
	for wait := firstBackup; sleep(ctx, wait) == nil; wait = backupEvery {
		path, err := opts.Store.BackupBeside(ctx, backupAge)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			opts.Logger.Warn("cannot copy the state; it is the only inventory of the uploads", "error", err)
		case path != "":
			opts.Logger.Info("copied the state", "file", path)
		}
	}
}
