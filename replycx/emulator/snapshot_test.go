package emulator_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx/emulator"
)

const newConversation = `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"1-555"},"message":{"type":"text","text":"Hi"},"assignee":"agent@example.com"}`

// populate makes data of every kind, and a fault, and returns the answers with ids.
func populate(t *testing.T, e *emulator.Emulator, url, hook string) []string {
	t.Helper()
	token := e.Token(51)
	if status, body := subscribe(t, url, token, hook, "message"); status != 200 {
		t.Fatal(status, body)
	}
	upload(t, url, token, 876, formPart{"a", "a.md", "one"}, formPart{"b", "b.pdf", "broken"})
	if err := e.Remove(330783); err != nil {
		t.Fatal(err)
	}
	answers := []string{
		post(t, url+"/v1/conversations", token, newConversation),
		post(t, url+"/v1/conversations", token, newConversation),
		post(t, url+"/api/v1/conversation/12wfegrgt4t/messages", token, `{"message":{"type":"text","text":"Hello"},"user":{"by":"agent@example.com"}}`),
		post(t, url+"/api/v1/conversation/12wfegrgt4t/messages", token, `{"message":{"type":"text","text":"Hello"},"user":{"by":"agent@example.com"}}`),
	}
	post(t, url+"/v1/accounts/51/conversations/12wfegrgt4t/variables", token, `{"variables":[{"name":"a","type":"contact","value":"b"}]}`)
	if err := e.Advance(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := e.Delivered(t.Context()); err != nil {
		t.Fatal(err)
	}
	return answers
}

// fixed is a clock that stands still.
func fixed() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC) }

// TestReset: after a reset the emulator is as a new one, and so is one that opens its
// file. Another one with the same file follows.
func TestReset(t *testing.T) {
	hook := httptest.NewServer(&receiver{})
	defer hook.Close()
	name := filepath.Join(t.TempDir(), "e.jsonl")
	opts := emulator.Options{
		File: name, Now: fixed, Webhook: emulator.WebhookOptions{NoHandshake: true},
		Faults: &emulator.Faults{Rules: []emulator.Fault{{Operation: emulator.OpBots, Nth: []int64{1}, Status: 502}}},
	}
	e, url := start(t, opts)
	other, _ := start(t, opts)
	fresh := snapshot(t, e)
	bots := func() int {
		status, _ := call(t, "GET", url+"/v1/accounts/51/bots", e.Token(51), "", nil)
		return status
	}
	populate(t, e, url, hook.URL)
	if first, second := bots(), bots(); first != 502 || second != 200 {
		t.Errorf("bots %d, then %d", first, second)
	}
	if snapshot(t, e) == fresh || len(e.Accepted()) != 2 || len(e.Deliveries()) != 2 || !e.Now().Equal(fixed().Add(time.Hour)) {
		t.Fatalf("the data is %s", snapshot(t, e))
	}
	if status, body := call(t, "POST", url+"/_emulator/reset", "", "", nil); status != 200 || body != `{"ok":true}` {
		t.Fatal(status, body)
	}
	again, _ := start(t, opts)
	for who, one := range map[string]*emulator.Emulator{"reset": e, "other": other, "again": again} {
		if got := snapshot(t, one); got != fresh {
			t.Errorf("%s: the data is %s\nwant %s", who, got, fresh)
		}
		if !one.Now().Equal(fixed()) || len(one.Accepted()) != 0 {
			t.Errorf("%s: it is %v with %d sources", who, one.Now(), len(one.Accepted()))
		}
	}
	if c := e.Counts(); len(c.Requests) != 0 || c.AcceptedUploads != 0 || c.AcceptedBytes != 0 || len(e.Deliveries()) != 0 {
		t.Errorf("counts %+v and %d deliveries", c, len(e.Deliveries()))
	}
	if status := bots(); status != 502 {
		t.Errorf("the fault script did not begin again: %d", status)
	}
	if _, body := upload(t, url, e.Token(51), 876, formPart{"a", "a.md", "one"}); !strings.Contains(body, `"id":330783`) {
		t.Errorf("the first source is in %s", body)
	}
}

