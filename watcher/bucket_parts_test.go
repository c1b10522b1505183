package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A folderBucket is a bucket in memory that lists levels. Its tokens are indices.
type folderBucket struct {
	keys       []string // in the order of the listing
	disordered bool
	size       int // of a page; 1,000 if zero
	took       time.Duration
	// pageOf and levelOf change answers; nil for none. They may be called at the same time.
	pageOf  func(prefix, token string) error
	levelOf func(objects []object, folders []string, next string) ([]object, []string, string, error)

	mu       gosync.Mutex
	pages    int
	levels   int
	now, top int // requests at a time
	parts    int // listings
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
	if token == "" {
		s.mu.Lock()
		s.parts++
		s.mu.Unlock()
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
func foldersOf(prefix string, folders, each int) []string {
	keys := make([]string, 0, folders*each)
	for i := range folders {
		for j := range each {
			keys = append(keys, fmt.Sprintf("%sfolder-%04d/%06d.md", prefix, i, j))
		}
	}
	return keys
}

// listAll lists a bucket.
func listAll(ctx context.Context, b *Bucket) (entries []Entry, errs []error) {
	for e, err := range b.List(ctx, "") {
		if err != nil {
			errs = append(errs, err)
		} else {
			entries = append(entries, e)
		}
	}
	return entries, errs
}

// plainly lists a bucket page by page.
func plainly(t *testing.T, b *Bucket) []Entry {
	t.Helper()
	flat := newBucket(b.url, b.prefix, b.service, BucketOptions{Filter: b.filter})
	flat.flat.Store(true)
	flat.misordered.Store(b.misordered.Load())
	entries, errs := listAll(t.Context(), flat)
	if errs != nil {
		t.Fatal(errs)
	}
	return entries
}

// The requests of a listing and its time, if each request takes 80 ms. A page has 100 objects, so that the test is cheap.
func TestPartsTakeFewRequestsAndLittleTime(t *testing.T) {
	t.Parallel()
	var skewed, nested []string
	skewed = append(append(foldersOf("a/", 1, 50), foldersOf("b/", 60, 100)...), foldersOf("c/", 5, 600)...)
	for _, r := range "abcdefghij" {
		nested = append(nested, foldersOf(string(r)+"/", 20, 50)...)
	}
	for _, tt := range []struct {
		name          string
		keys          []string
		pages, levels int // the requests
		rounds        int // of 80 ms
	}{
		{"four pages", foldersOf("", 40, 10), 4, 0, 4},
		{"six pages", foldersOf("docs/", 60, 10), 6, 2, 8},
		{"ten pages", foldersOf("docs/", 100, 10), 14, 2, 8},
		{"one folder", foldersOf("docs/", 1, 10_000), 100, 3, 103},
		{"10 folders", foldersOf("docs/", 10, 1000), 104, 12, 30},
		{"10 folders with folders in them", nested, 104, 11, 27},
		{"40 folders", foldersOf("docs/", 40, 250), 124, 2, 23},
		{"1,000 folders", foldersOf("docs/", 1000, 10), 104, 11, 30},
		{"folders of different sizes", skewed, 103, 4, 24},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &folderBucket{keys: tt.keys, took: 80 * time.Millisecond, size: 100}
			start := time.Now()
			entries, errs := listAll(t.Context(), s.bucket(""))
			rounds := int(time.Since(start) / s.took)
			if len(entries) != len(tt.keys) || errs != nil {
				t.Errorf("%s: %d entries, %v", tt.name, len(entries), errs)
			}
			if s.pages > tt.pages || s.levels > tt.levels || rounds > tt.rounds || s.top > listedAtOnce {
				t.Errorf("%s: %d pages and %d levels in %d rounds, %d at a time", tt.name, s.pages, s.levels, rounds, s.top)
			}
		})
	}
}

