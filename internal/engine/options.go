package engine

import (
	"log/slog"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
	"github.com/kbsync/kbsync/watcher"
)

// ScanOptions returns the options of a sync's scans of the root.
func ScanOptions(cfg *config.Config, s config.Sync, store *state.Store, root *CountingRoot, acceptRoot bool) watcher.ScanOptions {
	o := watcher.ScanOptions{
		Settle:        s.Settle,
		MaxDelete:     watcher.Limit(s.MaxDelete),
		MaxChange:     watcher.Limit(s.MaxChange),
		AllowEmpty:    s.AllowEmpty,
		AcceptNewRoot: acceptRoot,
		Edited:        (&contents{store, root, cfg.Checkers, s.Resaved == config.Skip}).edited,
	}
	if s.Resaved == config.Skip {
		o.Resizable = preflight.HasCore
	}
	return o
}

// ingestOptions returns the options of a sync's uploads.
func ingestOptions(cfg *config.Config, s config.Sync) ingest.Options {
	o := ingest.Options{
		Documents:     s.Batch.Documents,
		Bytes:         int64(s.Batch.Bytes),
		Transfers:     cfg.Transfers,
		Checkers:      cfg.Checkers,
		HoldUncertain: s.OnUncertain == config.Hold,
		HoldRefused:   s.OnRefused == config.Hold,
		Sharing: state.Sharing{
			Each: s.Duplicates == config.Each, UploadRenamed: s.OnRename == config.Upload, UploadResaved: s.Resaved == config.Warn,
		},
		Cores:          s.Resaved != config.Upload,
		SendText:       s.SendAs == config.Text,
		Transcode:      s.Transcode == config.On,
		Preflight:      PreflightPolicy(s),
		BytesPerSecond: int64(cfg.BWLimit),
		MaxTransfer:    int64(cfg.MaxTransfer),
		MaxDuration:    cfg.MaxDuration,
		PollAfter:      cfg.Poll.Min,
	}
	switch s.UploadName {
	case config.Key:
		o.Names = ingest.Key
	case config.Base:
		o.Names = ingest.Base
	}
	return o
}

// PreflightPolicy returns what a sync does about the looks of its documents.
func PreflightPolicy(s config.Sync) preflight.Policy {
	modes := map[string]preflight.Mode{config.Warn: preflight.WarnOnly, config.Block: preflight.BlockSure}
	p := preflight.Policy{Documents: modes[s.Preflight]}
	switch s.Secrets {
	case config.Warn:
		p.Secrets = preflight.BlockSure
	case config.Block:
		p.Secrets = preflight.BlockAll
	}
	return p
}

// trackerOptions returns the options of the trackers.
func trackerOptions(cfg *config.Config, logger *slog.Logger) tracker.Options {
	o := tracker.Options{
		Logger:       logger,
		Min:          cfg.Poll.Min,
		Max:          cfg.Poll.Max,
		TrainTimeout: cfg.TrainTimeout,
	}
	if cfg.TrainTimeout == 0 {
		o.TrainTimeout = -1 // none
	}
	return o
}
