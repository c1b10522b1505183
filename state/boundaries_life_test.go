package state_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
	"github.com/kbsync/kbsync/watcher"
)

// A phase of a life is a tree of documents, and what happens to the uploads of its changes. Each has one batch, so that no other
// request is under way when a fault strikes.
type phase struct {
	name   string
	tree   tree
	faults []emulator.Fault
	// vanish is deleted after the scan, and unreadable cannot be opened.
	vanish, unreadable string
	gone               string // a person has deleted the sources of this content
	// also runs after the scan.
	also func(ctx context.Context, store *state.Store, sync state.Sync) error
}

var phases = []phase{
	{name: "first", tree: tree{"a.md": "one", "b.md": "two", "twin.md": "one", "empty.md": "", "large.md": string(bytes.Repeat([]byte("large\n"), state.HashAhead/6+1))}},
	{
		name: "edits", vanish: "gone.md", unreadable: "locked.md",
		tree: tree{
			"a.md": "one, edited", "renamed.md": "two", "new.md": "three", "gone.md": "four", "locked.md": "five",
			"broken.pdf": "<html>not found</html>",
		},
	},
	{name: "refused", tree: tree{"a.md": "six", "b.md": "seven"}, faults: []emulator.Fault{
		{Operation: emulator.OpUpload, Nth: []int64{1}, At: emulator.Read, Status: 413, Code: "TOO_LARGE"},
		{Operation: emulator.OpUpload, Nth: []int64{2}, Status: 429, RetryAfter: "1"},
	}},
	{name: "back", tree: tree{"a.md": "one, edited", "b.md": "seven"}, faults: []emulator.Fault{
		{Operation: emulator.OpStatus, Nth: []int64{1}, Status: 500},
	}, also: func(ctx context.Context, store *state.Store, sync state.Sync) error {
		_, err := store.Queue.Mark(ctx, sync.ID, state.Selection{Keys: []string{"nothing"}})
		return err
	}},
	{name: "gone", tree: tree{"a.md": "one, edited", "b.md": "seven", "c.md": "one"}, gone: "one"},
	{name: "lost", tree: tree{"a.md": "one, edited", "b.md": "eight"}, faults: []emulator.Fault{
		{Operation: emulator.OpUpload, Nth: []int64{1}, At: emulator.After, Status: 502},
	}},
	{name: "forgotten", tree: tree{"a.md": "one, edited", "b.md": "eight"}, also: func(ctx context.Context, store *state.Store, sync state.Sync) error {
		// A sync that has left the config, of which a process was killed.
		other, err := store.Syncs.Ensure(ctx, "other", "/other", sync.Destination, false)
		if err != nil {
			return err
		}
		if err := leaveClaimed(ctx, store, other); err != nil {
			return err
		}
		if _, err := store.Journal.RecoverUnowned(ctx); err != nil {
			return err
		}
		return store.Syncs.Forget(ctx, other.ID)
	}},
}

var anyNumber = watcher.Limit{Always: 1000}

// leaveClaimed leaves a claimed document, as a process that is killed does.
func leaveClaimed(ctx context.Context, store *state.Store, sync state.Sync) error {
	scan, err := store.Scans.Begin(ctx, sync.ID, "")
	if err == nil {
		err = store.Scans.Record(ctx, scan, []state.Change{{Op: state.Put, Key: "left.md", Fingerprint: state.Fingerprint{Size: 4, MTime: 1}}})
	}
	if err == nil {
		_, err = store.Queue.Claim(ctx, sync.ID, 1)
	}
	return err
}

// A tree is a root in memory: contents by key.
type tree map[string]string

func (r tree) Identity(context.Context) (string, error) { return "tree", nil }

func (r tree) fingerprint(key string) state.Fingerprint {
	sum := sha256.Sum256([]byte(r[key]))
	return state.Fingerprint{Size: int64(len(r[key])), ETag: fmt.Sprintf("%x", sum[:8])}
}

