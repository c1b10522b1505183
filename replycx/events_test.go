package replycx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

const knownDelivery = `{"token":"hook-token","events":[{
  "event":{"type":"conversation_create","payload":{
    "assigned_to_user":{"email":"bot@example.com","id":"","type":"bot"},
    "created_at":"2023-10-30 11:37:48.556421","title":"Visitor - A7184","bot_id":7752,
    "channel":{"name":1,"provider":0},"is_new_visitor":false,"is_closed":0,
    "external_key":"7f984da9a15b4bceb512ecad8ca461051693283267","browser":"Chrome 116 (116.0.0.0)",
    "variables":[{"type":"text","name":"bot_name","value":"All Dialogs"},
      {"type":"date","name":"conversation_created_at","value":"2023-08-29T04:27:48.183000+00:00"}]}},
  "conversation":{"key":"42bb83f00d8240e5bb41290a12eb4440"}},
 {"event":{"type":"brand_new","payload":[1,2]}}, 7]}`

func handler(t testing.TB, handle func(context.Context, replycx.Event) error, opts replycx.EventHandlerOptions) *replycx.EventHandler {
	t.Helper()
	h, err := replycx.NewEventHandler("hook-token", handle, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestEventHandler(t *testing.T) {
	var events []replycx.Event
	h := handler(t, func(_ context.Context, e replycx.Event) error { events = append(events, e); return nil }, replycx.EventHandlerOptions{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(knownDelivery)))
	var answer struct {
		OK    bool
		Token string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 || !answer.OK || answer.Token != "hook-token" {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	created := *e.Created
	if created.AssigneeType != "bot" || created.BotID != 7752 || created.ChannelName != 1 || created.NewVisitor || created.Closed ||
		created.Title != "Visitor - A7184" || len(created.Variables) != 2 || created.Variables[0] != (replycx.EventVariable{Type: "text", Name: "bot_name", Value: "All Dialogs"}) {
		t.Errorf("created %+v", created)
	}
	if e.Type != replycx.EventConversationCreate || e.ConversationKey != "42bb83f00d8240e5bb41290a12eb4440" || !json.Valid(e.Raw) || !bytes.Contains(e.Payload, []byte("external_key")) {
		t.Errorf("event %+v", e)
	}
	for _, text := range []string{created.CreatedAt, created.Variables[1].Value} {
		if at, err := replycx.ParseTime(text); err != nil || at.Year() != 2023 {
			t.Errorf("%q is %v, %v", text, at, err)
		}
	}
	if e := events[1]; e.Type != "brand_new" || e.Created != nil || string(e.Payload) != "[1,2]" {
		t.Errorf("unknown event %+v", e)
	}
	if e := events[2]; e.Type != "" || string(e.Raw) != "7" {
		t.Errorf("event of a malformed element: %+v", e)
	}
}

func TestEventHandlerRefuses(t *testing.T) {
	tests := []struct {
		name, method, target, body string
		header                     http.Header
		opts                       replycx.EventHandlerOptions
		status, events             int
	}{
		{"token in the body", "POST", "/", `{"token":"hook-token","events":[{}]}`, nil, replycx.EventHandlerOptions{}, 200, 1},
		{"token in a header", "POST", "/", `{"events":[{}]}`, http.Header{"Token": {"hook-token"}}, replycx.EventHandlerOptions{}, 200, 1},
		{"token in a header of one's own", "POST", "/", `{"events":[{}]}`, http.Header{"X-Hook": {"hook-token"}}, replycx.EventHandlerOptions{TokenHeader: "X-Hook"}, 200, 1},
		{"bearer token", "POST", "/", `{"events":[{}]}`, http.Header{"Authorization": {"Bearer hook-token"}}, replycx.EventHandlerOptions{}, 200, 1},
		{"bare authorization", "POST", "/", `{"events":[{}]}`, http.Header{"Authorization": {"hook-token"}}, replycx.EventHandlerOptions{}, 200, 1},
		{"token in the query, allowed", "POST", "/?key=hook-token", `{"events":[{}]}`, nil, replycx.EventHandlerOptions{TokenQuery: "key"}, 200, 1},
		{"handshake without a body", "POST", "/", ``, http.Header{"Token": {"hook-token"}}, replycx.EventHandlerOptions{}, 200, 0},
		{"handshake", "POST", "/", `{"token":"hook-token"}`, nil, replycx.EventHandlerOptions{}, 200, 0},
		{"token in the query, not allowed", "POST", "/?key=hook-token", `{"events":[{}]}`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"no token", "POST", "/", `{"events":[{}]}`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"wrong token", "POST", "/", `{"token":"hook-toker","events":[{}]}`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"a part of the token", "POST", "/", `{"token":"hook","events":[{}]}`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"token that is no text", "POST", "/", `{"token":["hook-token"],"events":[{}]}`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"no JSON, no token", "POST", "/", `<xml>`, nil, replycx.EventHandlerOptions{}, 401, 0},
		{"no JSON", "POST", "/", `<xml>`, http.Header{"Token": {"hook-token"}}, replycx.EventHandlerOptions{}, 400, 0},
		{"too large", "POST", "/", strings.Repeat(" ", replycx.MaxEventBody+1), http.Header{"Token": {"hook-token"}}, replycx.EventHandlerOptions{}, 413, 0},
		{"GET", "GET", "/", ``, http.Header{"Token": {"hook-token"}}, replycx.EventHandlerOptions{}, 405, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			var log bytes.Buffer
			tt.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
			h := handler(t, func(context.Context, replycx.Event) error { n++; return nil }, tt.opts)
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			for k, v := range tt.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status || n != tt.events {
				t.Errorf("status %d, %d events; want %d, %d", w.Code, n, tt.status, tt.events)
			}
			if refused := log.Len() > 0; refused != (tt.status != 200) || strings.Contains(log.String(), "hook-token") {
				t.Errorf("log %q", log.String())
			}
			if tt.status != 200 && strings.Contains(w.Body.String(), "hook-token") {
				t.Errorf("the answer contains the token: %s", w.Body)
			}
		})
	}
	h := handler(t, func(context.Context, replycx.Event) error { return errors.New("disk full") }, replycx.EventHandlerOptions{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(knownDelivery)))
	if w.Code != 500 || strings.Contains(w.Body.String(), "disk full") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	if _, err := replycx.NewEventHandler("", func(context.Context, replycx.Event) error { return nil }, replycx.EventHandlerOptions{}); err == nil {
		t.Error("a handler without a token was made")
	}
	if _, err := replycx.NewEventHandler("t", nil, replycx.EventHandlerOptions{}); err == nil {
		t.Error("a handler without a function was made")
	}
}

// TestWebhookEndToEnd sets the webhook to a handler and changes a conversation in the
// emulator: each event arrives. With another token the handshake fails.
func TestWebhookEndToEnd(t *testing.T) {
	for _, in := range []string{"", "body", "header", "authorization"} {
		t.Run("token in "+in, func(t *testing.T) {
			e, c := serve(t, emulator.Options{Webhook: emulator.WebhookOptions{TokenIn: in, Retry: time.Millisecond}}, replycx.Options{})
			var mu sync.Mutex
			var got []replycx.EventType
			h := handler(t, func(_ context.Context, e replycx.Event) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, e.Type)
				if e.Type == replycx.EventConversationCreate && (e.Created == nil || e.Created.AssigneeEmail != agent || e.Created.ExternalKey != e.ConversationKey) {
					t.Errorf("created %+v", e.Created)
				}
				return nil
			}, replycx.EventHandlerOptions{})
			server := httptest.NewServer(h)
			defer server.Close()
			hook := replycx.Webhook{URL: server.URL, Events: replycx.EventTypes(), Token: "another"}
			if err := c.SetWebhook(t.Context(), hook); err == nil {
				t.Error("a webhook with another token was accepted")
			}
			hook.Token = "hook-token"
			if err := c.SetWebhook(t.Context(), hook); err != nil {
				t.Fatal(err)
			}
			conversation, err := c.CreateConversation(t.Context(), sms(nil))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.SendMessage(t.Context(), conversation.ID, agent, replycx.Message{Text: "Hello"}); err != nil {
				t.Error(err)
			}
			if err := c.AssignToUser(t.Context(), conversation.ID, agent, "another@example.com"); err != nil {
				t.Error(err)
			}
			if err := c.UpdateVariables(t.Context(), conversation.ID, []replycx.Variable{{Name: "a", Type: replycx.ContactVariable, Value: "b"}}); err != nil {
				t.Error(err)
			}
			if err := c.CloseConversation(t.Context(), conversation.ID, agent); err != nil {
				t.Error(err)
			}
			if err := e.Delivered(t.Context()); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(got) != "[conversation_create message assignee_change variables status]" {
				t.Errorf("events %v", got)
			}
		})
	}
}

// FuzzWebhookBody: the handler accepts events only with the right token, and each
// element of an accepted delivery is one event.
func FuzzWebhookBody(f *testing.F) {
	for _, s := range append(answerSeeds, knownDelivery, `{"token":"hook-token","events":[]}`, `{"token":"hook-token","events":[{"event":{"type":7,"payload":{"bot_id":{}}}}]}`,
		`{"token":"hook-token","events":[{"event":{"type":"conversation_create","payload":{"is_closed":1,"variables":{}}}}]}`) {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, withToken bool) {
		var got []replycx.Event
		h := handler(t, func(_ context.Context, e replycx.Event) error { got = append(got, e); return nil }, replycx.EventHandlerOptions{})
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		if withToken {
			r.Header.Set("token", "hook-token")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !withToken && w.Code == 200 && !bytes.Contains(body, []byte("oken")) {
			t.Errorf("%q was let in", body)
		}
		if w.Code != 200 && len(got) > 0 {
			t.Errorf("%d events with status %d", len(got), w.Code)
		}
		for _, e := range got {
			if !json.Valid(e.Raw) {
				t.Errorf("raw %q", e.Raw)
			}
		}
		_ = fmt.Sprint(got)
	})
}
