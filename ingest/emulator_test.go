package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// A servedFixture uploads to the emulator through the real client.
type servedFixture struct {
	*fixture
	emulator *emulator.Emulator
	client   *replycx.Client
	api      API
}

func newServed(t *testing.T, opts emulator.Options) *servedFixture {
	t.Helper()
	s := &servedFixture{fixture: newFixture(t)}
	var err error
	if s.emulator, err = emulator.New(opts); err != nil {
		t.Fatal(err)
	}
	url, err := s.emulator.Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.emulator.Close() })
	s.client, err = replycx.New(s.emulator.Token(51), replycx.Options{BaseURL: url, Timeouts: replycx.Timeouts{Stall: 1500 * time.Millisecond, Answer: 1500 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.CloseIdleConnections)
	s.api = s.client
	s.opts.ResendAfter = 100 * time.Millisecond
	s.opts.Patience = 5 * time.Second
	return s
}

func (s *servedFixture) drain(ctx context.Context) (Result, error) {
	s.t.Helper()
	if _, err := s.store.Journal.Recover(context.WithoutCancel(ctx), s.sync.ID); err != nil {
		s.t.Fatal(err)
	}
	return New(s.store, s.api, s.tree, s.sync, s.opts).Run(ctx)
}

func (s *servedFixture) script(rules ...emulator.Fault) {
	s.t.Helper()
	if err := s.emulator.SetFaults(&emulator.Faults{Seed: 1, Rules: rules}); err != nil {
		s.t.Fatal(err)
	}
}

// wantListed fails the test unless the emulator accepted every content, and twice only if the state lists it as a possible
// duplicate. It returns how many contents were accepted twice.
func (s *servedFixture) wantListed() (twice int) {
	s.t.Helper()
	accepted := map[state.SHA256]int{}
	for _, a := range s.emulator.Accepted() {
		accepted[a.SHA256]++
	}
	listed := map[state.SHA256]int{}
	for _, d := range s.duplicates() {
		listed[d.SHA256]++
	}
	for key := range s.tree.files {
		sha := s.document(key).SHA256
		n := accepted[sha]
		if n == 0 || n > 1+min(listed[sha], 1) {
			s.t.Errorf("%s: accepted %d times, listed %d times", key, n, listed[sha])
		}
		if n > 1 {
			twice++
		}
	}
	return twice
}

func TestEmulatorFaultsLoseNothingAndListDuplicates(t *testing.T) {
	for _, c := range []struct {
		name      string
		fault     emulator.Fault
		uncertain bool
		twice     bool
		size      int // of a document beyond its text: a broken request must not be in the sockets' buffers when it breaks
	}{
		{name: "no fault", fault: emulator.Fault{Operation: emulator.OpBots}},
		{name: "reset before", fault: emulator.Fault{Reset: true, At: emulator.Before}, size: 400_000},
		{name: "reset in the middle", fault: emulator.Fault{Reset: true, At: emulator.Middle}, size: 400_000},
		{name: "reset when all was read", fault: emulator.Fault{Reset: true, At: emulator.Read}, uncertain: true},
		{name: "reset after", fault: emulator.Fault{Reset: true, At: emulator.After}, uncertain: true, twice: true},
		{name: "500 when all was read", fault: emulator.Fault{Status: 500, At: emulator.Read}, uncertain: true},
		{name: "502 after", fault: emulator.Fault{Status: 502, At: emulator.After}, uncertain: true, twice: true},
		{name: "504 after", fault: emulator.Fault{Status: 504, At: emulator.After}, uncertain: true, twice: true},
		{name: "bare 503 after", fault: emulator.Fault{Status: 503, At: emulator.After}, uncertain: true, twice: true},
		{name: "503 of the API", fault: emulator.Fault{Status: 503, Code: "MAINTENANCE", At: emulator.Read}},
		{name: "503 with Retry-After", fault: emulator.Fault{Status: 503, RetryAfter: "1", At: emulator.Read}},
		{name: "429", fault: emulator.Fault{Status: 429, RetryAfter: "1", At: emulator.Read}},
		{name: "429 before", fault: emulator.Fault{Status: 429, RetryAfter: "1", At: emulator.Before}},
		{name: "408", fault: emulator.Fault{Status: 408, At: emulator.Read}},
		{name: "413", fault: emulator.Fault{Status: 413, At: emulator.Before}},
		{name: "stalls after", fault: emulator.Fault{Stall: 3 * time.Second, At: emulator.After}, uncertain: true, twice: true},
		{name: "stalls before", fault: emulator.Fault{Stall: 3 * time.Second, At: emulator.Read}, uncertain: true},
		{name: "truncated", fault: emulator.Fault{Answer: "truncated"}, uncertain: true, twice: true},
		{name: "html", fault: emulator.Fault{Answer: "html"}, uncertain: true, twice: true},
		{name: "empty", fault: emulator.Fault{Answer: "empty"}, uncertain: true, twice: true},
		{name: "foreign", fault: emulator.Fault{Answer: "foreign"}, uncertain: true, twice: true},
		{name: "invalid ids", fault: emulator.Fault{Answer: "bad-ids"}, uncertain: true, twice: true},
		{name: "a field missing", fault: emulator.Fault{DropFields: 1}, uncertain: true, twice: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServed(t, emulator.Options{Train: -1})
			for i := range 60 {
				s.tree.put(fmt.Sprintf("dir/%02d.md", i), fmt.Sprintf("content %d", i)+strings.Repeat(".", c.size))
			}
			s.scan()
			if c.size > 0 {
				s.opts.BytesPerSecond = 10 << 20
			}
			if c.fault.Operation == "" {
				c.fault.Operation = emulator.OpUpload
			}
			c.fault.Nth = []int64{2}
			s.script(c.fault)
			res, err := s.drain(t.Context())
			if err != nil || res.Uploaded != 60 || res.Failed != 0 || res.Deferred != 0 {
				t.Fatalf("%+v, %v", res, err)
			}
			if (res.Uncertain > 0) != c.uncertain {
				t.Errorf("%d uncertain", res.Uncertain)
			}
			if twice := s.wantListed(); (twice > 0) != c.twice {
				t.Errorf("%d accepted twice", twice)
			}
			s.wantCounts(map[state.DocumentState]int{state.Training: 60})
			s.check()
		})
	}
}

