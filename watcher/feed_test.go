package watcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
)

// A fakeBroker keeps a message until it is acknowledged.
type fakeBroker struct {
	mu        gosync.Mutex
	away      error // the error of a connect; nil if it succeeds
	attempts  []time.Time
	open      *fakeConnection // nil for none
	presuming time.Duration
	leasing   time.Duration
	failAcks  bool

	messages map[int]message // not acknowledged
	acked    []int
	nacked   []int
	renewed  []int
	next     int
}

// A fakeConnection is a connection to a fakeBroker.
type fakeConnection struct {
	post *fakeBroker
	in   chan int
	lost chan error
}

func (p *fakeBroker) connect(ctx context.Context) (subscription, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = append(p.attempts, time.Now())
	if p.away != nil {
		return nil, p.away
	}
	p.open = &fakeConnection{post: p, in: make(chan int, 10_000), lost: make(chan error, 1)}
	for _, id := range slices.Sorted(maps.Keys(p.messages)) {
		p.open.in <- id // deliver it again
	}
	return p.open, nil
}

// send sends messages and returns the number of the last one.
func (p *fakeBroker) send(bodies ...string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, body := range bodies {
		if p.messages == nil {
			p.messages = map[int]message{}
		}
		p.next++
		p.messages[p.next] = message{body: []byte(body), attributes: map[string]string{"Secret-Name": "secret value"}}
		if p.open != nil {
			p.open.in <- p.next
		}
	}
	return p.next
}

// lose breaks the connection. Later connects fail with away unless it is nil.
func (p *fakeBroker) lose(away error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open.lost <- errors.New("connection lost")
	p.open, p.away = nil, away
}

// noted returns a list of messages and empties it.
func (p *fakeBroker) noted(list *[]int) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := *list
	*list = nil
	return got
}

func (p *fakeBroker) waiting() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.messages))
}

func (c *fakeConnection) receive(ctx context.Context) (*delivery, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case err := <-c.lost:
		return nil, err
	case id := <-c.in:
		p := c.post
		note := func(list *[]int, end bool) func() error {
			return func() error {
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.open != c || end && p.failAcks {
					return errors.New("connection lost")
				}
				if *list = append(*list, id); end {
					delete(p.messages, id)
				}
				return nil
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return &delivery{message: p.messages[id], ack: note(&p.acked, true), nack: note(&p.nacked, false), renew: note(&p.renewed, false)}, nil
	}
}

func (c *fakeConnection) connectedAfter() time.Duration { return c.post.presuming }

func (c *fakeConnection) lease() time.Duration { return c.post.leasing }

func (c *fakeConnection) close() {}

// s3Event returns the body of a message of S3.
func s3Event(bucket string, keys ...string) string {
	var records []string
	for _, key := range keys {
		records = append(records, fmt.Sprintf(`{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q}}}`, bucket, key))
	}
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}

// withFeed runs a test in a synctest bubble with a connected Feed of the bucket "docs" below handbook/. The root, dirty after the
// connect, was taken.
func withFeed(t *testing.T, p *fakeBroker, opts FeedOptions, test func(t *testing.T, f *Feed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		f := newFeed(handbookBucket(t), "nats://host/STREAM", opts, p.connect)
		f.start(t.Context())
		defer f.Close()
		f.want(t, "")
		f.Recorded(nil)
		test(t, f)
	})
}

func handbookBucket(t *testing.T) *Bucket {
	t.Helper()
	filter, err := NewFilter(FilterOptions{Exclude: []string{"drafts/**"}})
	if err != nil {
		t.Fatal(err)
	}
	return newBucket("s3://docs?region=eu-west-1", "handbook/", service{objects: &fakeBucket{}, identity: "fakeBucket"}, BucketOptions{Filter: filter})
}

// want takes the dirty prefixes when all goroutines are idle.
func (f *Feed) want(t *testing.T, prefixes ...string) {
	t.Helper()
	synctest.Wait()
	if got := f.Take(); !slices.Equal(got, prefixes) {
		t.Fatalf("%q is dirty, want %q", got, prefixes)
	}
}

