package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A folderBucket is a bucket in memory that lists levels. Its tokens are indices.
type folderBucket struct {
	keys []string // in the order of the listing
	disordered bool
	size int      // of a page; 1,000 if zero
	took time.Duration
	// pageOf and levelOf change answers; nil for none. They may be called at the same time.
	pageOf  func(prefix, token string) error
	levelOf func(objects []object, folders []string, next string) ([]object, []string, string, error)

	mu       gosync.Mutex
	pages    int
	levels   int
	now, top int // requests at a time
	objects  int // in all pages
}

func (s *folderBucket) ask(ctx context.Context, count *int) error {
	s.mu.Lock()
	*count++
	s.now++
	s.top = max(s.top, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	if s.took > 0 {
		return retry.Sleep(ctx, s.took)
	}
	return ctx.Err()
}

// objectAt returns the object of a key.
func objectAt(key string) object {
	return object{key: key, fingerprint: state.Fingerprint{Size: int64(len(key)), MTime: 1, ETag: key}}
}

func (s *folderBucket) page(ctx context.Context, prefix, token string) (page []object, next string, err error) {
	if strings.HasSuffix(prefix, ignoreName) {
		return nil, "", nil
	}
	if err := s.ask(ctx, &s.pages); err != nil {
		return nil, "", err
	}
	if s.pageOf != nil {
		if err := s.pageOf(prefix, token); err != nil {
			return nil, "", err
		}
	}
	for i := s.begin(prefix, token); i < len(s.keys); i++ {
		if !strings.HasPrefix(s.keys[i], prefix) {
			if s.keys[i] > prefix && !s.disordered {
				break
			}
			continue
		}
		if len(page) == cmp.Or(s.size, 1000) {
			return page, fmt.Sprint(i), nil
		}
		page = append(page, objectAt(s.keys[i]))
	}
	return page, "", nil
}

// begin returns the index at which an answer begins.
func (s *folderBucket) begin(prefix, token string) int {
	if token == "" && !s.disordered {
		return sort.SearchStrings(s.keys, prefix)
	}
	at, _ := strconv.Atoi(token)
	return at
}

func (s *folderBucket) level(ctx context.Context, prefix, token string) (objects []object, folders []string, next string, err error) {
	if err := s.ask(ctx, &s.levels); err != nil {
		return nil, nil, "", err
	}
	last := ""
	for i := s.begin(prefix, token); i < len(s.keys); i++ {
		name, ok := strings.CutPrefix(s.keys[i], prefix)
		if !ok {
			if s.keys[i] > prefix && !s.disordered {
				break
			}
			continue
		}
		folder, _, isFolder := strings.Cut(name, "/")
		if isFolder && prefix+folder+"/" == last {
			continue
		}
		if len(objects)+len(folders) == cmp.Or(s.size, 1000) {
			next = fmt.Sprint(i)
			break
		}
		if isFolder {
			last = prefix + folder + "/"
			folders = append(folders, last)
			if !s.disordered {
				i = sort.SearchStrings(s.keys, prefix+folder+"0") - 1 // 0 comes after the slash
			}
		} else {
			objects = append(objects, objectAt(s.keys[i]))
		}
	}
	if s.levelOf != nil {
		return s.levelOf(objects, folders, next)
	}
	return objects, folders, next, nil
}

func (s *folderBucket) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, errors.New("the test reads no object")
}

func (*folderBucket) close() error { return nil }

func (s *folderBucket) bucket(prefix string) *Bucket {
	filter, err := NewFilter(FilterOptions{Include: []string{"**"}})
	if err != nil {
		panic(err)
	}
	b := newBucket("s3://docs", prefix, service{objects: s, identity: "folderBucket"}, BucketOptions{Filter: filter})
	b.limits.backoff = retry.EqualJitter(1, 1)
	return b
}

// foldersOf returns the keys of folders with documents each.
func foldersOf(folders, each int) []string {
	keys := make([]string, 0, folders*each)
	for i := range folders {
		for j := range each {
			keys = append(keys, fmt.Sprintf("docs/folder-%04d/document-%06d.md", i, j))
		}
	}
	return keys
}

// plainly lists as a store without levels is listed.
func plainly(t *testing.T, b *Bucket) (entries []Entry) {
	t.Helper()
	flat := newBucket(b.url, b.prefix, b.service, BucketOptions{Filter: b.filter})
	flat.flat.Store(true)
	flat.misordered.Store(b.misordered.Load())
	for e, err := range flat.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// One listing of each shape: the requests and the time, before and after.
func TestPartsCostFewRequestsAndLittleTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		keys []string
		size int
	}{
		{"100,000 in 1", foldersOf(1, 100_000), 0},
		{"100,000 in 10", foldersOf(10, 10_000), 0},
		{"100,000 in 1,000", foldersOf(1000, 100), 0},
		{"100,000 in 5,000", foldersOf(5000, 20), 0},
		{"1,000,000 in 10,000", foldersOf(10_000, 100), 0},
		{"100,000 in 40 of 2,500", foldersOf(40, 2_500), 0},
		{"4,000", foldersOf(40, 100), 0},
		{"10,000", foldersOf(100, 100), 0},
		{"skewed", append(append(foldersOf(1, 500), nested("docs/g/", 60, 1000)...), nested("docs/h/", 5, 6000)...), 0},
		{"10 of 10,000 nested", slices.Concat(nested("a/", 20, 500), nested("b/", 20, 500), nested("c/", 20, 500), nested("d/", 20, 500), nested("e/", 20, 500), nested("f/", 20, 500), nested("g/", 20, 500), nested("h/", 20, 500), nested("i/", 20, 500), nested("j/", 20, 500)), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &folderBucket{keys: tt.keys, took: 80 * time.Millisecond, size: tt.size}
			b := s.bucket("")
			start := time.Now()
			want := plainly(t, b)
			before, beforePages := time.Since(start), s.pages
			s.pages = 0
			start = time.Now()
			var got []Entry
			for e, err := range b.List(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			t.Logf("%s: %d pages %v -> %d pages, %d levels, %v; %d at a time", tt.name, beforePages, before, s.pages, s.levels, time.Since(start), s.top)
			if !slices.Equal(got, want) || len(want) != len(tt.keys) {
				t.Errorf("%d entries, want %d", len(got), len(want))
			}
		})
	}
}

func nested(prefix string, folders, each int) []string {
	keys := foldersOf(folders, each)
	for i := range keys {
		keys[i] = prefix + strings.TrimPrefix(keys[i], "docs/")
	}
	return keys
}

var _ = goleak.VerifyNone