func TestEmulatorRefusals(t *testing.T) {
	t.Run("one refused", func(t *testing.T) {
		t.Parallel()
		s := newServed(t, emulator.Options{Train: -1})
		for i := range 20 {
			s.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %d", i))
		}
		s.tree.put("07.md", "this one holds KBSYNC-EMULATOR-REFUSE")
		s.scan()
		res, err := s.drain(t.Context())
		if err != nil || res.Uploaded != 19 || res.Failed != 1 || len(res.Failures) != 1 || res.Failures[0].Key != "07.md" || res.Failures[0].Reason == "" {
			t.Fatalf("%+v, %v", res, err)
		}
		delete(s.tree.files, "07.md")
		if twice := s.wantListed(); twice != 0 {
			t.Errorf("%d accepted twice", twice)
		}
	})
	t.Run("413", func(t *testing.T) {
		t.Parallel()
		fixture := emulator.DefaultFixture()
		fixture.Limits.Request = 3 << 20
		s := newServed(t, emulator.Options{Train: -1, Fixture: fixture})
		for i := range 20 {
			s.tree.put(fmt.Sprintf("%02d.bin", i), string(make([]byte, 600_000+i)))
		}
		s.tree.put("huge.bin", string(make([]byte, 4<<20)))
		s.scan()
		res, err := s.drain(t.Context())
		if err != nil || res.Uploaded != 20 || res.Failed != 1 || res.Failures[0].Key != "huge.bin" {
			t.Fatalf("%+v, %v", res, err)
		}
		delete(s.tree.files, "huge.bin")
		s.wantListed()
	})
	t.Run("a wrong token", func(t *testing.T) {
		t.Parallel()
		s := newServed(t, emulator.Options{Train: -1})
		for i := range 50 {
			s.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %d", i))
		}
		s.scan()
		right := s.api
		wrong, err := replycx.New("not.a.token", replycx.Options{BaseURL: s.client.Origin()})
		if err != nil {
			t.Fatal(err)
		}
		defer wrong.CloseIdleConnections()
		s.api = wrong
		_, err = s.drain(t.Context())
		if _, ok := errors.AsType[*FatalError](err); !ok || !errors.Is(err, replycx.ErrTokenInvalid) {
			t.Fatalf("got %v", err)
		}
		s.wantCounts(map[state.DocumentState]int{state.Pending: 50})
		s.api = right
		if res, err := s.drain(t.Context()); err != nil || res.Uploaded != 50 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

// Runs that are cut again and again upload everything in the end, lose nothing, and list each possible duplicate. Each cut
// comes at a random time after the fifth request, when at least one of four transfers has its answer.
func TestRunsThatAreCutUploadEverythingInTheEnd(t *testing.T) {
	s := newServed(t, emulator.Options{Train: -1})
	s.opts.Documents = 10
	for i := range 1000 {
		s.tree.put(fmt.Sprintf("dir%d/%04d.md", i%13, i), fmt.Sprintf("content %d", i))
	}
	s.scan()
	s.script(emulator.Fault{Operation: emulator.OpUpload, Latency: time.Millisecond})
	cuts := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		s.api = &cutting{API: s.client, after: int64(5 + rand.IntN(8)), cut: cancel}
		res, err := s.drain(ctx)
		cancel()
		if err == nil && !res.Incomplete() {
			break
		}
		if cuts++; cuts > 300 {
			t.Fatalf("never done: %+v, %v", res, err)
		}
	}
	s.api = s.client
	// Documents that the last cut made uncertain are due a little later.
	time.Sleep(2 * s.opts.ResendAfter)
	if _, err := s.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	twice := s.wantListed()
	t.Logf("%d cuts, %d accepted twice, %d listed", cuts, twice, len(s.duplicates()))
	s.check()
}

// cutting cuts the run soon after so many uploads have begun.
type cutting struct {
	API
	begun atomic.Int64
	after int64
	cut   func()
}

func (c *cutting) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	if c.begun.Add(1) == c.after {
		time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, c.cut)
	}
	return c.API.UploadSources(ctx, kb, parts, opts)
}
