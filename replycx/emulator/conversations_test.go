package emulator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// receiver receives the requests of a webhook. It records them and returns the token,
// or fails as often as failures says.
type receiver struct {
	mu       sync.Mutex
	bodies   []string
	tokens   []string
	failures int // the number of requests that get 500
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	data, _ := io.ReadAll(req.Body)
	var body struct{ Token string }
	_ = json.Unmarshal(data, &body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		r.failures--
		w.WriteHeader(500)
		return
	}
	r.bodies = append(r.bodies, string(data))
	r.tokens = append(r.tokens, strings.Join([]string{body.Token, req.Header.Get("token"), req.Header.Get("Authorization"), req.URL.Query().Get("token")}, "|"))
	fmt.Fprintf(w, `{"token":%q}`, "hook-token")
}

func subscribe(t *testing.T, url, token, target string, events ...string) (int, string) {
	t.Helper()
	var list []map[string]any
	for _, e := range events {
		list = append(list, map[string]any{"key": e, "is_subscribed": true})
	}
	body, _ := json.Marshal(map[string]any{"webhook_url": target, "subscribed_events": list, "is_enabled": true, "token": "hook-token"})
	return call(t, "POST", url+"/v1/accounts/51/webhook", token, "application/json", strings.NewReader(string(body)))
}

func post(t *testing.T, url, token, body string) string {
	t.Helper()
	status, answer := call(t, "POST", url, token, "application/json", strings.NewReader(body))
	if status != 200 {
		t.Fatalf("%s: %d %s", url, status, answer)
	}
	return answer
}

// TestConversationAndWebhookSurviveARestart changes a conversation, with a webhook that
// fails at first, and restarts the emulator.
func TestConversationAndWebhookSurviveARestart(t *testing.T) {
	hook := &receiver{}
	server := httptest.NewServer(hook)
	defer server.Close()
	opts := emulator.Options{File: filepath.Join(t.TempDir(), "e"), Webhook: emulator.WebhookOptions{Retry: time.Millisecond}}
	e, url := start(t, opts)
	token := e.Token(51)
	if status, body := subscribe(t, url, token, server.URL, "conversation_create", "message", "status", "assignee_change"); status != 200 {
		t.Fatal(status, body)
	}
	hook.mu.Lock()
	hook.failures = 2
	hook.mu.Unlock()
	var created struct{ Conversation struct{ ID string } }
	answer := post(t, url+"/v1/conversations", token, `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"2","name":"New"},"message":{"type":"text","data":{"body":"Hi"}},"assignee":"agent@example.com"}`)
	if err := json.Unmarshal([]byte(answer), &created); err != nil || created.Conversation.ID == "" {
		t.Fatal(answer)
	}
	id := created.Conversation.ID
	post(t, url+"/api/v1/conversation/"+id+"/messages", token, `{"message":{"type":"text","text":"Hello"},"user":{"by":"agent@example.com"}}`)
	post(t, url+"/api/v1/conversation/"+id+"/events", token, `{"event":"assignee","team":{"by":"agent@example.com","to":"Sales"}}`)
	post(t, url+"/v1/accounts/51/conversations/"+id+"/variables", token, `{"variables":[{"name":"name","type":"contact","value":"Newer"}]}`) // not subscribed
	post(t, url+"/api/v1/conversation/"+id+"/events", token, `{"event":"status","status":"CLOSE","user":{"by":"agent@example.com"}}`)
	post(t, url+"/api/v1/conversation/"+id+"/events", token, `{"event":"status","status":"CLOSE","user":{"by":"agent@example.com"}}`) // once more
	if status, _ := call(t, "POST", url+"/api/v1/conversation/"+id+"/messages", token, "application/json", strings.NewReader(`{"message":{"type":"text","text":"x"},"user":{"by":"agent@example.com"}}`)); status != 400 {
		t.Errorf("a message in a closed conversation: %d", status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Delivered(ctx); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range e.Deliveries() {
		kinds = append(kinds, fmt.Sprint(d.Type, " ", d.Attempts, " ", d.Status, d.Err))
	}
	if got := fmt.Sprint(kinds); got != "[conversation_create 3 200 message 1 200 assignee_change 1 200 status 1 200]" {
		t.Errorf("deliveries %s", got)
	}
	hook.mu.Lock()
	if len(hook.bodies) != 5 || !strings.Contains(hook.bodies[1], `"type":"conversation_create"`) || !strings.Contains(hook.bodies[1], id) ||
		strings.Contains(hook.bodies[1], "invented") || !strings.Contains(hook.bodies[2], `"invented_by_emulator":true`) || hook.tokens[1] != "hook-token|hook-token||" {
		t.Errorf("received %v, tokens %v", hook.bodies, hook.tokens)
	}
	hook.mu.Unlock()

	before := fmt.Sprint(e.Conversations())
	_ = e.Close()
	e, url = start(t, opts)
	if after := fmt.Sprint(e.Conversations()); after != before || !strings.Contains(after, "contact/name:Newer") || !strings.Contains(after, "Sales true 2") {
		t.Errorf("before the restart %s\nafter %s", before, after)
	}
	post(t, url+"/v1/conversations", token, `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"2"},"message":{"type":"text","text":"Hi"}}`)
	if err := e.Delivered(ctx); err != nil {
		t.Fatal(err)
	}
	if d := e.Deliveries(); len(d) != 1 || d[0].Status != 200 {
		t.Errorf("the webhook did not survive the restart: %v", d)
	}
}

func TestWebhookToken(t *testing.T) {
	for in, want := range map[string]string{"": "hook-token|hook-token||", "body": "hook-token|||", "header": "|hook-token||", "authorization": "||Bearer hook-token|", "query": "|||hook-token"} {
		hook := &receiver{}
		server := httptest.NewServer(hook)
		e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{TokenIn: in}})
		if status, body := subscribe(t, url, e.Token(51), server.URL+"/?a=b"); status != 200 || hook.tokens[0] != want {
			t.Errorf("%q: %d %s, token %v, want %s", in, status, body, hook.tokens, want)
		}
		server.Close()
	}
}