// A message is acknowledged when everything that it names is recorded, and not before.
func TestFeedAcknowledgesWhatIsRecorded(t *testing.T) {
	var p fakeBroker
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		p.send(s3Event("docs", "handbook/a.md"), s3Event("docs", "handbook/b.md", "handbook/c.md"), s3Event("docs", "handbook/d/"))
		waits := func(ids ...int) {
			t.Helper()
			synctest.Wait()
			if got := p.waiting(); !slices.Equal(got, ids) {
				t.Fatalf("%v wait, want %v", got, ids)
			}
		}
		waits(1, 2, 3)
		f.Recorded(nil) // after an earlier scan: nothing was taken
		waits(1, 2, 3)
		f.want(t, "a.md", "b.md", "c.md", "d/")
		waits(1, 2, 3)
		p.send(s3Event("docs", "handbook/a.md")) // during the scan
		synctest.Wait()
		f.Recorded([]string{"c.md", "d/e.md"}) // these have not settled
		waits(2, 3, 4)
		f.want(t, "a.md")
		f.Recorded([]string{""}) // a scan that failed
		waits(2, 3, 4)
		f.want(t)
		f.Recorded([]string{"c.md"})
		waits(2)
		f.Recorded(nil)
		waits()
		if s := f.Stats(); s.Taken != 4 || s.Held != 0 || s.FailedAcks != 0 || s.Connections != 1 || !s.Connected {
			t.Errorf("%+v", s)
		}
		if acked := p.noted(&p.acked); len(acked) != 4 {
			t.Errorf("acknowledged: %v", acked)
		}
	})
}

func TestFailedAcknowledgementIsCountedAndRedelivered(t *testing.T) {
	p := fakeBroker{failAcks: true}
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		p.send(s3Event("docs", "handbook/a.md"))
		f.want(t, "a.md")
		f.Recorded(nil)
		f.Recorded(nil)
		f.want(t)
		if s := f.Stats(); s.FailedAcks != 1 || s.Held != 0 || !s.Connected || len(p.waiting()) != 1 {
			t.Errorf("%+v, %v wait", s, p.waiting())
		}
	})
}

func TestFeedMarksTheKeysOfEachMessage(t *testing.T) {
	for name, tt := range map[string]struct {
		body  string
		dirty []string
		want  FeedStats
	}{
		"document":          {s3Event("docs", "handbook/a.md"), []string{"a.md"}, FeedStats{Taken: 1}},
		"encoded":           {s3Event("docs", "handbook/x+y/%C3%A9%2B%25.md"), []string{"x y/é+%.md"}, FeedStats{Taken: 1}},
		"several":           {s3Event("docs", "handbook/b.md", "elsewhere/x.md", "handbook/a/b.md"), []string{"a/b.md", "b.md"}, FeedStats{Taken: 1}},
		"folder":            {s3Event("docs", "handbook/x/"), []string{"x/"}, FeedStats{Taken: 1}},
		"the root itself":   {s3Event("docs", "handbook/"), []string{""}, FeedStats{Taken: 1}},
		"a folder above":    {s3Event("docs", "hand", "handbook"), nil, FeedStats{Elsewhere: 1}},
		"ignore file":       {s3Event("docs", "handbook/.kbsyncignore"), []string{""}, FeedStats{Taken: 1}},
		"nested ignores":    {s3Event("docs", "handbook/x/.kbsyncignore"), []string{"x/"}, FeedStats{Taken: 1}},
		"left out":          {s3Event("docs", "handbook/drafts/a.md"), nil, FeedStats{Elsewhere: 1}},
		"no document":       {s3Event("docs", "handbook/a.exe"), nil, FeedStats{Elsewhere: 1}},
		"another prefix":    {s3Event("docs", "handbook-internal/a.md"), nil, FeedStats{Elsewhere: 1}},
		"another bucket":    {s3Event("docs2", "handbook/a.md"), nil, FeedStats{Elsewhere: 1}},
		"test":              {`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"docs"}`, nil, FeedStats{Elsewhere: 1}},
		"malformed":         {`{"Records":[{"s3":`, nil, FeedStats{Unknown: 1}},
		"empty":             {"", nil, FeedStats{Unknown: 1}},
		"of something else": {`{"order":17}`, nil, FeedStats{Unknown: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			var p fakeBroker
			withFeed(t, &p, FeedOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, f *Feed) {
				p.send(tt.body, tt.body, tt.body)
				f.want(t, tt.dirty...)
				if tt.dirty == nil && len(p.waiting()) > 0 {
					t.Error("a message that names nothing of the root is not acknowledged")
				}
				f.Recorded(nil)
				got := f.Stats()
				got.Connected, got.Connections = false, 0
				tt.want.Taken *= 3
				tt.want.Elsewhere *= 3
				tt.want.Unknown *= 3
				if got != tt.want || len(p.waiting()) > 0 {
					t.Errorf("got %+v, want %+v; %v wait", got, tt.want, p.waiting())
				}
				text := log.String()
				if n := strings.Count(text, "unknown format"); n != min(int(tt.want.Unknown), 1) {
					t.Errorf("logged %d times an unknown format", n)
				}
				if tt.want.Unknown > 0 && (strings.Contains(text, "secret value") || !strings.Contains(text, "Secret-Name") || strings.Contains(text, "order")) {
					t.Errorf("the log contains %s", text)
				}
			})
		})
	}
}

