package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A fakeBucket is a bucket in memory that can fail requests.
type fakeBucket struct {
	objects  []object
	pageSize int
	contents map[string]string
	// fail returns the error of a request; nil for none.
	fail     func(request string) error
	cut      int // bytes after which a body breaks; 0 for never
	hang     bool
	requests []string
}

func (s *fakeBucket) ask(ctx context.Context, request string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.requests = append(s.requests, request)
	if s.fail != nil {
		return s.fail(request)
	}
	return nil
}

func (s *fakeBucket) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	if strings.HasSuffix(prefix, ignoreName) && s.contents[prefix] == "" {
		return nil, "", nil
	}
	at, _ := strconv.Atoi(token)
	size := cmp.Or(s.pageSize, 1000)
	if err := s.ask(ctx, fmt.Sprint("page ", at/size+1)); err != nil {
		return nil, "", err
	}
	var below []object
	for _, o := range s.objects {
		if strings.HasPrefix(o.key, prefix) {
			below = append(below, o)
		}
	}
	end := min(at+size, len(below))
	if end == len(below) {
		return below[at:], "", nil
	}
	return below[at:end], strconv.Itoa(end), nil
}

func (s *fakeBucket) level(context.Context, string, string) ([]object, []string, string, error) {
	return nil, nil, "", errNoLevels
}

// errNoLevels is the answer of a store that does not support a delimiter.
var errNoLevels = &cloudFault{faultPermanent, errors.New("a delimiter is not supported")}

func (s *fakeBucket) open(ctx context.Context, key string, _ state.Fingerprint, offset int64) (io.ReadCloser, error) {
	if err := s.ask(ctx, fmt.Sprint("open ", key, " at ", offset)); err != nil {
		return nil, err
	}
	content, ok := s.contents[key]
	if !ok {
		return nil, &cloudFault{faultNoObject, errors.New("no such key")}
	}
	return &brokenBody{ctx: ctx, rest: content[offset:], left: cmp.Or(s.cut, len(content)+1), hang: s.hang}, nil
}

func (s *fakeBucket) close() error { return nil }

// A brokenBody breaks or hangs after some bytes.
type brokenBody struct {
	ctx  context.Context
	rest string
	left int
	hang bool
}

func (r *brokenBody) Read(p []byte) (int, error) {
	if r.rest == "" {
		return 0, io.EOF
	}
	if r.left == 0 {
		if r.hang {
			<-r.ctx.Done()
			return 0, r.ctx.Err()
		}
		return 0, errors.New("connection reset by peer")
	}
	n := copy(p[:min(len(p), r.left)], r.rest)
	r.rest, r.left = r.rest[n:], r.left-n
	return n, nil
}

func (r *brokenBody) Close() error { return nil }

func (s *fakeBucket) bucket() *Bucket {
	filter, err := NewFilter(FilterOptions{Include: []string{"**"}})
	if err != nil {
		panic(err)
	}
	b := newBucket("s3://fakeBucket", "", service{objects: s, identity: "fakeBucket"}, BucketOptions{Filter: filter})
	b.limits = requestLimits{attempts: 3, backoff: retry.EqualJitter(time.Second, time.Minute), pageTimeout: time.Minute, stallTimeout: time.Minute}
	return b
}

// numbered are n objects in order.
func numbered(n int) []object {
	objects := make([]object, n)
	for i := range objects {
		objects[i] = object{key: fmt.Sprintf("%03d/%05d.md", i/100, i), fingerprint: state.Fingerprint{Size: 1, MTime: 1, ETag: fmt.Sprint(i)}}
	}
	return objects
}

func errorsOf(seq iter.Seq2[Entry, error]) (entries int, errs []error) {
	for _, err := range seq {
		if err != nil {
			errs = append(errs, err)
		} else {
			entries++
		}
	}
	return entries, errs
}