func TestWebhookHandshake(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no token back": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"an error":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401); fmt.Fprint(w, "hook-token") },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		server := httptest.NewServer(answer)
		e, url := start(t, emulator.Options{})
		if status, body := subscribe(t, url, e.Token(51), server.URL); status != 400 || !strings.Contains(body, "WEBHOOK_NOT_VERIFIED") {
			t.Errorf("%s: %d %s", name, status, body)
		}
		server.Close()
	}
	e, url := start(t, emulator.Options{})
	if status, _ := subscribe(t, url, e.Token(51), "no url"); status != 400 {
		t.Errorf("no URL: %d", status)
	}
}

// TestDeliveryEndsAfterFourAttempts: the next delivery follows a failed one.
func TestDeliveryEndsAfterFourAttempts(t *testing.T) {
	hook := &receiver{failures: 4}
	server := httptest.NewServer(hook)
	defer server.Close()
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true, Retry: time.Millisecond}})
	subscribe(t, url, e.Token(51), server.URL, "note", "sla_breached")
	for _, kind := range []string{"note", "sla_breached"} {
		post(t, url+"/_emulator/events", "", `{"account":51,"conversation":"12wfegrgt4t","type":"`+kind+`","payload":{"text":"x"}}`)
	}
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := e.Deliveries(); len(d) != 2 || d[0].Attempts != 4 || d[0].Status != 500 || d[0].Err == "" || d[1].Attempts != 1 || d[1].Err != "" {
		t.Errorf("deliveries %+v", d)
	}
}

func TestCloseWhileDelivering(t *testing.T) {
	block := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices a closed client only after the body
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(block)
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
	subscribe(t, url, e.Token(51), server.URL, "note")
	post(t, url+"/_emulator/events", "", `{"account":51,"type":"note"}`)
	began := time.Now()
	if err := e.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("closed after %v with %v", time.Since(began), err)
	}
	if err := e.Delivered(t.Context()); err == nil {
		t.Error("a closed emulator reports its deliveries as finished")
	}
}

