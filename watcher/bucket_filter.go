package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ignoresFor returns the ignore file for a listing below prefix; nil if there is none.
func (b *Bucket) ignoresFor(ctx context.Context, prefix string) (*ignoreFile, error) {
	select {
	case b.ignoresLock <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-b.ignoresLock }()
	if single := prefix != "" && !strings.HasSuffix(prefix, "/"); single && !b.ignoresReadAt.IsZero() && time.Since(b.ignoresReadAt) < ignoresAge {
		return b.cachedIgnores, nil
	}
	at := time.Now()
	ignores, err := b.ignores(ctx)
	if err != nil {
		return nil, err
	}
	b.cachedIgnores, b.ignoresReadAt = ignores, at
	return ignores, nil
}

// ignores reads the bucket's ignore file; nil if there is none. An error must end the listing, which could otherwise upload
// ignored documents.
func (b *Bucket) ignores(ctx context.Context) (*ignoreFile, error) {
	key := b.prefix + ignoreName
	token := ""
	for {
		page, next, err := b.fetch(ctx, key, token)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			if o.key == key {
				return b.readIgnores(ctx, &o)
			}
		}
		if next == "" || len(page) > 0 {
			return nil, nil
		}
		token = next
	}
}

func (b *Bucket) readIgnores(ctx context.Context, o *object) (*ignoreFile, error) {
	fail := func(err error) (*ignoreFile, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &UnavailableError{Root: b.url, Err: fmt.Errorf("read %s: %w", ignoreName, err)}
	}
	const limit = 1 << 20
	if o.unreadable != "" {
		return fail(errors.New(o.unreadable))
	}
	if o.fingerprint.Size > limit {
		return nil, fmt.Errorf("%s in %s is larger than 1 MiB", ignoreName, b.url)
	}
	if o.fingerprint.Size == 0 {
		return nil, nil
	}
	r, err := b.Open(ctx, ignoreName, o.fingerprint)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return fail(err)
	}
	return parseIgnore(data, "", nil)
}

// A keyFilter applies a Filter to keys that come in order, or nearly so. It caches the verdict on the last key's directory.
type keyFilter struct {
	filter  *Filter
	ignores *ignoreFile
	dir     string // with a slash at its end
	verdict verdict
}

func (s *keyFilter) document(key string) verdict {
	dir := key[:strings.LastIndexByte(key, '/')+1]
	if dir != s.dir {
		s.dir, s.verdict = dir, verdict{}
		for i := range len(dir) {
			// No rule matches a directory with an empty name.
			if dir[i] != '/' || i == 0 || dir[i-1] == '/' {
				continue
			}
			if s.verdict = s.filter.directory(dir[:i], s.ignores); s.verdict.out {
				break
			}
		}
	}
	if s.verdict.out {
		return s.verdict
	}
	return s.filter.document(key, s.ignores)
}

// Explain reports how a scan treats the document at key, and the rule that decides. An error means that a scan would fail
// to decide as well.
func (b *Bucket) Explain(ctx context.Context, key string) (Explanation, error) {
	x := Explanation{Key: key}
	ignores, err := b.ignores(ctx)
	if err != nil {
		return x, err
	}
	filter := keyFilter{filter: b.filter, ignores: ignores}
	v := filter.document(key)
	x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
	if v.out {
		return x, nil
	}
	token := ""
	for {
		page, next, err := b.fetch(ctx, b.prefix+key, token)
		if err != nil {
			return x, err
		}
		for _, o := range page {
			if o.key != b.prefix+key {
				continue
			}
			if isMarker(key, o.fingerprint.Size) {
				x.Reason, x.Rule, x.Place = "it stands for a folder", "", ""
				return x, nil
			}
			x.Listed = true
			if e := b.entry(key, &o); e.Skip != "" {
				x.Reason, x.Rule, x.Place = e.Skip, "", ""
				return x, nil
			}
			x.Taken = true
			return x, nil
		}
		if next == "" || len(page) > 0 && !b.service.unordered {
			x.Reason, x.Rule, x.Place = "there is no such object", "", ""
			return x, nil
		}
		token = next
	}
}
