package replycx_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing/fstest"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// local returns a client of an emulator, so that the examples run without an account.
func local() (client *replycx.Client, end func()) {
	e, err := emulator.New(emulator.Options{Train: -1, Webhook: emulator.WebhookOptions{NoHandshake: true}})
	if err != nil {
		log.Fatal(err)
	}
	url, err := e.Start("")
	if err != nil {
		log.Fatal(err)
	}
	client, err = replycx.New(e.Token(51), replycx.Options{BaseURL: url})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() { client.CloseIdleConnections(); _ = e.Close() }
}

func ExampleNew() {
	client, err := replycx.New(os.Getenv("REPLYCX_TOKEN"), replycx.Options{UserAgent: "my-program/1.0"})
	if errors.Is(err, replycx.ErrNoToken) {
		fmt.Println("set REPLYCX_TOKEN to the token of Settings, Account Settings, Developer")
		return
	}
	fmt.Println(client.Origin())
}

func ExampleClient_UploadSources() {
	client, end := local()
	defer end()
	const page = "# Opening hours\n\nWe open at nine.\n"
	result, err := client.UploadSources(context.Background(), 876, []replycx.Part{
		{
			Field: "hours", Filename: "opening-hours.md", Size: int64(len(page)),
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(page)), nil },
		},
		replycx.TextPart("greeting", "Hello, how can we help you?"),
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Sources["hours"][0].Name, result.Sources["hours"][0].Status)
	fmt.Println(len(result.Missing), "missing")
	// Output:
	// opening-hours.md in-progress
	// 0 missing
}

// Write a journal of uploads in the seal: the server cannot have the whole request
// before the seal returns.
func ExampleClient_UploadSources_seal() {
	client, end := local()
	defer end()
	part := replycx.TextPart("greeting", "Hello")
	_, err := client.UploadSources(context.Background(), 876, []replycx.Part{part}, &replycx.UploadOptions{
		Seal: func(context.Context) error { return errors.New("the disk is full") },
	})
	if _, ok := errors.AsType[*replycx.UnsentError](err); ok {
		fmt.Println("nothing was created:", err)
	}
	// Output: nothing was created: upload sources: the disk is full
}

func ExampleClient_SourceStatus() {
	client, end := local()
	defer end()
	ctx := context.Background()
	result, err := client.UploadSources(ctx, 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	statuses, err := client.SourceStatus(ctx, []int64{result.Sources["greeting"][0].ID})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(statuses[0].Name, statuses[0].Status)
	// Output: greeting.txt completed
}

func ExampleClient_UploadFiles() {
	client, end := local()
	defer end()
	handbook := fstest.MapFS{ // or os.DirFS("./handbook")
		"index.md":        {Data: []byte("# Handbook")},
		"people/leave.md": {Data: []byte("# Leave")},
		"people/logo.png": {Data: []byte("...")},
	}
	for file, err := range client.UploadFiles(context.Background(), 876, handbook, "*.md") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(file.Path, "is", file.Sources[0].Name)
	}
	// Output:
	// index.md is index.md
	// people/leave.md is people__leave.md
}

