package replycx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// golden is one exchange of the API's document, corrected to valid JSON, with
// addresses of example.com. If the document shows no request for an error, the file
// has a request to which the emulator's default fixture answers with that error.
type golden struct {
	Method, Path string
	Account      int64  // of the token, 51 if 0
	Token        string // in place of one of the emulator's
	Request      json.RawMessage
	Form         []struct{ Field, Filename, Content string }
	Status       int
	Answer       json.RawMessage
}

func goldens(t *testing.T) map[string]golden {
	t.Helper()
	names, err := filepath.Glob("testdata/api/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	all := make(map[string]golden, len(names))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&g); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if g.Account == 0 {
			g.Account = 51
		}
		all[strings.TrimSuffix(filepath.Base(name), ".json")] = g
	}
	return all
}

const agent = "agent@example.com"

var john = replycx.Person{Phone: "1-1321231320", Name: "John Doe", Email: "john@example.com"}

func sms(change func(*replycx.NewConversation)) replycx.NewConversation {
	n := replycx.NewConversation{
		Channel: replycx.ChannelSMS, From: "1-123-1231230", To: john, Message: replycx.Message{Text: "Hii"}, Assignee: agent,
	}
	if change != nil {
		change(&n)
	}
	return n
}

func whatsApp(template string) replycx.NewConversation {
	return replycx.NewConversation{
		Channel: replycx.ChannelWhatsApp, From: "1123123123", To: replycx.Person{Phone: "11231231230", Name: "John Doe", Email: "john@example.com"},
		Message: replycx.Message{Template: &replycx.Template{
			Name: template, Header: []string{"John"}, Body: []string{"Doe", "Doe2"},
			Buttons:   map[string]string{"copy_code": "123456", "otp": "123456", "url": "any"},
			Variables: map[string]string{"name": "John Doe"},
		}},
		Assignee: agent,
	}
}

var orchid = &replycx.File{
	Path: "https://files.example.com/476/476_13228_NmYx9WnmRh2D054745777092FIaVpzP2_attachment.jpg",
	Size: 152146, Type: "image/jpeg", Name: "Orchid - 5.jpg",
}