// An event of a folder above the root makes the whole root dirty: the folder may have been renamed.
func TestFolderAboveTheRootMarksTheRoot(t *testing.T) {
	b := handbookBucket(t)
	b.prefix = "teams/handbook/"
	for key, want := range map[string]bool{"teams/": true, "teams/handbook/": true, "": true, "team/": false, "teams": false, "teams/other/": false} {
		if prefix, is := b.prefixOf(bucketEvent{bucket: "docs", key: key}); is != want || prefix != "" {
			t.Errorf("%q: %q, %v", key, prefix, is)
		}
	}
}

// An outage is logged once, connects are tried without end, and the whole root is dirty after the next connect.
func TestFeedReconnects(t *testing.T) {
	var log bytes.Buffer
	p := fakeBroker{away: errors.New("no such host")}
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(handbookBucket(t), "nats://host/STREAM", FeedOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, p.connect)
		f.start(t.Context())
		defer f.Close()
		f.want(t, "") // at once, without a broker
		<-f.Wake()
		time.Sleep(time.Hour)
		f.want(t)
		p.mu.Lock()
		attempts := slices.Clone(p.attempts)
		p.mu.Unlock()
		if n := len(attempts); n < 60 || n > 150 {
			t.Errorf("%d attempts in an hour", n)
		}
		for i := range 3 {
			if pause := attempts[i+1].Sub(attempts[i]); pause > 4*time.Second {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if s := f.Stats(); s.Connected || s.Connections != 0 {
			t.Errorf("%+v", s)
		}
		p.mu.Lock()
		p.away = nil
		p.mu.Unlock()
		time.Sleep(maxReconnect)
		f.want(t, "")
		<-f.Wake()
		f.Recorded(nil)

		p.send(s3Event("docs", "handbook/a.md"), s3Event("docs", "handbook/b.md"))
		f.want(t, "a.md", "b.md")
		p.send(s3Event("docs", "handbook/c.md"))
		synctest.Wait()
		p.lose(nil)
		synctest.Wait()
		if s := f.Stats(); s.Connected || s.Held != 0 {
			t.Errorf("after the loss: %+v", s)
		}
		f.Recorded(nil) // their acknowledgements belong to the lost connection
		if acked := p.noted(&p.acked); len(acked) != 0 {
			t.Errorf("acknowledged: %v", acked)
		}
		time.Sleep(2 * time.Second)
		f.want(t, "")
		if s := f.Stats(); !s.Connected || s.Connections != 2 || s.Held != 3 {
			t.Errorf("after the next connect: %+v", s)
		}
		f.Recorded(nil)
		if len(p.waiting()) != 0 {
			t.Errorf("%v wait", p.waiting())
		}
	})
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings of two outages:\n%s", n, log.String())
	}
}

// A connection that breaks again and again does not cause a listing each time.
func TestFeedBacksOffWhenConnectionsBreak(t *testing.T) {
	var p fakeBroker
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		whole := 0
		for end := time.Now().Add(time.Hour); time.Now().Before(end); time.Sleep(time.Second) {
			synctest.Wait()
			p.mu.Lock()
			open := p.open != nil
			p.mu.Unlock()
			if open {
				p.lose(nil)
			}
			if len(f.Take()) > 0 {
				whole++
			}
		}
		if whole < 50 || whole > 150 {
			t.Errorf("%d listings in an hour", whole)
		}
	})
}

// A client that connects in the background counts as connected after a while without errors, or after a message.
func TestFeedCountsAsConnectedAfterAQuietWhile(t *testing.T) {
	p := fakeBroker{presuming: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(handbookBucket(t), "awssqs://host/1/docs", FeedOptions{}, p.connect)
		f.start(t.Context())
		defer f.Close()
		f.want(t, "")
		time.Sleep(9 * time.Second)
		p.lose(nil) // the first request is refused
		f.want(t)
		if s := f.Stats(); s.Connections != 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(12 * time.Second)
		f.want(t, "")
		if s := f.Stats(); s.Connections != 1 || !s.Connected {
			t.Errorf("%+v", s)
		}
		p.lose(nil)
		time.Sleep(3 * time.Second)
		f.want(t)
		p.send(s3Event("docs", "handbook/a.md"))
		f.want(t, "")
		if s := f.Stats(); s.Connections != 2 || s.Held != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		if s := f.Stats(); s.Connections != 2 || !s.Connected {
			t.Errorf("%+v", s)
		}
	})
}

