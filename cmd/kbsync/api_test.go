package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kbsync/kbsync/replycx"
)

func TestAPIFailureExitCodes(t *testing.T) {
	t.Parallel()
	refused := func(status int, code string, fromAPI bool) error {
		return &replycx.Error{Op: "send message", StatusCode: status, Code: code, Message: "words", FromAPI: fromAPI}
	}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	reset := &net.OpError{Op: "read", Err: errors.New("connection reset")}
	for name, test := range map[string]struct {
		err      error
		code     int // if a repetition may create a duplicate
		harmless int // if it cannot
		lost     bool
	}{
		"token":          {refused(401, "JWT_SIGNATURE_EXCEPTION", true), exitFatal, exitFatal, false},
		"account":        {refused(401, "UNAUTHORIZED", true), exitFatal, exitFatal, false},
		"feature":        {refused(401, "UNAUTHORIZED_FEATURE", true), exitFatal, exitFatal, false},
		"unknown 403":    {refused(403, "", false), exitFatal, exitFatal, false},
		"knowledge base": {refused(404, "KNOWLEDGE_BASE_NOT_FOUND", true), exitFatal, exitFatal, false},
		"redirect":       {refused(302, "", false), exitFatal, exitFatal, false},
		"conflict":       {refused(409, "", false), exitOther, exitOther, false},
		"ok false, 200":  {refused(200, "CONVERSATION_CLOSED", true), exitOther, exitOther, false},
		"too early":      {refused(425, "", false), exitTemporary, exitTemporary, false},
		"refused":        {refused(400, "CONVERSATION_CLOSED", true), exitOther, exitOther, false},
		"too large":      {refused(413, "", false), exitOther, exitOther, false},
		"too many":       {refused(429, "", false), exitTemporary, exitTemporary, false},
		"busy":           {refused(503, "BUSY", true), exitTemporary, exitTemporary, false},
		"gateway's 503":  {refused(503, "", false), exitOther, exitTemporary, true},
		"bad gateway":    {refused(502, "", false), exitOther, exitTemporary, true},
		"odd answer":     {&replycx.AnswerError{Op: "send message", StatusCode: 200, Reason: "is empty"}, exitOther, exitTemporary, true},
		"reset":          {fmt.Errorf("send message: %w", reset), exitOther, exitTemporary, true},
		"no connection":  {fmt.Errorf("send message: %w", dial), exitTemporary, exitTemporary, false},
		"unsent":         {&replycx.UnsentError{Err: reset}, exitTemporary, exitTemporary, false},
		"interrupted":    {fmt.Errorf("send message: %w", context.Canceled), exitOther, exitInterrupted, true},
		"no account":     {fmt.Errorf("list bots: %w", replycx.ErrNoAccount), exitUsage, exitUsage, false},
		"token file":     {fmt.Errorf("list bots: %w", usageError("read token_file: no such file")), exitUsage, exitUsage, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := apiFailure(test.err, "the message")
			if got := exitCode(err); got != test.code {
				t.Errorf("exit code %d, want %d: %v", got, test.code, err)
			}
			if got := strings.Contains(err.Error(), "the message may exist"); got != test.lost {
				t.Errorf("%q: warns that it may exist: %v, want %v", err, got, test.lost)
			}
			if got := exitCode(apiFailure(test.err, "")); got != test.harmless {
				t.Errorf("harmless: exit code %d, want %d", got, test.harmless)
			}
		})
	}
	if err := apiFailure(nil, "the message"); err != nil {
		t.Errorf("apiFailure(nil) = %v", err)
	}
}

func TestUploadFailureNamesTheFiles(t *testing.T) {
	t.Parallel()
	batch := []handFile{{path: "docs/a.md"}, {path: "docs/b.md"}}
	for name, test := range map[string]struct {
		err  error
		left int
		want string
		code int
	}{
		"a file that changed": {
			&replycx.UnsentError{Err: &replycx.PartError{Index: 1, Field: "f2", Err: replycx.ErrPartShort}}, 3,
			"docs/b.md: content is shorter than its size; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"\n3 more files after that: not uploaded", exitOther,
		},
		"a file that is gone": {
			&replycx.UnsentError{Err: &replycx.PartError{Index: 0, Field: "f1", Err: &fs.PathError{Op: "open", Path: "docs/a.md", Err: fs.ErrNotExist}}}, 0,
			"docs/a.md: open docs/a.md: file does not exist; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"", exitOther,
		},
		"an interrupt before the end": {
			&replycx.UnsentError{Err: context.Canceled}, 1,
			"interrupted; nothing of this request was uploaded: \"docs/a.md\", \"docs/b.md\"\n1 more file after that: not uploaded", exitInterrupted,
		},
		"a lost answer": {
			&replycx.AnswerError{Op: "upload sources", StatusCode: 200, Reason: "is empty"}, 0,
			"upload sources: the answer (status 200) is empty; \"docs/a.md\", \"docs/b.md\" may exist all the same: check in ReplyCX before you repeat this", exitOther,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := uploadFailure(test.err, batch, test.left)
			if err.Error() != test.want || exitCode(err) != test.code || !is[*plainError](err) {
				t.Errorf("exit code %d, want %d; error\n%v\nwant\n%s", exitCode(err), test.code, err, test.want)
			}
		})
	}
}

