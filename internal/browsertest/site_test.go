package browsertest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

const token = "browser-token"

// A site is the page of a state, on an address of this machine. The triggers are noted, and do nothing but what a test adds.
type site struct {
	*testing.T
	store *state.Store
	page  *statuspage.Page
	url   string

	scan, next int64
	halted     bool

	mu    sync.Mutex
	calls []string
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// newSite serves a new state. change changes the options of the page.
func newSite(t *testing.T, change func(*statuspage.Options)) *site {
	t.Helper()
	return serveState(t, filepath.Join(t.TempDir(), "kbsync.db"), change)
}

func serveState(t *testing.T, path string, change func(*statuspage.Options)) *site {
	t.Helper()
	s := &site{T: t, next: 330000}
	var err error
	s.store, err = state.Open(t.Context(), state.Options{Path: path})
	s.must(err)
	t.Cleanup(func() { s.must(s.store.Close()) })
	options := statuspage.Options{
		State: s.store, Version: "v0.4.0", Token: token,
		Syncs: func() []statuspage.Sync {
			all, _ := s.store.Syncs.All(context.Background())
			var running []statuspage.Sync
			for _, y := range all {
				running = append(running, statuspage.Sync{Name: y.Name, Halted: s.halted})
			}
			return running
		},
		Sync: func(_ context.Context, name string) error { s.note("sync %s", name); return nil },
		Reindex: func(_ context.Context, r statuspage.Reindex) (int, error) {
			s.note("reindex %+v", r)
			return 1, nil
		},
		Estimate: func(ctx context.Context, r statuspage.Reindex) (int, int64, error) {
			y, err := s.store.Syncs.Get(ctx, r.Sync)
			if err != nil {
				return 0, 0, err
			}
			selection := state.Selection{}
			if r.Retry {
				selection.States = []state.DocumentState{state.Failed, state.Stuck, state.Uncertain}
			}
			if r.Key != "" {
				selection.Keys = []string{r.Key}
			}
			return s.store.Queue.CountSelected(ctx, y.ID, selection)
		},
		Ack: func(ctx context.Context, a statuspage.Ack) (int, error) {
			s.note("ack %+v", a)
			return s.store.Inventory.MarkSourcesGone(ctx, a.Destination, a.IDs)
		},
		Reload: func(context.Context) error { return nil },
	}
	if change != nil {
		change(&options)
	}
	s.page, err = statuspage.New(options)
	s.must(err)
	s.page.Loop("scan handbook", time.Hour)
	s.page.Loop("upload handbook", time.Hour)
	l, err := statuspage.Listen(t.Context(), "127.0.0.1:0")
	s.must(err)
	s.serve(l)
	return s
}

func (s *site) serve(l net.Listener) {
	s.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- statuspage.Serve(ctx, l, s.page, nil) }()
	s.Cleanup(func() {
		cancel()
		s.must(<-ended)
	})
}

func (s *site) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
}

// called returns the calls of triggers since the last time.
func (s *site) called() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.calls, "; ")
	s.calls = nil
	return all
}

func (s *site) sync(name string) state.Sync {
	s.Helper()
	y, err := s.store.Syncs.Ensure(s.Context(), name, "/srv/"+name, state.Destination{Origin: "https://api.reply.cx", Account: "51", KnowledgeBase: 876}, false)
	s.must(err)
	return y
}

// put records a complete scan in which keys are new or changed, and the vanished keys are gone.
func (s *site) put(y state.Sync, keys []string, vanished ...string) {
	s.Helper()
	scan, err := s.store.Scans.Begin(s.Context(), y.ID, "")
	s.must(err)
	s.scan++
	var changes []state.Change
	for i, key := range keys {
		changes = append(changes, state.Change{Op: state.Put, Key: key, Fingerprint: state.Fingerprint{Size: 20000 + int64(i), MTime: s.scan, CTime: s.scan, Inode: uint64(s.scan)<<32 + uint64(i)}})
	}
	for _, key := range vanished {
		changes = append(changes, state.Change{Op: state.Vanish, Key: key})
	}
	s.must(s.store.Scans.Record(s.Context(), scan, changes))
	_, err = s.store.Scans.Finish(s.Context(), scan, "1:2")
	s.must(err)
}