// TestSnapshot: an emulator that restores a snapshot has the same data and continues it,
// also after a restart, and a file with the snapshot alone has it too.
func TestSnapshot(t *testing.T) {
	hook := httptest.NewServer(&receiver{})
	defer hook.Close()
	opts := emulator.Options{Now: fixed, Webhook: emulator.WebhookOptions{NoHandshake: true}}
	e, url := start(t, opts)
	populate(t, e, url, hook.URL)
	_, saved := call(t, "GET", url+"/_emulator/snapshot", "", "", nil)
	if !json.Valid([]byte(saved)) || strings.Count(saved, "\n") != 1 {
		t.Fatalf("the snapshot is not one line of JSON: %s", saved)
	}
	dir := t.TempDir()
	restoredFile, snapshotFile := filepath.Join(dir, "restored"), filepath.Join(dir, "snapshot")
	if err := os.WriteFile(snapshotFile, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	opts.File = restoredFile
	restored, restoredURL := start(t, opts)
	upload(t, restoredURL, e.Token(51), 877, formPart{"x", "x.md", "to be replaced"})
	if status, body := call(t, "PUT", restoredURL+"/_emulator/snapshot", "", "", strings.NewReader(saved)); status != 200 {
		t.Fatal(status, body)
	}
	restarted, _ := start(t, opts)
	opts.File = snapshotFile
	opened, _ := start(t, opts)
	for who, one := range map[string]*emulator.Emulator{"restored": restored, "restarted": restarted, "opened": opened} {
		if got := snapshot(t, one); got != saved {
			t.Errorf("%s: the data is %s\nwant %s", who, got, saved)
		}
		if got, want := fmt.Sprint(one.Accepted()), fmt.Sprint(e.Accepted()); got != want || !strings.Contains(got, "true") {
			t.Errorf("%s: accepted %s\nwant %s", who, got, want)
		}
		if got, want := fmt.Sprint(one.Conversations()), fmt.Sprint(e.Conversations()); got != want {
			t.Errorf("%s: conversations %s\nwant %s", who, got, want)
		}
		if !one.Now().Equal(e.Now()) {
			t.Errorf("%s: it is %v, want %v", who, one.Now(), e.Now())
		}
	}
	if _, body := upload(t, restoredURL, e.Token(51), 876, formPart{"c", "c.md", "three"}); !strings.Contains(body, `"id":330785`) {
		t.Errorf("the next id is in %s", body)
	}
	post(t, restoredURL+"/api/v1/conversation/12wfegrgt4t/messages", e.Token(51), `{"message":{"type":"text","text":"Hello"},"user":{"by":"agent@example.com"}}`)
	if err := restored.Delivered(t.Context()); err != nil || len(restored.Deliveries()) != 1 {
		t.Errorf("%d deliveries to the restored webhook, %v", len(restored.Deliveries()), err)
	}
}

// TestBadSnapshots: what is no snapshot changes nothing.
func TestBadSnapshots(t *testing.T) {
	e, url := start(t, emulator.Options{})
	upload(t, url, e.Token(51), 876, formPart{"a", "a.md", "one"})
	before := snapshot(t, e)
	for text, words := range map[string]string{
		"":                                    "EOF",
		"{}":                                  `\"reset\" is missing`,
		`{"reset":true,"oops":1}`:             "oops",
		`{"reset":true}{"reset":true}`:        "more follows",
		`{"reset":true,"clock":-1}`:           "clock is out of range",
		`{"reset":true,"conversations":[{}]}`: "has no id",
		`{"reset":true,"sources":[{"sha256":"x"}]}`: "not a SHA-256",
		before[:len(before)/2]:                      "unexpected EOF",
	} {
		if status, body := call(t, "PUT", url+"/_emulator/snapshot", "", "", strings.NewReader(text)); status != 400 || !strings.Contains(body, words) {
			t.Errorf("%s: %d %s", text, status, body)
		}
	}
	if after := snapshot(t, e); after != before {
		t.Errorf("the data changed to %s", after)
	}
}

// TestSeed: with a seed the same requests get the same ids, also after a reset or a
// restart in between, at any time. Another seed and no seed make other ids. No id is
// given twice.
func TestSeed(t *testing.T) {
	hook := httptest.NewServer(&receiver{})
	defer hook.Close()
	run := func(seed uint64) (e *emulator.Emulator, url string, ids string) {
		e, url = start(t, emulator.Options{Seed: seed, Webhook: emulator.WebhookOptions{NoHandshake: true}})
		return e, url, idsIn(t, populate(t, e, url, hook.URL))
	}
	e, url, first := run(7)
	_, _, second := run(7)
	_, _, third := run(8)
	_, _, random := run(0)
	if first != second || first == third || first == random {
		t.Errorf("ids %s\nagain  %s\nseed 8 %s\nnone   %s", first, second, third, random)
	}
	if err := e.Reset(); err != nil {
		t.Fatal(err)
	}
	if again := idsIn(t, populate(t, e, url, hook.URL)); again != first {
		t.Errorf("ids %s\nafter a reset %s", first, again)
	}
	seen := make(map[string]bool)
	for _, id := range strings.Fields(first) {
		if seen[id] {
			t.Errorf("%s was given twice in %s", id, first)
		}
		seen[id] = true
	}

	// A restart between two conversations changes nothing.
	opts := emulator.Options{Seed: 9, File: filepath.Join(t.TempDir(), "e")}
	var ids []string
	for range 3 {
		e, url := start(t, opts)
		ids = append(ids, post(t, url+"/v1/conversations", e.Token(51), newConversation))
		_ = e.Close()
	}
	_, url = start(t, emulator.Options{Seed: 9})
	for i := range 3 {
		answer := post(t, url+"/v1/conversations", e.Token(51), newConversation)
		if got, want := idsIn(t, []string{answer}), idsIn(t, []string{ids[i]}); got != want {
			t.Errorf("conversation %d is %s, with restarts %s", i+1, got, want)
		}
	}
}

// idsIn returns the ids in answers of the conversation operations, the contact's once.
func idsIn(t *testing.T, answers []string) string {
	t.Helper()
	var ids []string
	for _, text := range answers {
		var answer struct {
			MessageID    string `json:"message_id"`
			Conversation struct {
				ID        string
				MessageID string `json:"message_id"`
			}
			Contact struct{ ID string }
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Conversation.ID == "" {
			ids = append(ids, answer.MessageID)
			continue
		}
		if len(answer.Conversation.ID) != 42 || len(answer.Conversation.MessageID) != 32 || len(answer.Contact.ID) != 8 {
			t.Errorf("ids in %s", text)
		}
		ids = append(ids, answer.Conversation.ID, answer.Conversation.MessageID)
		if contact := answer.Contact.ID; len(ids) == 2 {
			ids = append(ids, contact)
		} else if ids[2] != contact {
			t.Errorf("one phone has the contacts %s and %s", ids[2], contact)
		}
	}
	return strings.Join(ids, " ")
}

// TestClock: training and the expiry of tokens follow the clock, which a restart keeps.
func TestClock(t *testing.T) {
	opts := emulator.Options{Train: 90 * time.Minute, File: filepath.Join(t.TempDir(), "e"), Now: fixed}
	e, url := start(t, opts)
	_, body := call(t, "GET", url+"/_emulator/token/51?expires_in=1h", "", "", nil)
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Token == "" {
		t.Fatal(body, err)
	}
	upload(t, url, answer.Token, 876, formPart{"a", "a.md", "one"})
	state := func() string {
		status, _ := call(t, "GET", url+"/v1/accounts/51/bots", answer.Token, "", nil)
		return fmt.Sprint(e.Accepted()[0].Status, " ", status)
	}
	advance := func(text string) (int, string) {
		return call(t, "POST", url+"/_emulator/clock", "", "", strings.NewReader(fmt.Sprintf(`{"advance":%q}`, text)))
	}
	for _, tt := range []struct{ advance, want string }{
		{"59m59s", "in-progress 200"}, {"1s", "in-progress 401"}, {"29m59.999s", "in-progress 401"}, {"1ms", "completed 401"}, {"0s", "completed 401"},
	} {
		if status, body := advance(tt.advance); status != 200 {
			t.Fatal(status, body)
		}
		if got := state(); got != tt.want {
			t.Errorf("after %s more: %s, want %s", tt.advance, got, tt.want)
		}
	}
	if _, body := call(t, "GET", url+"/_emulator/clock", "", "", nil); body != `{"advanced":"1h30m0s","now":"2026-01-02T04:34:05.000006Z","ok":true}` {
		t.Errorf("clock %s", body)
	}
	for _, text := range []string{"-1s", "x", "", "1000000h"} {
		if status, body := advance(text); status != 400 {
			t.Errorf("advance %q: %d %s", text, status, body)
		}
	}
	if status, _ := call(t, "GET", url+"/_emulator/token/51?expires_in=-1h", "", "", nil); status != 400 {
		t.Errorf("a token that is already expired: %d", status)
	}
	_ = e.Close()
	if again, _ := start(t, opts); !again.Now().Equal(fixed().Add(90 * time.Minute)) {
		t.Errorf("after a restart it is %v", again.Now())
	}
}