func ExampleClient_WaitForSources() {
	client, end := local()
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	result, err := client.UploadSources(ctx, 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	statuses, err := client.WaitForSources(ctx, []int64{result.Sources["greeting"][0].ID}, replycx.WaitOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(statuses[0].Status)
	// Output: completed
}

func ExampleClient_CreateConversation() {
	client, end := local()
	defer end()
	conversation, err := client.CreateConversation(context.Background(), replycx.NewConversation{
		Channel:  replycx.ChannelSMS,
		From:     "1-123-1231230",
		To:       replycx.Person{Phone: "1-1321231320", Name: "John Doe"},
		Message:  replycx.Message{Text: "Your order is on its way."},
		Assignee: "agent@example.com",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conversation.Contact.Name, "talks with", conversation.Assignee)
	// Output: John Doe talks with agent@example.com
}

func ExampleClient_CreateConversation_whatsApp() {
	client, end := local()
	defer end()
	_, err := client.CreateConversation(context.Background(), replycx.NewConversation{
		Channel: replycx.ChannelWhatsApp,
		From:    "1123123123",
		To:      replycx.Person{Phone: "11231231230"},
		Message: replycx.Message{Template: &replycx.Template{
			Name:   "draft_template",
			Header: []string{"John"},
			Body:   []string{"Doe"},
		}},
		Assignee: "agent@example.com",
	})
	fmt.Println(errors.Is(err, replycx.ErrTemplateNotApproved))
	// Output: true
}

func ExampleClient_SendMessage() {
	client, end := local()
	defer end()
	id, err := client.SendMessage(context.Background(), "12wfegrgt4t", "agent@example.com", replycx.Message{
		File: &replycx.File{Path: "https://files.example.com/map.jpg", Size: 152146, Type: "image/jpeg", Name: "map.jpg"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(id), "characters of id")
	// Output: 32 characters of id
}

func ExampleClient_CloseConversation() {
	client, end := local()
	defer end()
	fmt.Println(client.CloseConversation(context.Background(), "12wfegrgt4t", "agent@example.com"))
	// Output: <nil>
}

func ExampleClient_AssignToUser() {
	client, end := local()
	defer end()
	err := client.AssignToUser(context.Background(), "12wfegrgt4t", "agent@example.com", "agent@example.com")
	fmt.Println(errors.Is(err, replycx.ErrSameAssignee))
	// Output: true
}

func ExampleClient_AssignToTeam() {
	client, end := local()
	defer end()
	fmt.Println(client.AssignToTeam(context.Background(), "12wfegrgt4t", "agent@example.com", "Sales"))
	// Output: <nil>
}

func ExampleClient_UpdateVariables() {
	client, end := local()
	defer end()
	ctx := context.Background()
	fmt.Println(client.UpdateVariables(ctx, "12wfegrgt4t", []replycx.Variable{
		{Name: "company", Type: replycx.ConversationVariable, Value: "Example Ltd"},
	}))
	err := client.UpdateVariables(ctx, "12wfegrgt4t", nil)
	if refused, ok := errors.AsType[*replycx.Error](err); ok {
		fmt.Println(refused.Fields["variables"])
	}
	// Output:
	// <nil>
	// [Shorter than minimum length 1.]
}

func ExampleClient_SetWebhook() {
	client, end := local()
	defer end()
	fmt.Println(client.SetWebhook(context.Background(), replycx.Webhook{
		URL:    "https://example.com/replycx-events",
		Events: []replycx.EventType{replycx.EventMessage, replycx.EventStatus},
		Token:  "a secret of your own",
	}))
	// Output: <nil>
}

func ExampleClient_Bots() {
	client, end := local()
	defer end()
	bots, err := client.Bots(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, bot := range bots {
		fmt.Println(bot.ID, bot.Title, bot.Channels)
	}
	// Output: 9633 Appointment Booking [WEB]
}

// NewRequest and Do call an operation that has no method.
func ExampleClient_Do() {
	client, end := local()
	defer end()
	req, err := client.NewRequest(context.Background(), http.MethodGet, "/v1/accounts/51/bots", nil)
	if err != nil {
		log.Fatal(err)
	}
	var answer struct {
		Bots []struct {
			Title string `json:"bot_title"`
		}
	}
	if err := client.Do(req, &answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Bots[0].Title)
	// Output: Appointment Booking
}

func ExampleNewEventHandler() {
	handler, err := replycx.NewEventHandler("a secret of your own", func(_ context.Context, e replycx.Event) error {
		if e.Created != nil {
			fmt.Println("new conversation:", e.Created.Title)
		}
		return nil
	}, replycx.EventHandlerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	// A program would serve the handler with an http.Server. This is one delivery.
	delivery := `{"token": "a secret of your own", "events": [
		{"event": {"type": "conversation_create", "payload": {"title": "Visitor - A7184"}}}]}`
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(delivery)))
	fmt.Println(answer.Code)
	// Output:
	// new conversation: Visitor - A7184
	// 200
}

func ExampleError() {
	client, end := local()
	defer end()
	_, err := client.UploadSources(context.Background(), 4711, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil)
	refused, ok := errors.AsType[*replycx.Error](err)
	switch {
	case errors.Is(err, replycx.ErrKnowledgeBaseNotFound):
		fmt.Println("no such knowledge base")
	case ok && refused.RetryAfter > 0:
		fmt.Println("again in", refused.RetryAfter)
	}
	// Output: no such knowledge base
}

// The class decides about the next request, for codes without a constant too.
func ExampleError_Class() {
	for _, refused := range []*replycx.Error{
		{StatusCode: 429, RetryAfter: time.Minute},
		{StatusCode: 413},
		{StatusCode: 401, Code: string(replycx.ErrTokenInvalid)},
		{StatusCode: 502},
	} {
		switch class := refused.Class(); class {
		case replycx.ClassBusy:
			fmt.Println(class, "- the same request again in", refused.RetryAfter)
		case replycx.ClassRejected, replycx.ClassTooLong, replycx.ClassNotFound:
			fmt.Println(class, "- another request may succeed")
		case replycx.ClassDenied:
			fmt.Println(class, "- stop, and ask a person")
		default:
			fmt.Println(class, "- the server may have done what was asked")
		}
	}
	// Output:
	// busy - the same request again in 1m0s
	// rejected - another request may succeed
	// denied - stop, and ask a person
	// unclear - the server may have done what was asked
}

// A token source reads the token again for each request, so that a rotated token needs no
// restart.
func ExampleOptions_tokenSource() {
	client, err := replycx.New("", replycx.Options{
		TokenSource: func(context.Context) (string, error) {
			token, err := os.ReadFile("/run/secrets/replycx-token")
			return string(token), err
		},
		AccountID: 51,
		Timeouts:  replycx.Timeouts{Call: 10 * time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Origin())
	// Output: https://api.reply.cx
}

func ExampleClient_AccountID() {
	client, end := local()
	defer end()
	account, err := client.AccountID(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the token belongs to account", account)
	// Output: the token belongs to account 51
}

// CollectStatuses asks for any number of sources, and returns which ids the API does not
// know.
func ExampleCollectStatuses() {
	client, end := local()
	defer end()
	ctx := context.Background()
	result, err := client.UploadSources(ctx, 876, []replycx.Part{replycx.TextPart("greeting", "Hello")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	id := result.Sources["greeting"][0].ID
	statuses, err := replycx.CollectStatuses(ctx, []int64{id, 1, 2}, client.SourceStatus)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(statuses.Found[id].Status, statuses.Missing)
	// Output: completed [1 2]
}

func ExampleParseTime() {
	created, err := replycx.ParseTime("2024-02-09 10:59:13.783000") // as in Bot.CreatedAt
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(created.Format(time.RFC1123))
	// Output: Fri, 09 Feb 2024 10:59:13 UTC
}

func ExampleContentType() {
	fmt.Println(replycx.ContentType("opening-hours.md"))
	fmt.Println(replycx.ContentType("Return form.docx"))
	// Output:
	// text/markdown; charset=utf-8
	// application/vnd.openxmlformats-officedocument.wordprocessingml.document
}

// Tools for OpenAPI read the document from a file.
func ExampleOpenAPI() {
	var document struct{ OpenAPI string }
	if err := json.Unmarshal(replycx.OpenAPI(), &document); err != nil {
		log.Fatal(err)
	}
	fmt.Println("OpenAPI", document.OpenAPI)
	// Output: OpenAPI 3.1.0
}