// seal seals a batch of up to limit pending documents, each with a content of its own.
func (s *site) seal(y state.Sync, limit int) (batch *state.Upload, documents int) {
	s.Helper()
	docs, err := s.store.Queue.Claim(s.Context(), y.ID, limit)
	s.must(err)
	var hashed []state.HashedDocument
	var seals []state.Seal
	for _, d := range docs {
		sha := sha256.Sum256(fmt.Append(nil, y.Name, d.Key, d.Fingerprint.MTime))
		hashed = append(hashed, state.HashedDocument{ClaimedDocument: d, SHA256: sha, Size: d.Fingerprint.Size})
		seals = append(seals, state.Seal{SHA256: sha, Size: d.Fingerprint.Size})
	}
	_, err = s.store.Queue.Resolve(s.Context(), y.ID, hashed, state.Sharing{})
	s.must(err)
	batch, err = s.store.Journal.Begin(s.Context(), state.BatchSpec{SyncID: y.ID, Members: docs, Bytes: int64(20000 * len(docs))})
	s.must(err)
	s.must(s.store.Journal.Seal(s.Context(), batch, seals))
	return batch, len(docs)
}

// accept uploads up to limit pending documents, and returns the ids of their sources.
func (s *site) accept(y state.Sync, limit int) (ids []int64) {
	s.Helper()
	batch, n := s.seal(y, limit)
	a := state.Answer{StatusCode: 200, NextPoll: time.Now()}
	for range n {
		a.Sources = append(a.Sources, []state.SourceAnswer{{ID: s.next, Type: "file", Name: "x", Status: "in-progress"}})
		ids = append(ids, s.next)
		s.next++
	}
	_, err := s.store.Journal.Accept(s.Context(), batch, a)
	s.must(err)
	return ids
}

func (s *site) trained(y state.Sync, outcome state.Outcome, reason string, ids ...int64) {
	s.Helper()
	due, err := s.store.Inventory.DueSources(s.Context(), y.Destination.ID, 24*time.Hour, 10000)
	s.must(err)
	earlier := map[int64]int{}
	for _, d := range due {
		earlier[d.ID] = d.Polls
	}
	var polls []state.Poll
	for _, id := range ids {
		polls = append(polls, state.Poll{SourceID: id, Polls: earlier[id], Status: "completed", Outcome: outcome, Errors: reason, NextPoll: time.Now()})
	}
	s.must(s.store.Inventory.RecordPolls(s.Context(), y.Destination.ID, polls))
}

// complete uploads and trains up to limit pending documents.
func (s *site) complete(y state.Sync, limit int) {
	s.Helper()
	s.trained(y, state.TrainingCompleted, "", s.accept(y, limit)...)
}

// topics give the keys of a handbook.
var topics = []string{"care/descaling", "care/water-hardness", "orders/gift-cards", "orders/invoices-and-vat", "products/bw-duo", "returns/thirty-day-trial",
	"shipping/click-and-collect", "troubleshooting/grinder-jams", "warranty/wear-parts", "workshop/loan-machines"}

// handbook returns keys of documents.
func handbook(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%s-%04d.md", topics[i%len(topics)], i))
	}
	return keys
}

// troubled fills a sync with documents, and with everything that needs a person.
func (s *site) troubled(name string, documents int) state.Sync {
	s.Helper()
	y := s.sync(name)
	keys := handbook(documents)
	s.put(y, keys)
	for left := documents; left > 0; left -= 500 {
		s.complete(y, 500)
	}
	s.put(y, keys[:4], keys[5], keys[6])
	s.complete(y, 10) // four superseded, two orphaned
	s.put(y, []string{"products/Scanned price list.pdf", "products/catalogue.json", `<script>alert("1")</script>.md`, "evil\u202Efdp.exe.md"})
	s.trained(y, state.TrainingFailed, "no text in it; <b>scan</b> it with OCR", s.accept(y, 10)...)
	s.put(y, []string{"workshop/stuck.md"})
	s.trained(y, state.TrainingStuck, "", s.accept(y, 10)...)
	s.put(y, []string{"orders/change or cancel an order.md"})
	batch, _ := s.seal(y, 10)
	_, err := s.store.Journal.MarkUncertain(s.Context(), batch, 502, "bad gateway")
	s.must(err)
	s.put(y, []string{"warranty/Guarantee card.pdf"})
	docs, err := s.store.Queue.Claim(s.Context(), y.ID, 10)
	s.must(err)
	s.must(s.store.Queue.Block(s.Context(), docs, []string{"it is a web page under the name of a PDF"}))
	s.put(y, []string{"new/one.md", "new/two.md"})
	now := time.Now()
	for i := range 150 {
		x := state.Sample{At: now.Add(time.Duration(i-150) * 7 * time.Minute), Completed: documents*2/3 + documents*i/450, Skipped: 1}
		if i%20 > 12 {
			x.Waiting, x.Training, x.Lag, x.Trained = 20-i%20, i%7, time.Duration(i%20-12)*3*time.Minute, 3
			x.TrainingTime = time.Duration(i%11+20) * 3 * time.Second
		}
		if i > 100 {
			x.Troubled = 4
		}
		s.must(s.store.Syncs.AddSample(s.Context(), y.ID, x))
	}
	return y
}