func TestFeedHoldsABoundedNumberOfMessages(t *testing.T) {
	var p fakeBroker
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		f.maxHeld = 3
		for i := range 10 {
			p.send(s3Event("docs", fmt.Sprintf("handbook/%d.md", i)))
		}
		for _, want := range [][]string{{"0.md", "1.md", "2.md"}, {"3.md", "4.md", "5.md"}, {"6.md", "7.md", "8.md"}, {"9.md"}, nil} {
			f.want(t, want...)
			f.want(t)
			f.Recorded([]string{""}) // makes no room
			f.want(t)
			f.Recorded(nil)
		}
		if len(p.waiting()) != 0 {
			t.Errorf("%v wait", p.waiting())
		}
	})
}

// Held messages are renewed, and returned to the broker at the end.
func TestFeedRenewsAndHandsBack(t *testing.T) {
	p := fakeBroker{leasing: 30 * time.Second}
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		p.send(s3Event("docs", "handbook/a.md"), s3Event("docs", "handbook/b.md"))
		f.want(t, "a.md", "b.md")
		p.send(s3Event("docs", "handbook/c.md"))
		time.Sleep(35 * time.Second)
		if got, want := p.noted(&p.renewed), []int{1, 2, 3, 1, 2, 3, 1, 2, 3}; !slices.Equal(got, want) {
			t.Errorf("renewed: %v, want %v", got, want)
		}
		f.Recorded([]string{"b.md"})
		time.Sleep(10 * time.Second)
		if got, want := p.noted(&p.renewed), []int{2, 3}; !slices.Equal(got, want) {
			t.Errorf("renewed: %v, want %v", got, want)
		}
		_ = f.Close()
		if got, want := p.noted(&p.nacked), []int{2, 3}; !slices.Equal(got, want) {
			t.Errorf("handed back: %v, want %v", got, want)
		}
		time.Sleep(time.Minute)
		if renewed, acked := p.noted(&p.renewed), p.noted(&p.acked); renewed != nil || !slices.Equal(acked, []int{1}) {
			t.Errorf("renewed after the end: %v, acknowledged %v", renewed, acked)
		}
	})
}

// The wakeup comes Delay after the first of several events.
func TestFeedWakesOncePerDelay(t *testing.T) {
	var p fakeBroker
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(handbookBucket(t), "nats://host/STREAM", FeedOptions{Delay: 2 * time.Second}, p.connect)
		f.start(t.Context())
		defer f.Close()
		start := time.Now()
		<-f.Wake()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the first wake came after %v", took)
		}
		f.want(t, "")
		p.send(s3Event("docs", "handbook/a.md"))
		time.Sleep(time.Second)
		p.send(s3Event("docs", "handbook/b.md"))
		<-f.Wake()
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("the second wake came after %v", took)
		}
		f.want(t, "a.md", "b.md")
	})
}

// Many documents of one folder make the folder dirty, and very many the whole root; their messages are held.
func TestManyMessagesWidenToFolders(t *testing.T) {
	var p fakeBroker
	withFeed(t, &p, FeedOptions{}, func(t *testing.T, f *Feed) {
		for i := range dirtyObjects + 1 {
			p.send(s3Event("docs", fmt.Sprintf("handbook/x/%d.md", i)))
		}
		f.want(t, "x/")
		if n := f.Stats().Held; n != dirtyObjects+1 {
			t.Errorf("%d are held", n)
		}
		f.Recorded([]string{"x/0.md"})
		if n := f.Stats().Held; n != 1 {
			t.Errorf("%d are held", n)
		}
		f.Recorded(nil)
		for i := range dirtyAllObjects + 1 {
			p.send(s3Event("docs", fmt.Sprintf("handbook/%d/x.md", i)))
		}
		f.want(t, "")
		f.Recorded(nil)
		if len(p.waiting()) != 0 {
			t.Errorf("%d wait", len(p.waiting()))
		}
	})
}

