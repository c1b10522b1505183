package ingest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// Whatever happens to the documents, the API, the journal and the process: after the faults end, the API has accepted each
// content of the root, and none more often than the state lists.
func TestNothingIsLostAndEveryDuplicateIsListed(t *testing.T) {
	dir, fixtures := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		fixtures++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", fixtures))
		// rapid ends a check by a panic, which must leave the bubble.
		var ended any
		synctest.Test(t, func(*testing.T) {
			defer func() { ended = recover() }()
			simulate(rt, path)
		})
		if ended != nil {
			panic(ended)
		}
	})
}

func simulate(rt *rapid.T, path string) {
	fx := newFixtureAt(rt, path)
	defer fx.store.Close()
	m := &machine{fixture: fx}
	fx.opts.Documents = rapid.IntRange(1, 6).Draw(rt, "documents")
	fx.opts.Transfers = rapid.IntRange(1, 3).Draw(rt, "transfers")
	fx.service.latency = time.Second
	rt.Repeat(map[string]func(*rapid.T){
		"put":    m.put,
		"remove": m.remove,
		"scan":   func(*rapid.T) { fx.scan() },
		"run":    m.run,
		"sleep":  func(rt *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 600).Draw(rt, "seconds")) * time.Second) },
		"":       func(*rapid.T) { fx.check() },
	})
	m.end(rt)
}

type machine struct {
	*fixture
}

// put chooses among few contents, so that twins, reverts and copies are frequent. Large ones are hashed during the upload.
func (m *machine) put(rt *rapid.T) {
	key := fmt.Sprintf("%02d.md", rapid.IntRange(0, 14).Draw(rt, "key"))
	content := fmt.Sprintf("content %d", rapid.IntRange(0, 19).Draw(rt, "content"))
	if strings.HasSuffix(content, "9") {
		content += strings.Repeat(".", state.HashAhead)
	}
	m.tree.put(key, content)
}

func (m *machine) remove(rt *rapid.T) {
	m.tree.remove(fmt.Sprintf("%02d.md", rapid.IntRange(0, 14).Draw(rt, "key")))
}

var errFault = errors.New("connection reset by peer")

var faults = []fault{
	{}, {}, {}, {},
	{at: "before", err: errFault},
	{at: "middle", err: errFault},
	{at: "middle", err: &replycx.Error{StatusCode: 502}},
	{at: "middle", err: &replycx.Error{StatusCode: 413}},
	{at: "lost", err: errFault},
	{at: "lose", err: errFault},
	{at: "lose", err: &replycx.AnswerError{StatusCode: 200, Reason: "is cut off"}},
	{at: "lost", err: &replycx.Error{StatusCode: 500}},
	{at: "refuse", err: &replycx.Error{StatusCode: 429, RetryAfter: 20 * time.Second}},
	{at: "refuse", err: &replycx.Error{StatusCode: 503, FromAPI: true}},
	{at: "refuse", err: &replycx.Error{StatusCode: 401, Code: "JWT_SIGNATURE_EXCEPTION", FromAPI: true}},
	{drop: 1},
	{drop: 3},
}

// run runs with random faults, and sometimes with a stop or a cut.
func (m *machine) run(rt *rapid.T) {
	script := rapid.SliceOfN(rapid.IntRange(0, len(faults)-1), 1, 12).Draw(rt, "faults")
	first := m.service.posted()
	m.service.set(func(post int, _ []string) fault { return faults[script[(post-first)%len(script)]] })
	journalFault := rapid.SampledFrom([]string{"", "", "", "begin", "seal", "accept", "refuse"}).Draw(rt, "journal")
	m.around = func(j journal) journal {
		h := hooks{journal: j}
		nth := 0
		switch journalFault {
		case "begin":
			h.begin = func(ctx context.Context, spec state.BatchSpec) (*state.Upload, error) {
				if nth++; nth == 3 {
					return nil, errors.New("disk full")
				}
				return j.Begin(ctx, spec)
			}
		case "seal":
			h.seal = func(ctx context.Context, id *state.Upload, seals []state.Seal) error {
				if nth++; nth == 2 {
					return errors.New("disk full")
				}
				return j.Seal(ctx, id, seals)
			}
		case "accept":
			h.accept = func(ctx context.Context, id *state.Upload, answer state.Answer) (state.Receipt, error) {
				if nth++; nth%2 == 1 {
					return state.Receipt{}, errors.New("database is locked")
				}
				return j.Accept(ctx, id, answer)
			}
		case "refuse":
			h.refuse = func(ctx context.Context, id *state.Upload, refusal state.Refusal) error {
				if nth++; nth%2 == 1 {
					return errors.New("database is locked")
				}
				return j.Refuse(ctx, id, refusal)
			}
		}
		return h
	}
	if m.opts.Transfers > 1 {
		m.around = nil // the counters need a single worker
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if after := rapid.IntRange(-3, 10).Draw(rt, "cut after"); after >= 0 {
		timer := time.AfterFunc(time.Duration(after)*500*time.Millisecond, cancel)
		defer timer.Stop()
	}
	m.opts.Stop = nil
	if after := rapid.IntRange(-10, 10).Draw(rt, "stop after"); after >= 0 {
		stop := make(chan struct{})
		m.opts.Stop = stop
		timer := time.AfterFunc(time.Duration(after)*500*time.Millisecond, func() { close(stop) })
		defer timer.Stop()
	}
	_, err := m.fixture.run(ctx)
	if errors.Is(err, state.ErrBatchEnded) || errors.Is(err, state.ErrNotFound) {
		rt.Fatalf("run: %v", err)
	}
	m.service.set(nil)
	m.around, m.opts.Stop = nil, nil
}

// end runs without faults, and checks the outcome.
func (m *machine) end(rt *rapid.T) {
	for range 8 {
		time.Sleep(time.Hour)
		m.scan()
		if _, err := m.fixture.run(context.Background()); err != nil {
			rt.Fatalf("run without faults: %v", err)
		}
	}
	m.check()
	listed := map[state.SHA256]int{}
	for _, d := range m.duplicates() {
		listed[d.SHA256]++
	}
	for sha, n := range m.service.accepted {
		if n > 1+listed[sha] {
			rt.Errorf("accepted %d times, listed %d times", n, listed[sha])
		}
	}
	for key, f := range m.tree.files {
		d := m.document(key)
		if m.service.count(string(f.content)) == 0 && !(d.State == state.Uncertain && d.Held) && d.State != state.Failed {
			rt.Errorf("%s is lost: %+v", key, d)
		}
		if d.State == state.Pending || d.State == state.Uploading {
			rt.Errorf("%s is %s in the end: %+v", key, d.State, d)
		}
	}
}
