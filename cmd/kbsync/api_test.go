package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/internal/console"
)

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
	root := (&app{out: console.New(nil, nil, false)}).rootCommand()
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