// A changingBucket is a bucket in memory that counts requests.
type changingBucket struct {
	mu      gosync.Mutex
	objects map[string]object
	pages   int // requests, except for the ignore file
	ignores int // requests for the ignore file
	most    int // most requests at one time
	now     int
	slow    time.Duration
}

func (h *changingBucket) page(ctx context.Context, prefix, _ string) ([]object, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.HasSuffix(prefix, ignoreName) {
		h.ignores++
	} else {
		h.pages++
	}
	h.now++
	h.most = max(h.most, h.now)
	if h.slow > 0 {
		h.mu.Unlock()
		_ = retry.Sleep(ctx, h.slow)
		h.mu.Lock()
	}
	h.now--
	var page []object
	for _, key := range slices.Sorted(maps.Keys(h.objects)) {
		if strings.HasPrefix(key, prefix) {
			page = append(page, h.objects[key])
		}
	}
	return page, "", ctx.Err()
}

func (*changingBucket) level(context.Context, string, string) ([]object, []string, string, error) {
	return nil, nil, "", errNoLevels
}

func (*changingBucket) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, errors.New("the test reads no object")
}

func (*changingBucket) close() error { return nil }

// Whatever happens to the messages, the state equals the bucket in the end, except for changes without a message, which a scan of
// the whole root finds. No message is left unacknowledged.
func TestFeedAndScansConvergeToTheListing(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 6))
			var p fakeBroker
			h := &changingBucket{objects: map[string]object{}}
			b := handbookBucket(t)
			b.service = service{objects: h, identity: "changingBucket"}
			f := newFeed(b, "nats://host/STREAM", FeedOptions{}, p.connect)
			f.start(t.Context())
			defer f.Close()
			synctest.Wait()
			store := newMemoryStore()
			scanner := NewScanner(b, ScanOptions{Settle: -1, MaxDelete: Limit{Percent: 100, ByPercent: true}, MaxChange: Limit{Percent: 100, ByPercent: true}, AllowEmpty: true, Lookups: 4})
			lost := map[string]bool{}
			var bag []string
			step := func() {
				prefixes := f.Take()
				if len(prefixes) == 0 {
					return
				}
				if random.IntN(10) == 0 { // a scan that fails
					f.Mark(prefixes...)
					return
				}
				if _, err := scanner.ScanAll(t.Context(), store, state.Sync{ID: 1, RootIdentity: "changingBucket/handbook/"}, prefixes); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				f.Recorded(nil)
			}
			for i := range 300 {
				key := fmt.Sprintf("handbook/%d/%d.md", random.IntN(3), random.IntN(20))
				h.mu.Lock()
				if _, is := h.objects[key]; is && random.IntN(3) == 0 {
					delete(h.objects, key)
				} else {
					h.objects[key] = object{key: key, fingerprint: state.Fingerprint{Size: 1, MTime: 1, ETag: fmt.Sprint(i)}}
				}
				h.mu.Unlock()
				switch random.IntN(10) {
				case 0:
					lost[strings.TrimPrefix(key, "handbook/")] = true
				case 1:
					bag = append(bag, s3Event("docs", key), s3Event("docs", key), s3Event("docs", key))
				case 2:
					bag = append(bag, s3Event("docs", key), s3Event("other", key), "garbage", s3Event("docs", "elsewhere/"+key))
				default:
					bag = append(bag, s3Event("docs", key))
				}
				for len(bag) > 0 && random.IntN(3) > 0 {
					n := random.IntN(len(bag))
					p.send(bag[n])
					bag = slices.Delete(bag, n, n+1)
				}
				if random.IntN(5) == 0 {
					synctest.Wait()
					step()
				}
				p.mu.Lock()
				p.failAcks = random.IntN(10) == 0
				p.mu.Unlock()
				if random.IntN(60) == 0 {
					p.lose(nil)
					time.Sleep(2 * maxReconnect)
					lost = map[string]bool{}
				}
			}
			p.mu.Lock()
			p.failAcks = false
			p.mu.Unlock()
			p.send(bag...)
			for range 20 {
				synctest.Wait()
				step()
			}
			differing := func() (keys []string) {
				for key, o := range h.objects {
					key = strings.TrimPrefix(key, "handbook/")
					if store.known[key].Fingerprint != o.fingerprint {
						keys = append(keys, key)
					}
				}
				for key := range store.known {
					if _, is := h.objects["handbook/"+key]; !is {
						keys = append(keys, key)
					}
				}
				return keys
			}
			for _, key := range differing() {
				if !lost[key] {
					t.Errorf("seed %d: the state of %q is wrong, although a message named it", seed, key)
				}
			}
			// Messages whose acknowledgement failed come again.
			p.lose(nil)
			time.Sleep(2 * maxReconnect)
			for range 20 {
				synctest.Wait()
				step()
			}
			if keys := differing(); len(keys) > 0 || len(p.waiting()) > 0 || f.Stats().Held > 0 {
				t.Errorf("seed %d: %q differ, %v wait", seed, keys, p.waiting())
			}
		})
	}
}