// A failed page is requested again, and no other page is.
func TestBucketRetriesFailedPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failures := map[string]int{"page 1": 1, "page 3": 2}
		s := &fakeBucket{objects: numbered(2500), fail: func(request string) error {
			if failures[request]--; failures[request] >= 0 {
				return errors.New("reset")
			}
			return nil
		}}
		entries, errs := errorsOf(s.bucket().List(t.Context(), ""))
		if entries != 2500 || errs != nil {
			t.Error(entries, errs)
		}
		if want := []string{"page 1", "page 1", "page 2", "page 3", "page 3", "page 3"}; !slices.Equal(s.requests, want) {
			t.Error(s.requests)
		}
	})
}

// No error of a cloud removes documents. The listed documents are recorded, and the next scan completes.
func TestFailedBucketListingRemovesNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		page  string
		err   error
		asked int
		check func(Result, error) bool
	}{
		{"at once", "page 1", errors.New("no such host"), 3, func(r Result, err error) bool {
			u, ok := errors.AsType[*UnavailableError](err)
			return ok && u.Root == "s3://fakeBucket" && !errors.Is(err, fs.ErrNotExist)
		}},
		{"denied", "page 1", &cloudFault{faultPermanent, errors.New("denied")}, 1, func(r Result, err error) bool {
			_, ok := errors.AsType[*UnavailableError](err)
			return ok
		}},
		{"no bucket", "page 1", &cloudFault{faultNoBucket, errors.New("no such bucket")}, 1, func(r Result, err error) bool {
			return errors.Is(err, ErrRootMissing)
		}},
		{"in the middle", "page 7", errors.New("reset"), 9, func(r Result, err error) bool {
			return err == nil && r.IncompleteCount == 1 && r.Listed == 600 && r.Removed == 0 && strings.Contains(r.Incomplete[0].Error(), "broke off")
		}},
		{"credentials that expire", "page 3", &cloudFault{faultPermanent, errors.New("expired")}, 3, func(r Result, err error) bool {
			return err == nil && r.IncompleteCount == 1 && r.Listed == 200
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &fakeBucket{objects: numbered(2000), pageSize: 100}
				store := newMemoryStore()
				scan := func() (Result, error) {
					s.requests = nil
					r, err := NewScanner(s.bucket(), ScanOptions{MaxDelete: Limit{Count: 1000}, MaxChange: Limit{Count: 1000}}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
					if store.open {
						t.Error("the scan was left open")
					}
					return r, err
				}
				if r, err := scan(); err != nil || r.New != 2000 {
					t.Fatal(r, err)
				}
				s.objects = s.objects[1:] // must have no effect
				s.fail = func(request string) error {
					if request == tt.page {
						return tt.err
					}
					return nil
				}
				if r, err := scan(); !tt.check(r, err) || len(store.known) != 2000 || len(s.requests) != tt.asked {
					t.Errorf("%+v, %v, %d known, requests %q", r, err, len(store.known), s.requests)
				}
				s.fail = nil
				if r, err := scan(); err != nil || r.Removed != 1 || r.IncompleteCount != 0 {
					t.Errorf("%+v, %v", r, err)
				}
			})
		})
	}
}