func TestRequestsRespectTheLimits(t *testing.T) {
	t.Parallel()
	many := make([]handFile, 41)
	for i := range many {
		many[i].size = 1
	}
	for name, test := range map[string]struct {
		files []handFile
		want  []int
	}{
		"none":          {nil, nil},
		"one":           {many[:1], []int{1}},
		"full":          {many[:20], []int{20}},
		"many":          {many, []int{20, 20, 1}},
		"exactly":       {[]handFile{{size: bytesPerRequest - 1}, {size: 1}, {size: 1}}, []int{2, 1}},
		"large ones":    {[]handFile{{size: 1}, {size: 10 * bytesPerRequest}, {size: 1}}, []int{1, 1, 1}},
		"counted again": {[]handFile{{size: bytesPerRequest}, {size: bytesPerRequest - 1}, {size: 1}}, []int{1, 2}},
	} {
		if got := requests(test.files); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestEventIsPrintedOnOneLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	deep := strings.Repeat(`{"a":`, 10) + "1" + strings.Repeat("}", 10)
	for name, test := range map[string]struct {
		event replycx.Event
		want  string
	}{
		"created": {
			replycx.Event{Type: replycx.EventConversationCreate, ConversationKey: "k", Created: &replycx.ConversationCreated{
				Title: "Visitor - A7184", AssigneeEmail: "bot@example.com", Variables: []replycx.EventVariable{{Name: "os", Value: "Linux"}, {Name: "browser"}},
			}},
			`conversation_create  k  title="Visitor - A7184" assigned_to=bot@example.com os=Linux`,
		},
		"nested": {
			replycx.Event{Type: replycx.EventMessage, ConversationKey: "k", Payload: []byte(`{"z":null,"n":1.50,"message":{"text":"Hi there","type":"text"},"l":["a",true]}`)},
			`message              k  l=a l=true message.text="Hi there" message.type=text n=1.50`,
		},
		"variables": {
			replycx.Event{Type: replycx.EventVariables, ConversationKey: "k", Payload: []byte(`{"variables":[{"name":"company","type":"conversation","value":"ReplyCX"},{"name":"none","value":null}]}`)},
			`variables            k  company=ReplyCX none=""`,
		},
		"hostile": {
			replycx.Event{Type: "no\x1b[2Jte", ConversationKey: "k\nfake", Payload: []byte(`{"a\u202e":"x\u001b]0;y\u0007"}`)},
			`no\x1b[2Jte          k\nfake  a\u202e=x\x1b]0;y\a`,
		},
		"deep":   {replycx.Event{Type: "note", ConversationKey: "k", Payload: []byte(deep)}, `note                 k  a.a.a.a.a.a.a.a="{"a":{"a":1}}"`},
		"empty":  {replycx.Event{}, `?                    -`},
		"no map": {replycx.Event{Type: "note", Payload: []byte(`"a text"`)}, `note                 -  "a text"`},
	} {
		if got, want := eventLine(at, test.event), "05:06:07  "+test.want+"\n"; got != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
	long := eventLine(at, replycx.Event{Type: "note", Payload: []byte(`{"text":"` + strings.Repeat("ü", 1000) + `"}`)})
	if !utf8.ValidString(long) || len(long) > 400 || !strings.HasSuffix(long, "ü…\n") {
		t.Errorf("a long event: %d bytes, %q", len(long), long[len(long)-20:])
	}
}

// TestAPICommandsMatchTheDocument compares the commands with the exchanges of the API's document: each command sends the
// documented request, and with --json prints the documented answer.
func TestAPICommandsMatchTheDocument(t *testing.T) {
	t.Parallel()
	to := []string{"--to-name", "John Doe", "--to-email", "john@example.com", "--assignee", "agent@example.com"}
	orchid := []string{
		"https://files.example.com/476/476_13228_NmYx9WnmRh2D054745777092FIaVpzP2_attachment.jpg",
		"--size", "152146", "--name", "Orchid - 5.jpg", "--by", "agent@example.com",
	}
	for name, args := range map[string][]string{
		"create-conversation-sms": append([]string{
			"conversation", "create", "--channel", "SMS", "--from", "1-123-1231230", "--to-phone", "1-1321231320", "--text", "Hii",
		}, to...),
		"create-conversation-whatsapp": append([]string{
			"conversation", "create", "--channel", "whatsapp", "--from", "1123123123", "--to-phone", "11231231230",
			"--template", "test_template", "--header", "John", "--body", "Doe", "--body", "Doe2",
			"--button-copy-code", "123456", "--button-otp", "123456", "--button-url", "any", "--variable", "name=John Doe",
		}, to...),
		"create-conversation-sms by its body": {"conversation", "create", "-"},
		"send-message-text":                   {"conversation", "send", "12wfegrgt4t", "--by", "agent@example.com", "--text", "Helo there!"},
		"send-message-file":                   append([]string{"conversation", "send", "12wfegrgt4t", "--file"}, orchid...),
		"send-message-voice":                  append([]string{"conversation", "send", "12wfegrgt4t", "--type", "image/jpeg", "--voice"}, orchid...),
		"send-message-template":               {"conversation", "send", "12wfegrgt4t", "--by", "agent@example.com", "--template", "template_1"},
		"close-conversation":                  {"conversation", "close", "12wfegrgt4t", "--by", "agent@example.com"},
		"assign-to-user":                      {"conversation", "assign", "12wfegrgt4t", "--by", "agent@example.com", "--to", "another@example.com"},
		"assign-to-team":                      {"conversation", "assign", "12wfegrgt4t", "--by", "agent@example.com", "--team", "Sales"},
		"update-variables": {
			"conversation", "variables", "12wfegrgt4t", "name=John Doe", "company=ReplyCx", "--contact", "phone=9999999999", "--contact", "email=john@example.com",
		},
		"set-webhook":   {"webhook", "set", "--url", "https://example.com/webhook"},
		"list-bots":     {"bots"},
		"source-status": {"status", "330783"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, _, byBody := strings.Cut(name, " ")
			data, err := os.ReadFile("../../replycx/testdata/api/" + file + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var golden struct {
				Method, Path    string
				Request, Answer json.RawMessage
			}
			if err := json.Unmarshal(data, &golden); err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || r.Method != golden.Method || r.URL.RequestURI() != golden.Path {
					t.Errorf("%s %s (%v), want %s %s", r.Method, r.URL.RequestURI(), err, golden.Method, golden.Path)
				}
				if golden.Request != nil && !sameJSON(t, body, golden.Request) {
					t.Errorf("sent %s\nwant %s", body, golden.Request)
				}
				_, _ = w.Write(golden.Answer)
			}))
			defer server.Close()
			var stdin io.Reader = strings.NewReader("")
			if byBody {
				stdin = bytes.NewReader(golden.Request)
			}
			var stdout, stderr bytes.Buffer
			env := []string{"KBSYNC_STATE=" + filepath.Join(t.TempDir(), "kbsync.db"), "KBSYNC_API_URL=" + server.URL, "KBSYNC_ACCOUNT_ID=51", "REPLYCX_TOKEN=a-token", "REPLYCX_WEBHOOK_TOKEN=Test"}
			if code := run(t.Context(), append([]string{"api", "--json"}, args...), env, stdin, &stdout, &stderr); code != exitDone || stderr.Len() > 0 {
				t.Fatalf("exit code %d, stderr %s", code, &stderr)
			}
			want := golden.Answer
			for _, list := range []string{"bots", "sources"} {
				var answer map[string]json.RawMessage
				if err := json.Unmarshal(golden.Answer, &answer); err != nil {
					t.Fatal(err)
				}
				if answer[list] != nil {
					want = answer[list]
				}
			}
			if !sameJSON(t, stdout.Bytes(), want) {
				t.Errorf("printed %s\nwant %s", &stdout, want)
			}
		})
	}
}

