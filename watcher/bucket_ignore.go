package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	gosync "sync"
	"time"
)

// ignoresAge is the age up to which listings of single documents use a cached ignore file.
const ignoresAge = 10 * time.Second

// keptIgnores is the number of folders whose ignore files are cached.
const keptIgnores = 1000

// An ignoreCache holds what listings found in folders. The zero value is empty.
type ignoreCache struct {
	mu      gosync.Mutex // never held during a request
	folders map[string]*cachedIgnores
}

// cachedIgnores are the ignore file of a folder.
type cachedIgnores struct {
	lock chan struct{} // of size one; guards the fields below, also during a request
	file *ignoreFile   // without the file above it; nil for none
	at   time.Time     // zero for never
}

func (c *ignoreCache) folder(dir string) *cachedIgnores {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.folders[dir]
	if f == nil {
		if c.folders == nil || len(c.folders) >= keptIgnores {
			c.folders = map[string]*cachedIgnores{}
		}
		f = &cachedIgnores{lock: make(chan struct{}, 1)}
		c.folders[dir] = f
	}
	return f
}

// An ignoreSearch is where a listing stands that looks for an ignore file.
type ignoreSearch struct {
	prefix string      // of the listing
	first  Entry       // the entry that it has just read, the first one of the folder; zero if nothing is listed
	page   *listedPage // nil for none
}

// ignoresAt returns the ignore file of a folder, linked to that of the folders above; parent if there is none. An error must end the
// listing, which could otherwise upload ignored documents. Errors: *RuleFileError, *UnavailableError, ErrRootMissing.
func (b *Bucket) ignoresAt(ctx context.Context, dir string, parent *ignoreFile, s *ignoreSearch) (*ignoreFile, error) {
	key := dir + ignoreName
	var found *ignoreFile
	var err error
	if inListing := strings.HasPrefix(dir, s.prefix); !inListing || s.first.Key == "" {
		found, err = b.cachedIgnores(ctx, dir, s.prefix != "" && !strings.HasSuffix(s.prefix, "/"))
	} else if s.first.Key == key {
		unreadable := ""
		if s.first.Unreadable {
			unreadable = s.first.Skip
		}
		found, err = b.readIgnores(ctx, dir, &object{fingerprint: s.first.Fingerprint, unreadable: unreadable})
	} else if s.first.Key < key {
		if o, known := s.page.find(b.prefix + key); o != nil {
			found, err = b.readIgnores(ctx, dir, o)
		} else if !known {
			found, err = b.findIgnores(ctx, dir)
		}
	}
	if err != nil || found == nil {
		return parent, err
	}
	linked := *found
	linked.parent = parent
	return &linked, nil
}

// cachedIgnores returns the ignore file of a folder; nil if there is none. mayBeOld allows an answer of the last seconds.
func (b *Bucket) cachedIgnores(ctx context.Context, dir string, mayBeOld bool) (*ignoreFile, error) {
	f := b.ignores.folder(dir)
	select {
	case f.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-f.lock }()
	if mayBeOld && !f.at.IsZero() && time.Since(f.at) < ignoresAge {
		return f.file, nil
	}
	at := time.Now()
	file, err := b.findIgnores(ctx, dir)
	if err != nil {
		return nil, err
	}
	f.file, f.at = file, at
	return file, nil
}

// findIgnores asks the bucket for the ignore file of a folder; nil if there is none.
func (b *Bucket) findIgnores(ctx context.Context, dir string) (*ignoreFile, error) {
	key := b.prefix + dir + ignoreName
	for page, err := range b.pages(ctx, key) {
		if err != nil {
			return nil, err
		}
		for _, o := range page.objects {
			if o.key == key {
				return b.readIgnores(ctx, dir, &o)
			}
		}
		if len(page.objects) > 0 && !b.unordered() {
			break
		}
	}
	return nil, nil
}

func (b *Bucket) readIgnores(ctx context.Context, dir string, o *object) (*ignoreFile, error) {
	key := dir + ignoreName
	fail := func(err error) (*ignoreFile, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &UnavailableError{Root: b.url, Err: fmt.Errorf("read %s: %w", key, err)}
	}
	if o.unreadable != "" {
		return fail(errors.New(o.unreadable))
	}
	if o.fingerprint.Size > maxIgnoreSize {
		return nil, &RuleFileError{Path: key, Err: errNoRuleFile}
	}
	if o.fingerprint.Size == 0 {
		return nil, nil
	}
	r, err := b.Open(ctx, key, o.fingerprint)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return fail(err)
	}
	return parseIgnore(data, dir, nil)
}