// Single documents are listed several at a time, with one request each and one for the ignore file of each folder.
func TestSingleDocumentsAreListedConcurrently(t *testing.T) {
	h := &changingBucket{objects: map[string]object{}, slow: 30 * time.Millisecond}
	var prefixes []string
	for i := range 1000 {
		key := fmt.Sprintf("%d/%04d.md", i/100, i)
		if i%3 > 0 {
			h.objects[key] = object{key: key, fingerprint: state.Fingerprint{Size: 1, MTime: 1, ETag: fmt.Sprint(i)}}
		}
		prefixes = append(prefixes, key)
	}
	prefixes = append(prefixes, "folder/", "zzz.md")
	for i := range 10 {
		h.objects[fmt.Sprint(i, "/", ignoreName)] = object{key: fmt.Sprint(i, "/", ignoreName)}
	}
	h.objects["folder/a.md"] = object{key: "folder/a.md", fingerprint: state.Fingerprint{Size: 1, MTime: 1}}
	h.objects["folder/b.md"] = object{key: "folder/b.md", fingerprint: state.Fingerprint{Size: 1, MTime: 1}}
	bucket := func() *Bucket {
		b := (&fakeBucket{}).bucket()
		b.service = service{objects: h, identity: "changingBucket"}
		return b
	}
	scan := func(t *testing.T, lookups int) (*memoryStore, time.Duration) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		b := bucket()
		h.pages, h.ignores, h.most = 0, 0, 0
		store := newMemoryStore()
		start := time.Now()
		r, err := NewScanner(b, ScanOptions{Settle: -1, Lookups: lookups}).ScanAll(t.Context(), store, state.Sync{ID: 1}, prefixes)
		if err != nil || r.New != 668 {
			t.Fatalf("%+v, %v", r, err)
		}
		return store, time.Since(start)
	}
	synctest.Test(t, func(t *testing.T) {
		one, slowly := scan(t, 0)
		if h.most > 2 {
			t.Errorf("%d at a time", h.most)
		}
		many, took := scan(t, 16)
		if h.most != 16 || h.pages != 1002 || h.ignores > 20 {
			t.Errorf("%d at a time, %d pages, %d requests for the ignore file", h.most, h.pages, h.ignores)
		}
		if !maps.Equal(one.known, many.known) || len(one.known) != 668 {
			t.Error("the results differ")
		}
		if took > slowly/10 {
			t.Errorf("%v, and one after the other %v", took, slowly)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// A scan that ends early leaves no goroutine.
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := NewScanner(bucket(), ScanOptions{Settle: -1, Lookups: 16}).ScanAll(ctx, newMemoryStore(), state.Sync{ID: 1}, prefixes); err == nil {
			t.Error("no error")
		}
	})
}

// The listing of a folder always looks for the ignore files above it. Listings of single documents use the results.
func TestIgnoreFileIsCachedForSingleDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &changingBucket{objects: map[string]object{}}
		for _, key := range []string{"a.md", "a/b.md", "a/c/d.md", "b.md", "c.md"} {
			h.objects[key] = object{key: key, fingerprint: state.Fingerprint{Size: 1, MTime: 1}}
		}
		b := (&fakeBucket{}).bucket()
		b.service = service{objects: h, identity: "changingBucket"}
		list := func(prefix string) {
			for _, err := range b.List(t.Context(), prefix) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, step := range []struct {
			prefix string
			want   int
		}{{"a.md", 1}, {"b.md", 1}, {"gone.md", 1}, {"a/", 2}, {"b.md", 2}, {"a/c/", 4}, {"", 4}, {"a/b.md", 4}, {"a/c/d.md", 5}, {"a/c/d.md", 5}} {
			if list(step.prefix); h.ignores != step.want {
				t.Errorf("step %d: %d requests, want %d", i, h.ignores, step.want)
			}
		}
		time.Sleep(ignoresAge)
		if list("a.md"); h.ignores != 6 {
			t.Errorf("%d requests", h.ignores)
		}
	})
}
