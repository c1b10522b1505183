package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// A hookRig is a herald with a state, and a webhook that keeps what it is told.
type hookRig struct {
	*herald
	t      *testing.T
	server *httptest.Server
	log    *bytes.Buffer

	mu     sync.Mutex
	told   []string
	status int // of the answers; 0 for 204
	stall  time.Duration
}

func newHookRig(t *testing.T) *hookRig {
	r := &hookRig{t: t, log: &bytes.Buffer{}}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.told = append(r.told, fmt.Sprintf("%s %s %s#%s", req.Method, req.Header.Get("Content-Type"), req.Header.Get("Kbsync-Event"), req.Header.Get("Kbsync-Notice")))
		status, stall := r.status, r.stall
		r.mu.Unlock()
		if stall > 0 {
			select {
			case <-time.After(stall):
			case <-req.Context().Done():
			}
		}
		var n notice
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
	a := &app{out: newOutput(io.Discard, r.log, nil), now: time.Now}
	hook := []string{r.server.URL + "/secret-path"}
	r.herald = &herald{app: a, store: store, sync: s, config: config.Sync{Name: "handbook", Hooks: config.Hooks{OnSuccess: hook, OnFailure: hook, Timeout: 5 * time.Second}}}
	return r
}

func (r *hookRig) answer(status int, stall time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.stall = status, stall
}

// deliver delivers what is due.
func (r *hookRig) deliver(wantLeft bool) {
	r.t.Helper()
	next, err := r.herald.deliver(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if left := !next.IsZero(); left != wantLeft {
		r.t.Fatalf("left to be told is %v, want %v; the log:\n%s", left, wantLeft, r.log)
	}
}

func (r *hookRig) wantTold(want ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		r.t.Fatalf("told %q, want %q", r.told, want)
	}
	r.told = nil
}

func TestWebhookIsCalledUntilItAnswers(t *testing.T) {
	r := newHookRig(t)
	if err := r.observe(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	const success = "POST application/json success#1"
	for _, status := range []int{http.StatusInternalServerError, http.StatusFound, http.StatusNotFound} {
		r.answer(status, 0)
		due, err := r.store.Outbox.Due(t.Context(), r.sync.ID, 1)
		if err != nil || len(due) != 1 {
			t.Fatalf("%d due, %v", len(due), err)
		}
		if err := r.call(t.Context(), r.config.Hooks.OnSuccess, due[0]); err == nil || strings.Contains(err.Error(), "secret-path") {
			t.Fatalf("status %d: %v", status, err)
		}
		r.wantTold(success)
	}
	r.config.Hooks.Timeout = 50 * time.Millisecond
	r.answer(0, 5*time.Second)
	r.deliver(true)
	r.wantTold(success)
	if !strings.Contains(r.log.String(), "it took longer than 50ms") {
		t.Errorf("the log does not say that it took too long:\n%s", r.log)
	}
	r.config.Hooks.Timeout = 5 * time.Second
	r.answer(0, 0)
	if err := r.store.Outbox.Retry(t.Context(), 1, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.deliver(false)
	r.wantTold(success)
	// The same again is no news.
	if err := r.observe(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	r.deliver(false)
	r.wantTold()
}

// Trouble is told once until it has passed, whatever its words.
func TestTroubleIsToldOnce(t *testing.T) {
	r := newHookRig(t)
	for i, trouble := range []error{
		&exitError{exitFatal, errors.New("the token is refused")},
		&exitError{exitFatal, errors.New("the token is refused still")},
		nil,
		&exitError{exitFatal, errors.New("and again")},
		&exitError{exitGuard, errors.New("a guard")},
	} {
		if err := r.observe(t.Context(), trouble, false); err != nil {
			t.Fatal(i, err)
		}
	}
	r.deliver(false)
	r.wantTold("POST application/json failure#1", "POST application/json failure#2", "POST application/json failure#3")
	// A hook that is not there any more has nothing to be told.
	if err := r.observe(t.Context(), errors.New("other"), false); err != nil {
		t.Fatal(err)
	}
	r.config.Hooks.OnFailure = nil
	r.deliver(false)
	r.wantTold()
}

func TestHeartbeat(t *testing.T) {
	r := newHookRig(t)
	dir := t.TempDir()
	b := &beacons{app: r.app, cfg: &config.Config{TouchFile: filepath.Join(dir, "new", "touched")}}
	s := config.Sync{Name: "handbook", HeartbeatURL: r.server.URL + "/secret-path"}
	b.passed(t.Context(), s)
	r.wantTold("GET  #")
	r.answer(http.StatusGone, 0)
	b.passed(t.Context(), s)
	r.server.Close()
	b.passed(t.Context(), s)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	b.passed(ended, s)
	if log := r.log.String(); strings.Count(log, "the heartbeat did not go through") != 2 || strings.Contains(log, "secret-path") {
		t.Errorf("the log:\n%s", log)
	}
}
