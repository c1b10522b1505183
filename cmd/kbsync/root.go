package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/watcher"
)

// A place is a root of either kind.
type place interface {
	watcher.Root
	ingest.Root
	Explain(ctx context.Context, key string) (watcher.Explanation, error)
}

var (
	_ place = (*watcher.Directory)(nil)
	_ place = (*watcher.Bucket)(nil)
)

// A watched is the root of a sync, whose listings are counted.
type watched struct {
	place
	listed func()
}

// List is that of watcher.Root.
func (w *watched) List(ctx context.Context, prefix string) iter.Seq2[watcher.Entry, error] {
	if w.listed == nil {
		return w.place.List(ctx, prefix)
	}
	return func(yield func(watcher.Entry, error) bool) {
		for e, err := range w.place.List(ctx, prefix) {
			w.listed()
			if !yield(e, err) {
				return
			}
		}
	}
}

// Close gives up what a bucket keeps open.
func (w *watched) Close() error {
	if c, ok := w.place.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// openRoot makes the root of a sync with its filter. It touches no document.
func (a *app) openRoot(cfg *config.Config, s config.Sync) (*watched, error) {
	options := watcher.FilterOptions{
		Exclude: s.Exclude,
		Include: s.Include,
		MaxSize: int64(s.MaxSize),
	}
	if s.Root.Dir != "" {
		options.Own = watcher.OwnKeys(s.Root.Dir, append(cfg.Private(), emulatorFile(cfg.State))...)
	}
	for _, path := range s.FilterFrom {
		rules, err := readRules(path)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		options.Rules = append(options.Rules, rules...)
	}
	filter, err := watcher.NewFilter(options)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if s.Root.URL == "" {
		return &watched{place: watcher.NewDirectory(s.Root.Dir, watcher.DirectoryOptions{Filter: filter, CopyLinks: s.CopyLinks})}, nil
	}
	bucket, err := watcher.OpenBucket(a.signals.soft, s.Root.URL, watcher.BucketOptions{Filter: filter})
	if is[*watcher.UnavailableError](err) {
		return nil, err
	}
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return &watched{place: bucket}, nil
}

func readRules(path string) ([]watcher.Rule, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read --filter-from: %w", err)
	}
	defer func() { _ = f.Close() }()
	return watcher.ParseRules(f, path)
}