// sameJSON compares two JSON texts and ignores the order of variables.
func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	read := func(data []byte) (v any) {
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		if object, ok := v.(map[string]any); ok {
			if list, ok := object["variables"].([]any); ok {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
		return v
	}
	return reflect.DeepEqual(read(a), read(b))
}

// TestDocumentedCommands compares the table of docs/api.md with the program: each command in it exists and its story runs
// it, and the table has every command of kbsync api.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	root := (&app{out: newOutput(nil, nil, nil)}).rootCommand()
	story := regexp.MustCompile("`TestScripts/([a-z_]+)`")
	documented := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, "`Client.") {
			continue
		}
		cells := strings.Split(line, "|")
		named := story.FindStringSubmatch(cells[6])
		if named == nil {
			t.Errorf("no story in the line %s", line)
			continue
		}
		script, err := os.ReadFile(filepath.Join("testdata", "script", named[1]+".txtar"))
		if err != nil {
			t.Error(err)
		}
		for command := range strings.SplitSeq(strings.TrimSpace(cells[5]), ", ") {
			words := strings.Fields(strings.TrimPrefix(strings.Trim(command, "`"), "kbsync "))
			cmd, _, err := root.Find(words)
			if err != nil || cmd.HasSubCommands() {
				t.Errorf("unknown command %s", command)
				continue
			}
			documented[cmd.CommandPath()] = true
			if !strings.Contains(string(script), "exec "+cmd.CommandPath()) {
				t.Errorf("%s does not run %s", named[1], cmd.CommandPath())
			}
		}
	}
	group, _, err := root.Find([]string{"api"})
	if err != nil {
		t.Fatal(err)
	}
	commands := group.Commands()
	for len(commands) > 0 {
		cmd := commands[0]
		commands = append(commands[1:], cmd.Commands()...)
		if !cmd.HasSubCommands() && !documented[cmd.CommandPath()] {
			t.Errorf("docs/api.md lacks %s", cmd.CommandPath())
		}
	}
}
