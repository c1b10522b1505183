package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/statuspage"
)

// beacons are the files and the address that tell others how the passes go: what git-sync calls --touch-file and --error-file, a
// file of metrics, and a heartbeat.
type beacons struct {
	app  *app
	page *statuspage.Page

	mu        sync.Mutex
	cfg       *config.Config
	troubles  map[string]beaconTrouble // by sync
	cleared   bool                     // the error file was looked at
	metricsAt time.Time
	stale     bool // something changed since the metrics were written
}

// A beaconTrouble is an entry of the error file.
type beaconTrouble struct {
	Sync     string    `json:"sync"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error"`
	Since    time.Time `json:"since"`
}

// use changes the config.
func (b *beacons) use(cfg *config.Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg, b.cleared = cfg, false
}

// forget drops a sync that is not worked on any more.
func (b *beacons) forget(sync string) { b.trouble(sync, nil) }

// trouble says what is wrong with a sync; nil for nothing.
func (b *beacons) trouble(sync string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale = true
	before, had := b.troubles[sync]
	switch {
	case err == nil && !had && b.cleared:
		return
	case err == nil:
		delete(b.troubles, sync)
	case had && before.Error == err.Error():
		return
	default:
		if b.troubles == nil {
			b.troubles = map[string]beaconTrouble{}
		}
		b.troubles[sync] = beaconTrouble{sync, exitCode(err), err.Error(), b.app.now().UTC()}
	}
	b.cleared = true
	if b.cfg.ErrorFile == "" {
		return
	}
	if err := b.writeErrors(); err != nil {
		b.app.out.log.Warn("the error file cannot be written", "error", err)
	}
}

func (b *beacons) writeErrors() error {
	if len(b.troubles) == 0 {
		err := os.Remove(b.cfg.ErrorFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	all := []beaconTrouble{}
	for _, t := range b.troubles {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b beaconTrouble) int { return strings.Compare(a.Sync, b.Sync) })
	if err := os.MkdirAll(filepath.Dir(b.cfg.ErrorFile), 0o700); err != nil {
		return err
	}
	return replaceFile(b.cfg.ErrorFile, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(map[string]any{"errors": all})
	})
}

// passed says that a pass of a sync has ended well.
func (b *beacons) passed(ctx context.Context, s config.Sync) {
	b.mu.Lock()
	path := b.cfg.TouchFile
	b.stale = true
	b.mu.Unlock()
	log := b.app.out.log
	if path != "" {
		if err := touch(path); err != nil {
			log.Warn("the touch file cannot be touched", "error", err)
		}
	}
	if s.HeartbeatURL == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := get(ctx, s.HeartbeatURL); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		log.Warn("the heartbeat did not go through; the next pass tries again", "sync", s.Name, "error", err)
	}
}

// touch makes a file, or sets its time to now.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	now := time.Now()
	return os.Chtimes(path, now, now)
}

// writeMetrics writes the file of metrics if something has changed since it was written, or it is old.
func (b *beacons) writeMetrics() {
	b.mu.Lock()
	path := b.cfg.MetricsFile
	write := path != "" && (b.stale || time.Since(b.metricsAt) > time.Minute)
	if write {
		b.stale, b.metricsAt = false, time.Now()
	}
	b.mu.Unlock()
	if !write {
		return
	}
	if err := b.page.WriteMetrics(path); err != nil {
		b.app.out.log.Warn("the file of metrics cannot be written", "error", err)
	}
}
