package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/snapshot"
	"github.com/kbsync/kbsync/state"
)

// defaultSnapshotName is the name of the snapshots of a state.
const defaultSnapshotName = "kbsync"

func (a *app) snapshotCommand() *cobra.Command {
	var keep int
	var name string
	cmd := &cobra.Command{
		Use:   "snapshot URL",
		Short: "Write an export of the state to a bucket, and keep the last generations",
		Long: `snapshot writes a compressed export of the state to a bucket, and removes all generations but the newest. Use another bucket
than the ones of documents, and credentials that no other program needs. kbsync state import URL reads the newest generation.`,
		Example: `  kbsync state snapshot 's3://backups?prefix=kbsync/&region=eu-west-1'
  kbsync state snapshot file:///mnt/backups --keep 30`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep < 1 {
				return usageError("--keep must be at least 1")
			}
			return a.withStore(cmd, true, func(ctx context.Context, store *state.Store) error {
				return a.snapshot(ctx, store, args[0], name, keep)
			})
		},
	}
	cmd.Flags().IntVar(&keep, "keep", 14, "The number of generations to keep.")
	cmd.Flags().StringVar(&name, "name", defaultSnapshotName, "Name of the snapshots, if several states share a folder of the bucket.")
	return cmd
}

func (a *app) snapshot(ctx context.Context, store *state.Store, address, name string, keep int) (err error) {
	bucket, err := snapshot.Open(ctx, address, name)
	if err != nil {
		return engine.WithClass(engine.ClassUsage, err)
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	key, err := bucket.Write(ctx, a.now(), func(w io.Writer) error { return store.Export(ctx, w) })
	if err != nil {
		return engine.WithClass(engine.ClassTemporary, err)
	}
	removed, err := bucket.Prune(ctx, keep)
	if err != nil {
		return engine.WithClass(engine.ClassTemporary, err)
	}
	result := struct {
		Key     string `json:"key"`
		Removed int    `json:"removed"`
	}{key, removed}
	return a.out.Result(result, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s; removed %s\n", console.Printable(key), console.Count(removed, "older snapshot"))
	})
}

// openExport opens an export: a file, stdin, or the newest snapshot in a bucket. It may be compressed.
func (a *app) openExport(ctx context.Context, place, name string) (in io.Reader, done func() error, err error) {
	done = func() error { return nil }
	switch {
	case place == "-":
		in = a.stdin
	case strings.Contains(place, "://"):
		bucket, err := snapshot.Open(ctx, place, name)
		if err != nil {
			return nil, nil, engine.WithClass(engine.ClassUsage, err)
		}
		key, r, err := bucket.Latest(ctx)
		if err != nil {
			class := engine.ClassTemporary
			if errors.Is(err, snapshot.ErrNone) {
				class = engine.ClassUsage
			}
			return nil, nil, errors.Join(engine.WithClass(class, err), bucket.Close())
		}
		a.out.Note("reading %s", console.Printable(key))
		in, done = r, func() error { return errors.Join(r.Close(), bucket.Close()) }
	default:
		f, err := os.Open(place)
		if err != nil {
			return nil, nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("import state: %w", err))
		}
		in, done = f, f.Close
	}
	buffered := bufio.NewReader(in)
	if start, _ := buffered.Peek(2); !bytes.Equal(start, []byte{0x1f, 0x8b}) {
		return buffered, done, nil
	}
	compressed, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, nil, errors.Join(engine.WithClass(engine.ClassUsage, fmt.Errorf("import state: %w", err)), done())
	}
	return compressed, done, nil
}