func (r tree) List(_ context.Context, prefix string) iter.Seq2[watcher.Entry, error] {
	return func(yield func(watcher.Entry, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(r)) {
			e := watcher.Entry{Key: key, Fingerprint: r.fingerprint(key)}
			if r[key] == "" {
				e.Skip = "it is empty"
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// An opener opens the documents of a phase. Each Read is a boundary.
type opener struct {
	*phase
	at func(point string) error
}

func (o opener) Open(_ context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	if err := o.at("Root.Open"); err != nil {
		return nil, err
	}
	content, ok := o.tree[key]
	switch {
	case !ok || key == o.vanish:
		return nil, fs.ErrNotExist
	case key == o.unreadable:
		return nil, fs.ErrPermission
	case o.tree.fingerprint(key) != fp:
		return nil, state.ErrChanged
	}
	return &reader{r: bytes.NewReader([]byte(content)), at: o.at}, nil
}

type reader struct {
	r  io.Reader
	at func(point string) error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.at("Reader.Read"); err != nil {
		return 0, err
	}
	return r.r.Read(p[:min(len(p), 100_000)])
}

func (r *reader) Close() error { return r.at("Reader.Close") }

// An api is the client with a boundary before and after each of its calls.
type api struct {
	*replycx.Client
	at func(point string) error
}

func (a api) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	if err := a.at("API.UploadSources before"); err != nil {
		return nil, &replycx.UnsentError{Err: err}
	}
	result, err := a.Client.UploadSources(ctx, kb, parts, opts)
	return result, cmp.Or(a.at("API.UploadSources after"), err)
}

func (a api) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	if err := a.at("API.SourceStatus before"); err != nil {
		return nil, err
	}
	statuses, err := a.Client.SourceStatus(ctx, ids)
	return statuses, cmp.Or(a.at("API.SourceStatus after"), err)
}

// A transport takes requests to the emulator. With a handler it needs no socket, so that the clock of a bubble goes on.
type transport struct {
	handler http.Handler // nil for the network
	at      func(point string) error
}

func (t transport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if t.handler == nil {
		resp, err = http.DefaultTransport.RoundTrip(r)
	} else {
		resp, err = t.serve(r)
	}
	if r.Method == http.MethodPost && err == nil {
		if err = t.at("API.UploadSources complete"); err != nil {
			_ = resp.Body.Close() // the answer is lost
			return nil, err
		}
	}
	return resp, err
}

func (t transport) serve(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if r.Body != nil {
			_ = r.Body.Close() // the client learns that it ended
		}
		if recover() != nil {
			resp, err = nil, io.ErrUnexpectedEOF // the emulator resets the connection by a panic
		}
	}()
	w, body := httptest.NewRecorder(), &brokenBody{ReadCloser: r.Body}
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = body
	}
	t.handler.ServeHTTP(w, r)
	if body.err != nil {
		return nil, body.err // no answer comes back, because the connection is closed
	}
	return w.Result(), nil
}

// A brokenBody keeps the error at which a body broke off.
type brokenBody struct {
	io.ReadCloser
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// A life is the life of a tree: the passes of one process after another over its phases.
type life struct {
	*testing.T
	path     string
	emulator *emulator.Emulator
	token    string
	url      string // of the emulator; empty for requests in memory
	locks    bool   // each pass has the lock of the sync, as a process has it
}

// open opens the state. Every boundary is given to at.
func (l *life) open(ctx context.Context, at func(point string) error) (*state.Store, error) {
	store, err := state.Open(ctx, state.Options{Path: l.path})
	if err != nil {
		return nil, err
	}
	state.Surround(store, func(method string, transact func() error) error {
		if err := at(method + " before"); err != nil {
			return err
		}
		if err := transact(); err != nil {
			return err // a transaction that locks the destination for others too may begin again for itself alone
		}
		return at(method + " after")
	})
	return store, nil
}

// pass is one pass of a process over a phase, as internal/engine makes it.
func (l *life) pass(ctx context.Context, store *state.Store, p *phase, at func(point string) error) (err error) {
	if l.locks {
		lock, err := store.Lock(ctx, "docs", 10*time.Second)
		if err != nil {
			return err
		}
		defer func() { err = cmp.Or(err, lock.Unlock()) }()
	}
	handler, url := http.Handler(nil), l.url
	if url == "" {
		handler, url = l.emulator, "http://127.0.0.1"
	}
	client, err := replycx.New(l.token, replycx.Options{BaseURL: url, HTTPClient: &http.Client{Transport: transport{handler, at}}})
	if err != nil {
		return err
	}
	sync, err := store.Syncs.Ensure(ctx, "docs", "/docs", state.Destination{Origin: "http://127.0.0.1", Account: "51", KnowledgeBase: 876}, false)
	if err != nil {
		return err
	}
	if err := recoverAll(ctx, store, sync); err != nil {
		return err
	}
	if err := store.Scans.SetGate(ctx, sync.ID, true); err != nil {
		return err
	}
	if _, err := store.Queue.ReopenBlocked(ctx, sync.ID); err != nil {
		return err
	}
	if _, err := watcher.NewScanner(p.tree, watcher.ScanOptions{MaxDelete: anyNumber, MaxChange: anyNumber}).Scan(ctx, store.Scans, sync, ""); err != nil {
		return err
	}
	if p.also != nil {
		if err := p.also(ctx, store, sync); err != nil {
			return err
		}
	}
	if err := store.Scans.SetGate(ctx, sync.ID, false); err != nil {
		return err
	}
	lost, err := store.LeaseLost(ctx)
	if err != nil {
		return err
	}
	_, uploadErr := ingest.New(store, api{client, at}, opener{p, at}, sync, ingest.Options{
		Transfers: 1, Checkers: 1, ResendAfter: 10 * time.Millisecond, Patience: 5 * time.Second, PollAfter: time.Millisecond,
		Shared: store.Shared(), Stop: lost, Preflight: preflight.Policy{Documents: preflight.BlockSure},
	}).Run(ctx)
	_, err = tracker.New(store, api{client, at}, sync.Destination, tracker.Options{Min: time.Millisecond, Max: 10 * time.Millisecond}).Run(ctx)
	return errors.Join(uploadErr, err)
}

func recoverAll(ctx context.Context, store *state.Store, sync state.Sync) error {
	_, err := store.Journal.Recover(ctx, sync.ID)
	if err == nil {
		_, err = store.Journal.RecoverUnowned(ctx)
	}
	return err
}
