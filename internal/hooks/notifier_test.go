package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// A fixture is a notifier with a state, and a webhook that records its requests.
type fixture struct {
	*Notifier
	t      *testing.T
	server *httptest.Server
	log    *bytes.Buffer

	mu     sync.Mutex
	calls  []string
	status int // of the answers; 0 for 204
	stall  time.Duration
}

func newFixture(t *testing.T) *fixture {
	r := &fixture{t: t, log: &bytes.Buffer{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.calls = append(r.calls, fmt.Sprintf("%s %s %s#%s", req.Method, req.Header.Get("Content-Type"), req.Header.Get("Kbsync-Event"), req.Header.Get("Kbsync-Notice")))
		status, stall := r.status, r.stall
		r.mu.Unlock()
		if stall > 0 {
			select {
			case <-time.After(stall):
			case <-req.Context().Done():
			}
		}
		var n message
		if json.Unmarshal(body, &n) != nil && req.Method == http.MethodPost {
			status = http.StatusBadRequest
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(max(status, http.StatusNoContent))
	}))
	t.Cleanup(r.server.Close)
	store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(t.TempDir(), "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Syncs.Ensure(t.Context(), "handbook", "/docs", state.Destination{Origin: "https://api.reply.cx", KnowledgeBase: 876}, false)
	if err != nil {
		t.Fatal(err)
	}
	hook := []string{r.server.URL + "/secret-path"}
	r.Notifier = NewNotifier(store, s, Options{
		Hooks:  config.Hooks{OnSuccess: hook, OnFailure: hook, Timeout: 5 * time.Second},
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	return r
}

func (r *fixture) answer(status int, stall time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.stall = status, stall
}

// wantDelivered delivers the messages that are due.
func (r *fixture) wantDelivered(wantLeft bool) {
	r.t.Helper()
	next, err := r.Deliver(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if left := !next.IsZero(); left != wantLeft {
		r.t.Fatalf("messages are left in the outbox: %v, want %v; the log:\n%s", left, wantLeft, r.log)
	}
}

func (r *fixture) wantCalls(want ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.calls, want) {
		r.t.Fatalf("the webhook was called with %q, want %q", r.calls, want)
	}
	r.calls = nil
}

func TestWebhookIsCalledUntilItAnswers(t *testing.T) {
	r := newFixture(t)
	if err := r.Enqueue(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	const success = "POST application/json success#1"
	for _, status := range []int{http.StatusInternalServerError, http.StatusFound, http.StatusNotFound} {
		r.answer(status, 0)
		due, err := r.store.Outbox.Due(t.Context(), r.sync.ID, 1)
		if err != nil || len(due) != 1 {
			t.Fatalf("%d due, %v", len(due), err)
		}
		if err := r.call(t.Context(), r.opts.Hooks.OnSuccess, due[0]); err == nil || strings.Contains(err.Error(), "secret-path") {
			t.Fatalf("status %d: %v", status, err)
		}
		r.wantCalls(success)
	}
	r.opts.Hooks.Timeout = 50 * time.Millisecond
	r.answer(0, 5*time.Second)
	r.wantDelivered(true)
	r.wantCalls(success)
	if !strings.Contains(r.log.String(), "it took longer than 50ms") {
		t.Errorf("the log does not say that it took too long:\n%s", r.log)
	}
	r.opts.Hooks.Timeout = 5 * time.Second
	r.answer(0, 0)
	if err := r.store.Outbox.Retry(t.Context(), 1, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.wantDelivered(false)
	r.wantCalls(success)
	// The same event is reported once.
	if err := r.Enqueue(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	r.wantDelivered(false)
	r.wantCalls()
}

// A problem is reported once until it is gone, whatever its text.
func TestProblemIsReportedOnce(t *testing.T) {
	r := newFixture(t)
	for i, problem := range []*Problem{
		{Text: "the token is refused", Kind: "fatal", ExitCode: 7},
		{Text: "the token is refused still", Kind: "fatal", ExitCode: 7},
		nil,
		{Text: "and again", Kind: "fatal", ExitCode: 7},
		{Text: "a guard", Kind: "guard", ExitCode: 11},
	} {
		if err := r.Enqueue(t.Context(), problem, false); err != nil {
			t.Fatal(i, err)
		}
	}
	r.wantDelivered(false)
	r.wantCalls("POST application/json failure#1", "POST application/json failure#2", "POST application/json failure#3")
	// The messages of a hook that was removed from the config are dropped.
	if err := r.Enqueue(t.Context(), &Problem{Text: "other", Kind: "other", ExitCode: 1}, false); err != nil {
		t.Fatal(err)
	}
	r.opts.Hooks.OnFailure = nil
	r.wantDelivered(false)
	r.wantCalls()
}

func TestHeartbeatErrorHidesTheURL(t *testing.T) {
	r := newFixture(t)
	url := r.server.URL + "/secret-path"
	if err := Heartbeat(t.Context(), url, "kbsync/test"); err != nil {
		t.Fatal(err)
	}
	r.wantCalls("GET  #")
	r.answer(http.StatusGone, 0)
	gone := Heartbeat(t.Context(), url, "kbsync/test")
	r.server.Close()
	for _, err := range []error{gone, Heartbeat(t.Context(), url, "kbsync/test")} {
		if err == nil || strings.Contains(err.Error(), "secret-path") {
			t.Errorf("got %v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Heartbeat(ended, url, "kbsync/test"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

// A hook is out of order while the trouble of the sync changes again and again. Afterwards the last trouble is reported as well.
func TestAtMostTwentyMessagesWaitForAHook(t *testing.T) {
	r := newFixture(t)
	room := 0
	r.opts.Room = func() { room++ }
	trouble := func(n int) {
		t.Helper()
		if err := r.Enqueue(t.Context(), &Problem{Text: "trouble", Kind: fmt.Sprint(n)}, false); err != nil {
			t.Fatal(err)
		}
	}
	for n := range state.MaxMessages + 5 {
		trouble(n)
	}
	r.wantDelivered(false)
	if calls := len(r.calls); calls != state.MaxMessages || room != 1 {
		t.Fatalf("%d calls, and Room was called %d times", calls, room)
	}
	trouble(state.MaxMessages + 4)
	r.wantDelivered(false)
	if calls := len(r.calls); calls != state.MaxMessages+1 || room != 1 {
		t.Errorf("%d calls after the last trouble, and Room was called %d times", calls, room)
	}
}