// A body that breaks or hangs continues at the same offset of the same version.
func TestBrokenBodyResumesAtItsOffset(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789", 10)
	fp := state.Fingerprint{Size: 100, ETag: "1"}
	for _, tt := range []struct {
		name string
		set  func(*fakeBucket)
		want error
		asks int
	}{
		{"whole", func(*fakeBucket) {}, nil, 1},
		{"reset", func(s *fakeBucket) { s.cut = 30 }, nil, 4},
		{"stalled", func(s *fakeBucket) { s.cut, s.hang = 50, true }, nil, 2},
		{"replaced meanwhile", func(s *fakeBucket) {
			s.cut = 30
			s.fail = func(request string) error {
				if strings.HasSuffix(request, " at 60") {
					return &cloudFault{faultChanged, errors.New("412")}
				}
				return nil
			}
		}, state.ErrChanged, 3},
		{"deleted meanwhile", func(s *fakeBucket) {
			s.cut = 30
			s.fail = func(request string) error {
				if strings.HasSuffix(request, " at 30") {
					return &cloudFault{faultNoObject, errors.New("404")}
				}
				return nil
			}
		}, fs.ErrNotExist, 2},
		{"shorter than listed", func(s *fakeBucket) { s.contents["a.md"] = content[:90] }, io.ErrUnexpectedEOF, 3},
		{"away for good", func(s *fakeBucket) {
			s.cut = 30
			s.fail = func(request string) error {
				if strings.HasSuffix(request, " at 60") {
					return context.DeadlineExceeded
				}
				return nil
			}
		}, context.DeadlineExceeded, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &fakeBucket{contents: map[string]string{"a.md": content}}
				tt.set(s)
				r, err := s.bucket().Open(t.Context(), "a.md", fp)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if !errors.Is(err, tt.want) || tt.want == nil && string(got) != content || len(s.requests) != tt.asks {
					t.Errorf("%d bytes, %v, requests %q", len(got), err, s.requests)
				}
				if !strings.HasPrefix(content, string(got)) {
					t.Errorf("torn: %q", got)
				}
				if n, again := r.Read(make([]byte, 1)); n != 0 || tt.want != nil && !errors.Is(again, tt.want) {
					t.Errorf("after the end: %d, %v", n, again)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestBucketSkipsUnreadableObjects(t *testing.T) {
	t.Parallel()
	fp := state.Fingerprint{Size: 1, MTime: 1}
	s := &fakeBucket{objects: []object{
		{key: "a/", fingerprint: state.Fingerprint{MTime: 1}},
		{key: "b.md", fingerprint: fp, unreadable: "archived"},
		{key: "c.md/", fingerprint: fp},
		{key: "d\x00.md", fingerprint: fp},
		{key: "e.md", fingerprint: state.Fingerprint{MTime: 1}},
		{key: "f\xff.md", fingerprint: fp},
	}}
	var got []string
	for e, err := range s.bucket().List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%q %s", e.Key, e.Skip))
	}
	want := []string{`"b.md" archived`, `"c.md/" its key ends in a slash`, `"d\x00.md" its key has a NUL byte in it`, `"e.md" empty`, `"f\xff.md" `}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A document that is archived after its upload stays as it is.
func TestArchivedDocumentStaysKnown(t *testing.T) {
	t.Parallel()
	s := &fakeBucket{objects: numbered(3)}
	store := newMemoryStore()
	scan := func() Result {
		r, err := NewScanner(s.bucket(), ScanOptions{}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	scan()
	s.objects[1].unreadable = "archived"
	s.objects = append(s.objects, object{key: "new.md", fingerprint: s.objects[0].fingerprint, unreadable: "archived"})
	if r := scan(); r.Unchanged != 3 || r.Skipped["archived"] != 2 || store.known[s.objects[1].key].Skip != "" || store.known["new.md"].Skip != "archived" {
		t.Errorf("%+v, %v", r, store.known)
	}
	s.objects[3].unreadable = ""
	if r := scan(); r.Changed != 1 || store.known["new.md"].Skip != "" {
		t.Errorf("%+v, %v", r, store.known)
	}
}

func TestInOrderSortsAnyListing(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1000, sortedInMemory, 2*sortedInMemory + 1000} {
		entries := make([]Entry, n)
		for i := range entries {
			e := Entry{Key: fmt.Sprintf("%08d", i), Fingerprint: state.Fingerprint{Size: int64(i), MTime: -1, CTime: 3, Inode: 1 << 63, ETag: fmt.Sprint("e", i)}}
			switch i % 4 {
			case 1:
				e.Skip, e.Unreadable = "archived", true
			case 3:
				e.Seen = time.Unix(1, int64(i))
			}
			entries[i] = e
		}
		shuffled := slices.Clone(entries)
		random := rand.New(rand.NewPCG(1, uint64(n)))
		random.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if n > 0 {
			// An earlier entry of the same key does not count.
			old := shuffled[n-1]
			old.Fingerprint.ETag = "old"
			shuffled = append([]Entry{old}, shuffled...)
		}
		var got []Entry
		for e, err := range inOrder(func(yield func(Entry, error) bool) {
			for _, e := range shuffled {
				if !yield(e, nil) {
					return
				}
			}
		}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if !slices.Equal(got, entries) {
			t.Errorf("%d entries came back as %d", n, len(got))
		}
	}
	boom := errors.New("boom")
	source := func(yield func(Entry, error) bool) {
		_ = yield(Entry{Key: "b"}, nil) && yield(Entry{}, &ListError{Err: boom}) && yield(Entry{Key: "a"}, nil) && yield(Entry{}, boom)
	}
	if n, errs := errorsOf(inOrder(source)); n != 0 || len(errs) != 2 {
		t.Error(n, errs)
	}
}

// An endlessBucket is a bucket whose listing never ends. It answers each page with the next of its rounds.
type endlessBucket struct {
	fakeBucket
	pages int
	next  func(n int) ([]object, string) // the page after n others
}

func (s *endlessBucket) page(_ context.Context, prefix, _ string) ([]object, string, error) {
	if strings.HasSuffix(prefix, ignoreName) {
		return nil, "", nil
	}
	s.pages++
	objects, token := s.next(s.pages - 1)
	return objects, token, nil
}

func TestListingThatNeverEndsIsAnError(t *testing.T) {
	t.Parallel()
	objects := numbered(9)
	for _, test := range []struct {
		name      string
		unordered bool
		next      func(n int) ([]object, string)
		mostPages int
	}{
		{"one page again and again", false, func(int) ([]object, string) { return objects[:3], "same" }, 3},
		{"three tokens in turn", false, func(n int) ([]object, string) { return nil, strconv.Itoa(n % 3) }, 12},
		{"three tokens in turn after many pages", true, func(n int) ([]object, string) {
			if n < 100 {
				return nil, fmt.Sprint("first ", n)
			}
			return objects[n%3 : n%3+1], strconv.Itoa(n % 3)
		}, 300},
		{"other tokens and the same documents", false, func(n int) ([]object, string) { return objects[:3], strconv.Itoa(n) }, maxIdlePages + 2},
		{"other tokens and the same documents in another order", true, func(n int) ([]object, string) {
			n %= 3
			return objects[3*n : 3*n+3], strconv.Itoa(rand.Int())
		}, 12},
		{"other tokens and nothing", false, func(n int) ([]object, string) { return nil, strconv.Itoa(n) }, maxIdlePages + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &endlessBucket{next: test.next}
			b := s.bucket()
			b.service.objects, b.service.unordered = s, test.unordered
			entries, errs := errorsOf(b.List(t.Context(), ""))
			if len(errs) == 0 || s.pages > test.mostPages {
				t.Errorf("%d entries in %d pages, and the errors are %v", entries, s.pages, errs)
			}
			_, _ = b.Explain(t.Context(), "nowhere") // ends as well
		})
	}
}

// Empty pages and documents on two pages are no sign of an endless listing.
func TestListingWithEmptyPagesEnds(t *testing.T) {
	t.Parallel()
	objects := numbered(600)
	for _, unordered := range []bool{false, true} {
		s := &endlessBucket{next: func(n int) ([]object, string) {
			if n%2 == 0 {
				return nil, strconv.Itoa(n)
			}
			at := n / 2
			if at == 299 {
				return objects[2*at:], ""
			}
			return objects[2*at : 2*at+3], strconv.Itoa(n)
		}}
		b := s.bucket()
		b.service.objects, b.service.unordered = s, unordered
		if entries, errs := errorsOf(b.List(t.Context(), "")); entries != len(objects) || errs != nil {
			t.Errorf("unordered: %v: %d entries, errors %v", unordered, entries, errs)
		}
	}
}