func TestControl(t *testing.T) {
	e, url := start(t, emulator.Options{})
	status, body := call(t, "PUT", url+"/_emulator/faults", "", "", strings.NewReader("faults: [{operation: status, status: 503}]"))
	if status != 200 || body != `{"ok":true,"rules":1}` {
		t.Errorf("%d %s", status, body)
	}
	ask := func() int {
		status, _ := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids=0", e.Token(51), "", nil)
		return status
	}
	if got := ask(); got != 503 {
		t.Errorf("status %d with the fault", got)
	}
	if status, body := call(t, "PUT", url+"/_emulator/faults", "", "", strings.NewReader("faults: [{at: never}]")); status != 400 || !strings.Contains(body, "unknown place") || ask() != 503 {
		t.Errorf("%d %s", status, body)
	}
	call(t, "DELETE", url+"/_emulator/faults", "", "", nil)
	if got := ask(); got != 200 {
		t.Errorf("status %d without the fault", got)
	}
	upload(t, url, e.Token(51), 876, formPart{"a", "a.md", "hello"})
	if _, body := call(t, "GET", url+"/_emulator/counts", "", "", nil); body != `{"accepted_bytes":5,"accepted_parts":1,"accepted_uploads":1,"requests":{"status":3,"upload":1},"sources_held":1,"statuses":3,"uploads":1}` {
		t.Errorf("counts %s", body)
	}
	if _, body := call(t, "GET", url+"/_emulator/accepted", "", "", nil); !strings.Contains(body, `"sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"`) {
		t.Errorf("accepted %s", body)
	}
	if _, body := call(t, "GET", url+"/_emulator/token/51", "", "", nil); !strings.Contains(body, e.Token(51)) {
		t.Errorf("token %s", body)
	}
	if status, _ := call(t, "POST", url+"/_emulator/events", "", "", strings.NewReader("{}")); status != 400 {
		t.Errorf("an event without a type: %d", status)
	}
}

// TestControlRefusesOthers: pages of other sites, foreign names that resolve to this
// machine, and other machines without a token.
func TestControlRefusesOthers(t *testing.T) {
	e, err := emulator.New(emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"same machine", func(*http.Request) {}, 200},
		{"same site", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:80") }, 200},
		{"another site's page", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"another site's page by its mark", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"another site's page with a token", func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Authorization", "Bearer "+e.Token(51))
		}, 403},
		{"a foreign name for this machine", func(r *http.Request) { r.Host = "evil.example:80" }, 403},
		{"another machine", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" }, 403},
		{"another machine with a token", func(r *http.Request) {
			r.RemoteAddr = "192.0.2.1:5"
			r.Header.Set("Authorization", "Bearer "+e.Token(51))
		}, 200},
	}
	for _, tt := range tests {
		for _, path := range []string{
			"/", "/_emulator/counts", "/_emulator/token/51", "/_emulator/openapi.json", "/_emulator/snapshot", "/_emulator/clock", "/_emulator/webhooks",
		} {
			r := httptest.NewRequest("GET", "http://127.0.0.1:80"+path, nil)
			r.RemoteAddr = "127.0.0.1:5"
			tt.change(r)
			w := httptest.NewRecorder()
			e.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("%s: %s: %d, want %d", tt.name, path, w.Code, tt.status)
			}
		}
	}
}

