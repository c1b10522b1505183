// Package snapshot keeps generations of a state's export in a bucket. Watcher only reads buckets, and a bucket for backups should be
// another one with other permissions, so the two share no code.
package snapshot

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrNone reports that the bucket has no generation.
var ErrNone = errors.New("the bucket has no snapshot")

// A Bucket holds generations of snapshots under one name. Open opens it.
type Bucket struct {
	objects objects
	prefix  string // of the keys, with the name
	address string
}

// objects is the part of a bucket that snapshots need.
type objects interface {
	// put writes an object as a whole or not at all.
	put(ctx context.Context, key string, write func(io.Writer) error) error
	// keys lists the keys that begin with a prefix.
	keys(ctx context.Context, prefix string) ([]string, error)
	open(ctx context.Context, key string) (io.ReadCloser, error)
	remove(ctx context.Context, key string) error
	close() error
}

// validName matches the names of generations: they are parts of keys in any store.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Open opens the bucket at an s3://, gs://, azblob:// or file:// URL. The parameters are those of gocloud.dev/blob, and prefix, which
// names a folder in it. The cloud's own library finds the credentials, which need the permissions to list, read, write and delete objects.
// name distinguishes the snapshots of several states in one folder.
func Open(ctx context.Context, address, name string) (*Bucket, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address of the bucket is not a URL; write one such as s3://bucket?prefix=backups/")
	}
	shown := u.Scheme + "://" + u.Host
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("%s has credentials in it; put them into the environment or the cloud's own configuration", shown)
	case u.Scheme != "file" && strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("%s has a path; write ?prefix=%s for the folder", shown, url.QueryEscape(strings.Trim(u.Path, "/")+"/"))
	case !validName.MatchString(name):
		return nil, fmt.Errorf("the name %q of the snapshots may have letters, digits, dots, dashes and underscores only", name)
	}
	query := u.Query()
	prefix := query.Get("prefix")
	query.Del("prefix")
	u.RawQuery = query.Encode()
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	open := openObjects
	if u.Scheme == "file" {
		open = func(_ context.Context, u *url.URL) (objects, error) { return openFolder(u) }
	}
	o, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", shown, err)
	}
	return &Bucket{objects: o, prefix: prefix + name + "-", address: shown}, nil
}

const (
	timeFormat = "20060102T150405Z"
	extension  = ".jsonl.gz"
)

// Write adds a generation, compressed, and returns its key. After an error there is no such object.
func (b *Bucket) Write(ctx context.Context, at time.Time, write func(io.Writer) error) (key string, err error) {
	key = b.prefix + at.UTC().Format(timeFormat) + extension
	err = b.objects.put(ctx, key, func(w io.Writer) error {
		compressed := gzip.NewWriter(w)
		return errors.Join(write(compressed), compressed.Close())
	})
	if err != nil {
		return "", fmt.Errorf("write snapshot to %s: %w", b.address, err)
	}
	return key, nil
}

// Prune removes all generations but the newest keep ones, and returns how many. It removes no other object.
func (b *Bucket) Prune(ctx context.Context, keep int) (removed int, err error) {
	keys, err := b.generations(ctx)
	if err != nil {
		return 0, err
	}
	for _, key := range keys[:max(0, len(keys)-keep)] {
		if err := b.objects.remove(ctx, key); err != nil {
			return removed, fmt.Errorf("remove an old snapshot from %s: %w", b.address, err)
		}
		removed++
	}
	return removed, nil
}

// Latest opens the newest generation. Errors: ErrNone.
func (b *Bucket) Latest(ctx context.Context) (key string, r io.ReadCloser, err error) {
	keys, err := b.generations(ctx)
	if err != nil {
		return "", nil, err
	}
	if len(keys) == 0 {
		return "", nil, fmt.Errorf("%s: %w", b.address, ErrNone)
	}
	key = keys[len(keys)-1]
	if r, err = b.objects.open(ctx, key); err != nil {
		return "", nil, fmt.Errorf("read snapshot from %s: %w", b.address, err)
	}
	return key, r, nil
}

// generations returns the keys of the generations, the oldest first.
func (b *Bucket) generations(ctx context.Context) ([]string, error) {
	keys, err := b.objects.keys(ctx, b.prefix)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots in %s: %w", b.address, err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool {
		text, ok := strings.CutSuffix(strings.TrimPrefix(key, b.prefix), extension)
		_, err := time.Parse(timeFormat, text)
		return !ok || err != nil
	})
	slices.Sort(keys)
	return keys, nil
}

// Close closes idle connections.
func (b *Bucket) Close() error { return b.objects.close() }