// A listing in parts yields what a plain listing yields, whatever the keys are.
func TestPartsListWhatPagesList(t *testing.T) {
	t.Parallel()
	split := 0
	rapid.Check(t, func(r *rapid.T) {
		names := []string{"a", "b", "ab", "a-", "a.md", "é", "\u00e8", "0", "~", " "}
		if odd := rapid.IntRange(0, 4).Draw(r, "odd"); odd == 0 {
			names = append(names, "", ".", "\x01", "\xc3")
		}
		prefix := rapid.SampledFrom([]string{"", "r/", "é/a/"}).Draw(r, "prefix")
		keys := make([]string, rapid.IntRange(0, 400).Draw(r, "keys"))
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		for i := range keys {
			path := make([]string, 1+random.IntN(5))
			for j := range path {
				path[j] = names[random.IntN(len(names))]
			}
			keys[i] = cmp.Or(strings.Join(path, "/"), "a") // no store has an empty key
		}
		for i := range keys {
			keys[i] = prefix + keys[i]
		}
		keys = append(keys, "q", "z/1")
		slices.Sort(keys)
		s := &folderBucket{keys: slices.Compact(keys), size: rapid.IntRange(1, 7).Draw(r, "size")}
		b := s.bucket(prefix)
		b.service.unordered = rapid.Bool().Draw(r, "unordered")
		want := plainly(t, b)
		if got, errs := listAll(t.Context(), b); !slices.Equal(got, want) || errs != nil {
			r.Fatalf("%d entries, want %d, errors %v", len(got), len(want), errs)
		}
		if s.parts > 2 {
			split++ // one listing is plain
		}
	})
	if split < 10 {
		t.Errorf("only %d listings were split", split)
	}
}

// Keys at the borders of folders.
func TestPartsAreInByteOrder(t *testing.T) {
	t.Parallel()
	keys := []string{"a", "a-b", "a-b/1", "a-c", "a.txt", "a/", "a/-", "a/0", "a0", "a0/0", "aé/1", "b/", "b//x", "b/x/", "b/x/y", "c", "è/1", "é/1", "é.md"}
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("a/b/%02d", i), fmt.Sprintf("c/d/%02d", i), fmt.Sprintf("c-/%02d", i), fmt.Sprintf("é/%02d", i))
	}
	odd := append([]string{"/1", "//2", "/a/3", "../4", "./5", "a/../6", "x\\y/7", "x\x7f/8"}, keys...)
	for name, keys := range map[string][]string{"plain": keys, "odd": odd} {
		slices.Sort(keys)
		for size := 3; size < 8; size++ {
			s := &folderBucket{keys: keys, size: size}
			b := s.bucket("")
			want := plainly(t, b)
			if got, errs := listAll(t.Context(), b); !slices.Equal(got, want) || errs != nil {
				t.Errorf("%s, pages of %d: %d entries, want %d, errors %v", name, size, len(got), len(want), errs)
			}
			if split := s.parts > 2; split != (name == "plain") {
				t.Errorf("%s, pages of %d: split %v", name, size, split)
			}
		}
	}
}

// A reader that rests holds a bounded number of objects.
func TestPartsReadAheadABoundedNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &folderBucket{keys: foldersOf("docs/", 20, 5000), took: time.Millisecond}
		yielded := 0
		for _, err := range s.bucket("").pagesInParts(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if yielded++; yielded < 5 {
				continue
			}
			synctest.Wait()
			time.Sleep(time.Minute)
			if read := (s.pages - yielded) * 1000; read < objectsAhead/2 || read > objectsAhead+(partPages+1)*1000 {
				t.Errorf("%d objects were read ahead", read)
			}
			break
		}
	})
}

// BenchmarkParts lists 100,000 objects, of which each page takes 80 ms.
func BenchmarkParts(b *testing.B) {
	for _, folders := range []int{1, 10, 1000} {
		b.Run(strconv.Itoa(folders), func(b *testing.B) {
			s := &folderBucket{keys: foldersOf("docs/", folders, 100_000/folders), took: 80 * time.Millisecond}
			for b.Loop() {
				drain(b, s.bucket("").List(b.Context(), ""))
			}
			b.ReportMetric(float64(s.pages)/float64(b.N), "pages/op")
			b.ReportMetric(float64(s.levels)/float64(b.N), "levels/op")
		})
	}
}