// TestPage: the page shows sources, conversations with their messages, webhooks and
// deliveries, and escapes all names.
func TestPage(t *testing.T) {
	hook := httptest.NewServer(&receiver{})
	defer hook.Close()
	e, url := start(t, emulator.Options{Train: -1, Webhook: emulator.WebhookOptions{NoHandshake: true}})
	upload(t, url, e.Token(51), 876, formPart{"a", "<script>alert(1).md", "hello"}, formPart{"b", "empty.md", ""}, formPart{"c", "gone.md", "x"})
	if err := e.Remove(330785); err != nil {
		t.Fatal(err)
	}
	_, body := call(t, "GET", url+"/", "", "", nil)
	for _, want := range []string{
		"Knowledge base 876", "&lt;script&gt;alert(1).md", "failed: The file is empty", "1 completed", "1 removed", "It has no sources yet.",
		"12wfegrgt4t", "held-by-bot", "No account has set a webhook yet.", "No event was delivered yet.",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	subscribe(t, url, e.Token(51), hook.URL+"/?<script>", "message")
	post(t, url+"/api/v1/conversation/12wfegrgt4t/messages", e.Token(51), `{"message":{"type":"text","text":"<script>Good morning"},"user":{"by":"agent@example.com"}}`)
	post(t, url+"/v1/accounts/51/conversations/12wfegrgt4t/variables", e.Token(51), `{"variables":[{"name":"<script>","type":"contact","value":"<script>blue"}]}`)
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Advance(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := e.Replay(1); err != nil {
		t.Fatal(err)
	}
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, page := call(t, "GET", url+"/", "", "", nil)
	for _, want := range []string{
		"agent@example.com: <code>", "Good morning", "contact/&lt;script&gt; = &lt;script&gt;blue", hook.URL + "/?&lt;script&gt;", "<td>message",
		"(replay of 1)", `action="/_emulator/webhooks/replay?id=2"`, "advanced by 1h0m0s",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(body+page, "<script") {
		t.Error("a name is not escaped")
	}
}

func TestConversationRefusals(t *testing.T) {
	e, url := start(t, emulator.Options{})
	for _, tt := range []struct{ name, path, body, words string }{
		{"create, nothing", "/v1/conversations", `{}`, `"channel":["Missing`},
		{"create, no JSON", "/v1/conversations", `<`, `not the expected JSON`},
		{"create, message of no kind", "/v1/conversations", `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"1"},"message":{"type":"song"}}`, `type is not text`},
		{"message, no JSON", "/api/v1/conversation/12wfegrgt4t/messages", `<`, "INVALID_DATA"},
		{"message, unknown agent", "/api/v1/conversation/12wfegrgt4t/messages", `{"message":{"type":"text","text":"x"},"user":{"by":"x@example.com"}}`, "has no such user"},
		{"message, empty template", "/api/v1/conversation/12wfegrgt4t/messages", `{"message":{"type":"template","data":{}},"user":{"by":"agent@example.com"}}`, "no name"},
		{"event of no kind", "/api/v1/conversation/12wfegrgt4t/events", `{"event":"dance"}`, "INVALID_DATA"},
		{"event, reopening", "/api/v1/conversation/12wfegrgt4t/events", `{"event":"status","status":"OPEN","user":{"by":"agent@example.com"}}`, "INVALID_DATA"},
		{"event, unknown agent", "/api/v1/conversation/12wfegrgt4t/events", `{"event":"assignee","user":{"by":"agent@example.com","to":"x@example.com"}}`, "INVALID_DATA"},
		{"variables, no list", "/v1/accounts/51/conversations/12wfegrgt4t/variables", `{"variables":7}`, "Not a valid list"},
		{"variables, of no type", "/v1/accounts/51/conversations/12wfegrgt4t/variables", `{"variables":[{"name":"a","type":"x","value":"b"}]}`, "Each needs"},
	} {
		status, body := call(t, "POST", url+tt.path, e.Token(51), "application/json", strings.NewReader(tt.body))
		if status != 400 || !strings.Contains(body, tt.words) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
	}
	// Another account does not see the conversation.
	if status, _ := call(t, "POST", url+"/api/v1/conversation/12wfegrgt4t/messages", e.Token(52), "application/json", strings.NewReader(`{}`)); status != 404 {
		t.Errorf("another account's conversation: %d", status)
	}
	if status, body := call(t, "GET", url+"/v1/accounts/52/bots", e.Token(51), "", nil); status != 401 || !strings.Contains(body, "UNAUTHORIZED") {
		t.Errorf("another account's bots: %d %s", status, body)
	}
	if _, body := call(t, "GET", url+"/v1/accounts/52/bots", e.Token(52), "", nil); body != `{"bots":[],"ok":true}` {
		t.Errorf("no bots: %s", body)
	}
}

// TestCloseAndAssignAreDistinguished: closing and assigning share a path, but faults
// and counts distinguish them.
func TestCloseAndAssignAreDistinguished(t *testing.T) {
	e, url := start(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{Operation: emulator.OpAssign, Status: 503, At: emulator.Middle}}}})
	const path = "/api/v1/conversation/12wfegrgt4t/events"
	assign, _ := call(t, "POST", url+path, e.Token(51), "", strings.NewReader(`{"event":"assignee","team":{"by":"agent@example.com","to":"Sales"}}`))
	closing, _ := call(t, "POST", url+path, e.Token(51), "", strings.NewReader(`{"event":"status","status":"CLOSE","user":{"by":"agent@example.com"}}`))
	counts := e.Counts().Requests
	if assign != 503 || closing != 200 || counts[emulator.OpAssign] != 1 || counts[emulator.OpClose] != 1 {
		t.Errorf("assign %d, close %d, counts %v", assign, closing, counts)
	}
}
