package emulator_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// snapshot returns the emulator's data.
func snapshot(t *testing.T, e *emulator.Emulator) string {
	t.Helper()
	var b strings.Builder
	if err := e.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMalformedBodies sends bodies that are no JSON object to each operation with a JSON
// body. The emulator answers 400 with an error of the API, and changes nothing.
func TestMalformedBodies(t *testing.T) {
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
	// In each valid body X is within a text.
	valid := map[string]string{
		"/v1/conversations":                                      `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"1-1321231320"},"message":{"type":"text","text":"X"},"assignee":"agent@example.com"}`,
		"/api/v1/conversation/12wfegrgt4t/messages":              `{"message":{"type":"text","text":"X"},"user":{"by":"agent@example.com"}}`,
		"/api/v1/conversation/12wfegrgt4t/events":                `{"event":"assignee","team":{"by":"X","to":"Sales"}}`,
		"/v1/accounts/51/conversations/12wfegrgt4t/variables":    `{"variables":[{"name":"X","type":"contact","value":"b"}]}`,
		"/v1/accounts/51/webhook":                                `{"webhook_url":"https://example.com","subscribed_events":[{"key":"note","is_subscribed":true}],"is_enabled":true,"token":"X"}`,
		"/_emulator/clock":                                       `{"advance":"1h","note":"X"}`,
		"/_emulator/events":                                      `{"account":51,"type":"X"}`,
		"/api/v1/conversation/held-by-bot/events?event=closing":  `{"event":"status","status":"CLOSE","user":{"by":"X"}}`,
		"/api/v1/conversations?the=path-in-other-public-sources": `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"1-1321231320"},"message":{"type":"text","text":"X"}}`,
	}
	for path, body := range valid {
		for name, malformed := range map[string]string{
			"nothing":                  "",
			"null":                     "null",
			"null between spaces":      " null\r\n",
			"a list":                   "[" + body + "]",
			"a text":                   `"X"`,
			"a number":                 "7",
			"cut off":                  body[:len(body)-1],
			"two objects":              body + body,
			"a byte order mark":        "\ufeff" + body,
			"Latin-1":                  strings.ReplaceAll(body, "X", "caf\xe9"),
			"UTF-16":                   strings.ReplaceAll(body, "X", "\x00X"),
			"half a character":         strings.ReplaceAll(body, "X", "\xe2\x82"),
			"a surrogate":              strings.ReplaceAll(body, "X", "\xed\xa0\x80"),
			"invalid UTF-8 in a key":   strings.Replace(body, `{"`, `{"`+"\xff\":1,\"", 1),
			"invalid UTF-8 at the end": body + "\xff",
			"more than 1 MiB":          strings.ReplaceAll(body, "X", strings.Repeat("x", 1<<20)),
		} {
			before := snapshot(t, e)
			status, answer := call(t, "POST", url+path, e.Token(51), "application/json", strings.NewReader(malformed))
			var refusal struct {
				OK     *bool
				Error  string
				Status int
			}
			if err := json.Unmarshal([]byte(answer), &refusal); err != nil || status != 400 || refusal.Status != 400 || refusal.OK == nil || *refusal.OK || refusal.Error == "" {
				t.Errorf("%s: %s: %d %s", path, name, status, answer)
			}
			if after := snapshot(t, e); after != before {
				t.Errorf("%s: %s: the data changed\nfrom %s\nto   %s", path, name, before, after)
			}
		}
		if status, answer := call(t, "POST", url+path, e.Token(51), "application/json", strings.NewReader(strings.ReplaceAll(body, "X", "é"))); status != 200 {
			t.Errorf("%s: the valid body: %d %s", path, status, answer)
		}
	}
}

// TestPartHeaders: a header of 64 KiB refuses the upload, wherever its part is; a
// shorter one does not.
func TestPartHeaders(t *testing.T) {
	e, url := start(t, emulator.Options{})
	// The multipart body has a part with each of the headers, and a disposition.
	send := func(headers ...string) (int, string) {
		var body strings.Builder
		for i, header := range headers {
			fmt.Fprintf(&body, "--b\r\nContent-Disposition: form-data; name=f%d; filename=f.txt\r\n%s\r\nhello\r\n", i, header)
		}
		body.WriteString("--b--\r\n")
		return call(t, "POST", url+"/api/v1/ai/knowledge-base/876/upload/sources", e.Token(51), "multipart/form-data; boundary=b", strings.NewReader(body.String()))
	}
	long := func(n int) string { return "X-Long: " + strings.Repeat("x", n) + "\r\n" }
	many := func(n int) string { return strings.Repeat("X-Many: "+strings.Repeat("x", 1000)+"\r\n", n) }
	for _, tt := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"63 KiB", []string{long(63 << 10)}, 200},
		{"63 KiB in many lines", []string{many(63)}, 200},
		{"64 KiB", []string{long(64 << 10)}, 400},
		{"64 KiB in the second part", []string{"", long(64 << 10)}, 400},
		{"64 KiB in many lines", []string{many(66)}, 400},
		{"1 MiB", []string{long(1 << 20)}, 400},
		{"a name of 64 KiB", []string{strings.Repeat("X", 64<<10) + ": x\r\n"}, 400},
	} {
		before := e.Counts().AcceptedParts
		status, answer := send(tt.headers...)
		if status != tt.status || status == 400 && !strings.Contains(answer, "65536 bytes or more") {
			t.Errorf("%s: %d %.300s", tt.name, status, answer)
		}
		if accepted := e.Counts().AcceptedParts > before; accepted != (tt.status == 200) {
			t.Errorf("%s: accepted %v", tt.name, accepted)
		}
	}
}