// calls are the calls that make the golden requests, by golden file. TestGolden
// compares their results with want below.
var calls = func() map[string]func(context.Context, *replycx.Client) (any, error) {
	type call = func(context.Context, *replycx.Client) (any, error)
	upload := func(kb int64) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			r, err := c.UploadSources(ctx, kb, []replycx.Part{
				file("q1", "sample.txt", "A sample."), replycx.TextPart("q2", "Some text."), file("d2", "File2.pdf", "%PDF-1.4\n%%EOF\n"),
			}, nil)
			if err != nil {
				return nil, err
			}
			return fmt.Sprint(r.KnowledgeBaseID, r.Sources, r.Missing), nil
		}
	}
	status := func(ctx context.Context, c *replycx.Client) (any, error) {
		s, err := c.SourceStatus(ctx, []int64{330783})
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(s[0].ID, s[0].Name, s[0].Status, s[0].KnowledgeBaseID), nil
	}
	create := func(n replycx.NewConversation) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			v, err := c.CreateConversation(ctx, n)
			if err != nil {
				return nil, err
			}
			return fmt.Sprint(v.ID, " ", v.MessageID, " ", v.CreatedAt, " ", v.AssigneeID, v.Assignee, " ", v.ContactID, v.Contact), nil
		}
	}
	send := func(id, by string, m replycx.Message) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) { return c.SendMessage(ctx, id, by, m) }
	}
	closing := func(id, by string) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			return nil, c.CloseConversation(ctx, id, by)
		}
	}
	user := func(id, to string) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			return nil, c.AssignToUser(ctx, id, agent, to)
		}
	}
	team := func(id, to string) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			return nil, c.AssignToTeam(ctx, id, agent, to)
		}
	}
	variables := func(id string, list []replycx.Variable) call {
		return func(ctx context.Context, c *replycx.Client) (any, error) {
			return nil, c.UpdateVariables(ctx, id, list)
		}
	}
	four := []replycx.Variable{
		{"name", replycx.ConversationVariable, "John Doe"}, {"phone", replycx.ContactVariable, "9999999999"},
		{"company", replycx.ConversationVariable, "ReplyCx"}, {"email", replycx.ContactVariable, "john@example.com"},
	}
	webhook := func(ctx context.Context, c *replycx.Client) (any, error) {
		return nil, c.SetWebhook(ctx, replycx.Webhook{URL: "https://example.com/webhook", Events: replycx.EventTypes(), Token: "Test"})
	}
	bots := func(ctx context.Context, c *replycx.Client) (any, error) {
		list, err := c.Bots(ctx)
		if err != nil {
			return nil, err
		}
		list[0].Raw = nil
		return fmt.Sprintf("%d %+v", len(list), list[0]), nil
	}
	text := replycx.Message{Text: "Helo there!"}
	const id = "12wfegrgt4t"
	return map[string]call{
		"upload-sources": upload(876),
		"upload-sources-knowledge-base-not-found": upload(1),
		"upload-sources-bad-token":                upload(876),
		"upload-sources-not-enabled":              upload(910),
		"upload-sources-account-not-found":        upload(876),
		"upload-sources-not-owned":                upload(876),

		"source-status":                   status,
		"source-status-bad-token":         status,
		"source-status-not-enabled":       status,
		"source-status-account-not-found": status,

		"create-conversation-sms":                   create(sms(nil)),
		"create-conversation-whatsapp":              create(whatsApp("test_template")),
		"create-conversation-channel-token-expired": create(sms(func(n *replycx.NewConversation) { n.From = "1-123-0000001" })),
		"create-conversation-exception":             create(sms(func(n *replycx.NewConversation) { n.From = "1-123-0000002" })),
		"create-conversation-channel-not-enabled":   create(sms(func(n *replycx.NewConversation) { n.Channel = "VIBER" })),
		"create-conversation-contact-blocked":       create(sms(func(n *replycx.NewConversation) { n.To = replycx.Person{Phone: "1-000-0000000"} })),
		"create-conversation-limited":               create(sms(func(n *replycx.NewConversation) { n.Assignee = "limited@example.com" })),
		"create-conversation-bad-token":             create(sms(nil)),
		"create-conversation-number-not-configured": create(sms(func(n *replycx.NewConversation) { n.From = "1-999-9999999" })),
		"create-conversation-template-not-found":    create(whatsApp("no_template")),
		"create-conversation-template-not-approved": create(whatsApp("draft_template")),

		"send-message-text":            send(id, agent, text),
		"send-message-file":            send(id, agent, replycx.Message{File: orchid}),
		"send-message-voice":           send(id, agent, replycx.Message{Voice: orchid}),
		"send-message-template":        send(id, agent, replycx.Message{Template: &replycx.Template{Name: "template_1"}}),
		"send-message-invalid-data":    send(id, agent, replycx.Message{File: &replycx.File{}}),
		"send-message-closed":          send("already-closed", agent, text),
		"send-message-held-by-bot":     send("held-by-bot", agent, text),
		"send-message-contact-blocked": send("with-blocked-contact", agent, text),
		"send-message-limited":         send(id, "limited@example.com", text),
		"send-message-bad-token":       send(id, agent, text),
		"send-message-not-found":       send("nowhere", agent, text),

		"close-conversation":           closing(id, agent),
		"close-conversation-limited":   closing(id, "limited@example.com"),
		"close-conversation-bad-token": closing(id, agent),
		"close-conversation-not-found": closing("nowhere", agent),

		"assign-to-user":           user(id, "another@example.com"),
		"assign-to-user-closed":    user("already-closed", "another@example.com"),
		"assign-to-user-same":      user(id, agent),
		"assign-to-user-limited":   user(id, "limited@example.com"),
		"assign-to-user-bad-token": user(id, "another@example.com"),
		"assign-to-user-not-found": user("nowhere", "another@example.com"),
		"assign-to-team":           team(id, "Sales"),
		"assign-to-team-not-found": team(id, "Nobody"),

		"update-variables":           variables(id, four),
		"update-variables-none":      variables(id, nil),
		"update-variables-bad-token": variables(id, four),
		"update-variables-not-found": variables("nowhere", four),

		"set-webhook":           webhook,
		"set-webhook-bad-token": webhook,
		"list-bots":             bots,
		"list-bots-bad-token":   bots,
	}
}()

// want holds the results of the calls for the documented answers.
var want = map[string]any{
	"upload-sources":               "876 map[d2:[{330785 file File2.pdf in-progress }] q1:[{330783 file sample.txt in-progress }] q2:[{330784 text q2.txt in-progress }]] []",
	"source-status":                "330783sample.txtin-progress876",
	"create-conversation-sms":      "12wfegrgt4t sdvgret4353b  123agent@example.com 11111111{1-1321231320 John Doe john@example.com}",
	"create-conversation-whatsapp": "12wfegrgt4t sdvgret4353b  123agent@example.com 11111111{11231231230 John Doe john@example.com}",
	"send-message-text":            "6HRBshHEcV8P103039226478taGDJQxC",
	"send-message-file":            "6HRBshHEcV8P103039226478taGDJQxC",
	"send-message-voice":           "6HRBshHEcV8P103039226478taGDJQxC",
	"send-message-template":        "6HRBshHEcV8P103039226478taGDJQxC",
	"list-bots": "1 {ID:9633 Title:Appointment Booking Key:7SgQLb4qUbp61059137828254t5QVE0H PreviewKey:6H7PD4WwTmsU105913782825Zk3KCj3t Channels:[WEB] " +
		"Active:false InactiveBySystem:false CreatedAt:2024-02-09 10:59:13.783000 LastDeployedAt:2025-01-22 13:26:40.554000 Priority:1 Language:English LanguageCode:EN " +
		"Type:inbound OutboundType: OwnerID:14764 OwnerName:John Doe OwnerEmail:john@example.com Raw:[]}",
}

