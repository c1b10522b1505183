package emulator_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// TestReplay replays a failed delivery to the webhook that was repaired meanwhile.
func TestReplay(t *testing.T) {
	broken := httptest.NewServer(http.NotFoundHandler())
	defer broken.Close()
	hook := &receiver{}
	repaired := httptest.NewServer(hook)
	defer repaired.Close()
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true, Retry: time.Millisecond}})
	subscribe(t, url, e.Token(51), broken.URL, "note")
	post(t, url+"/_emulator/events", "", `{"account":51,"conversation":"12wfegrgt4t","type":"note","payload":{"text":"x"}}`)
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	subscribe(t, url, e.Token(51), repaired.URL, "message")
	if answer := post(t, url+"/_emulator/webhooks/replay?id=1", "", ""); answer != `{"ok":true}` {
		t.Error(answer)
	}
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := e.Deliveries()
	if len(list) != 2 {
		t.Fatalf("deliveries %+v", list)
	}
	first, second := list[0], list[1]
	if first.ID != 1 || first.Status != 404 || first.Attempts != 4 || first.URL != broken.URL || first.ReplayOf != 0 {
		t.Errorf("first %+v", first)
	}
	if second.ID != 2 || second.Status != 200 || second.Attempts != 1 || second.URL != repaired.URL || second.ReplayOf != 1 ||
		second.Type != "note" || second.Conversation != "12wfegrgt4t" || string(second.Body) != string(first.Body) {
		t.Errorf("second %+v", second)
	}
	if len(hook.bodies) != 1 || !strings.Contains(hook.bodies[0], `"text":"x"`) || hook.tokens[0] != "hook-token|hook-token||" {
		t.Errorf("the receiver got %v with %v", hook.bodies, hook.tokens)
	}

	var listed struct {
		Webhooks   []struct{ URL string }
		Deliveries []emulator.Delivery
	}
	_, body := call(t, "GET", url+"/_emulator/webhooks", "", "", nil)
	if err := json.Unmarshal([]byte(body), &listed); err != nil || len(listed.Webhooks) != 1 || listed.Webhooks[0].URL != repaired.URL ||
		len(listed.Deliveries) != 2 || listed.Deliveries[1].ReplayOf != 1 || strings.Contains(body, "hook-token") {
		t.Errorf("webhooks %s, %v", body, err)
	}

	// The form of the page leads back to the page.
	request := httptest.NewRequest("POST", "http://127.0.0.1/_emulator/webhooks/replay?id=2", nil)
	request.RemoteAddr = "127.0.0.1:5"
	request.Header.Set("Accept", "text/html,*/*")
	recorded := httptest.NewRecorder()
	e.ServeHTTP(recorded, request)
	if recorded.Code != http.StatusSeeOther || recorded.Header().Get("Location") != "/#deliveries" {
		t.Errorf("the page's form: %d %v", recorded.Code, recorded.Header())
	}

	for query, want := range map[string]int{"?id=99": 404, "?id=x": 400, "": 400} {
		if status, body := call(t, "POST", url+"/_emulator/webhooks/replay"+query, "", "", nil); status != want {
			t.Errorf("replay%s: %d %s", query, status, body)
		}
	}
	if err := e.Replay(99); !errors.Is(err, emulator.ErrNoDelivery) {
		t.Errorf("replay of an unknown delivery: %v", err)
	}
	post(t, url+"/v1/accounts/51/webhook", e.Token(51), `{"is_enabled":false}`)
	if err := e.Replay(1); err == nil || errors.Is(err, emulator.ErrNoDelivery) || !strings.Contains(err.Error(), "disabled") {
		t.Errorf("replay to a disabled webhook: %v", err)
	}
}

// TestResetForgetsDeliveries: a delivery that was in progress at a reset is not recorded,
// one that was queued is not sent, and the next one has the id 1.
func TestResetForgetsDeliveries(t *testing.T) {
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer hook.Close()
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
	const event = `{"account":51,"type":"note"}`
	subscribe(t, url, e.Token(51), hook.URL, "note")
	post(t, url+"/_emulator/events", "", event)
	post(t, url+"/_emulator/events", "", event)
	<-arrived
	if err := e.Reset(); err != nil {
		t.Fatal(err)
	}
	subscribe(t, url, e.Token(51), hook.URL, "note")
	post(t, url+"/_emulator/events", "", event)
	close(release)
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := e.Deliveries(); len(list) != 1 || list[0].ID != 1 || len(arrived) != 1 {
		t.Errorf("deliveries %+v, %d arrived after the first", list, len(arrived))
	}
}
