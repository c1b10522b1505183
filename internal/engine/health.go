package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/kbsync/kbsync/state"
)

// allScanned reports whether the first scan of each sync has ended, well or not.
func (d *daemon) allScanned() bool {
	return !slices.ContainsFunc(d.all(), func(l *loops) bool { return !l.firstScanEnded.Load() })
}

// healthy reports whether all loops give signs of life.
func (d *daemon) healthy() bool {
	return !slices.ContainsFunc(d.all(), func(l *loops) bool { return !l.healthy() })
}

// summary returns a line about all syncs.
func (d *daemon) summary(ctx context.Context) string {
	all := d.all()
	waiting, training, failing := 0, 0, 0
	for _, l := range all {
		if id := l.syncID.Load(); id != 0 {
			if n, err := d.opts.Store.Documents.Outstanding(ctx, id); err == nil {
				waiting += n[state.Pending] + n[state.Uploading]
				training += n[state.Training]
			}
		}
		if l.lastErrors() != nil {
			failing++
		}
	}
	text := fmt.Sprintf("%s, %d documents waiting, %d in training", count(len(all), "sync"), waiting, training)
	if failing > 0 {
		text += fmt.Sprintf("; %s with trouble", count(failing, "sync"))
	}
	return text
}

// dump writes the status of each sync to the log.
func (d *daemon) dump(ctx context.Context) {
	for _, l := range d.all() {
		args := []any{"sync", l.config.Name, "root", l.config.Root.String(), "scanned", l.firstScanEnded.Load(), "healthy", l.healthy()}
		if id := l.syncID.Load(); id != 0 {
			counts, err := d.opts.Store.Documents.Outstanding(ctx, id)
			if err != nil {
				d.opts.Logger.Error("cannot read the state", "error", err)
			}
			for _, s := range []state.DocumentState{state.Pending, state.Uploading, state.Training, state.Failed, state.Stuck, state.Uncertain} {
				args = append(args, string(s), counts[s])
			}
		}
		args = append(args, "scanning", l.scanning.Load(), "uploading", l.uploading.Load())
		if err := l.lastErrors(); err != nil {
			args = append(args, "trouble", err)
		}
		d.opts.Logger.Info("status", args...)
	}
}