// TestGolden makes each call twice: to a server that checks the request and returns
// the documented answer, and to the emulator.
func TestGolden(t *testing.T) {
	all := goldens(t)
	if got, want := slices.Sorted(maps.Keys(calls)), slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
		t.Fatalf("the calls do not match the golden files:\n%v\n%v", got, want)
	}
	for name, g := range all {
		t.Run(name, func(t *testing.T) {
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				g.check(t, r)
				w.WriteHeader(g.Status)
				_, _ = w.Write(g.Answer)
			}, replycx.Options{AccountID: 51})
			got, err := calls[name](t.Context(), c)
			g.checkError(t, err)
			if err == nil && !reflect.DeepEqual(got, want[name]) {
				t.Errorf("got  %v\nwant %v", got, want[name])
			}

			e, err := emulator.New(emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = e.Close() })
			url, err := e.Start("")
			if err != nil {
				t.Fatal(err)
			}
			token := g.Token
			if token == "" {
				token = e.Token(g.Account)
			}
			c, err = replycx.New(token, replycx.Options{BaseURL: url, AccountID: 51})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.CloseIdleConnections)
			if name == "source-status" {
				if _, err := calls["upload-sources"](t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			_, err = calls[name](t.Context(), c)
			g.checkError(t, err)
		})
	}
}

// check compares a request with the golden one.
func (g golden) check(t *testing.T, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	if r.Method != g.Method || r.URL.RequestURI() != g.Path || r.Header.Get("Authorization") != "Bearer secret-token" {
		t.Errorf("request %s %s, want %s %s", r.Method, r.URL.RequestURI(), g.Method, g.Path)
	}
	if g.Form != nil {
		for i, p := range parseGo(t, r.Header.Get("Content-Type"), body) {
			want := g.Form[i]
			if p.Field != want.Field || p.Body != want.Content || (p.Filename == nil) != (want.Filename == "") || p.Filename != nil && *p.Filename != want.Filename {
				t.Errorf("part %d is %+v, want %+v", i, p, want)
			}
		}
		return
	}
	if r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", r.Header.Get("Content-Type"))
	}
	if g.Request == nil {
		if len(body) != 0 {
			t.Errorf("body %s", body)
		}
		return
	}
	var got, want any
	if json.Unmarshal(body, &got) != nil || json.Unmarshal(g.Request, &want) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("body %s\nwant %s", body, g.Request)
	}
}

// checkError compares an error with the golden answer.
func (g golden) checkError(t *testing.T, err error) {
	t.Helper()
	if g.Status == 200 {
		if err != nil {
			t.Error(err)
		}
		return
	}
	var answer struct {
		Error   replycx.Code
		Message any
	}
	if err := json.Unmarshal(g.Answer, &answer); err != nil {
		t.Fatal(err)
	}
	refused, ok := errors.AsType[*replycx.Error](err)
	if !ok || !errors.Is(err, answer.Error) || refused.StatusCode != g.Status || !refused.FromAPI {
		t.Fatalf("error %v, want %s", err, g.Answer)
	}
	if text, ok := answer.Message.(string); ok && text != refused.Message && text != "Error message" {
		t.Errorf("message %q, want %q", refused.Message, text)
	}
	if fields, ok := answer.Message.(map[string]any); ok && fmt.Sprint(fields) != fmt.Sprint(refused.Fields) {
		t.Errorf("fields %v, want %v", refused.Fields, fields)
	}
}

// TestEveryCodeHasAGoldenExchange: each constant of a code is the answer of a golden
// exchange, which TestGolden also makes with the emulator.
func TestEveryCodeHasAGoldenExchange(t *testing.T) {
	provoked := make(map[string]bool)
	for _, g := range goldens(t) {
		var answer struct{ Error string }
		if err := json.Unmarshal(g.Answer, &answer); err != nil {
			t.Fatal(err)
		}
		provoked[answer.Error] = true
	}
	all := codes(t)
	for name, code := range all {
		if !provoked[code] {
			t.Errorf("no golden exchange is answered with %s, which is %s", code, name)
		}
	}
	if len(all) != 23 {
		t.Errorf("%d constants of codes, the document has 23", len(all))
	}
}
