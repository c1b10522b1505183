package examples

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// programs builds the programs, and returns their folder and their names.
func programs(t *testing.T) (dir string, names []string) {
	t.Helper()
	files, err := filepath.Glob("*/main.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("programs %v, %v", files, err)
	}
	dir = t.TempDir()
	args := []string{"build", "-ldflags", "-s -w", "-o", dir + string(filepath.Separator)} // linking takes half the time without symbols
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte("\n")); n >= 80 {
			t.Errorf("%s has %d lines: an example has fewer than 80", file, n)
		}
		names = append(names, filepath.Dir(file))
		args = append(args, "./"+filepath.Dir(file))
	}
	build := exec.CommandContext(t.Context(), "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the rest of kbsync, whose packages are compiled already
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return dir, names
}

// documented returns whether the documentation of a program shows how to run it.
func documented(t *testing.T, name string) bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(name, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), "go run ./examples/go/"+name)
}

func TestGoExamples(t *testing.T) {
	dir, names := programs(t)
	stories := map[string]func(*testing.T, *emulator.Emulator, func(...string) *exec.Cmd){
		"upload": testUpload, "bots": testBots, "conversation": testConversation, "webhook": testWebhook,
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			story := stories[name]
			if story == nil {
				t.Fatal("the program has no test")
			}
			if !documented(t, name) || !strings.Contains(string(readme), "`go/"+name) {
				t.Error("the program's documentation or examples/README.md does not show it")
			}
			e, err := emulator.New(emulator.Options{Train: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = e.Close() })
			url, err := e.Start("")
			if err != nil {
				t.Fatal(err)
			}
			story(t, e, func(args ...string) *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), filepath.Join(dir, name), args...)
				cmd.Env = append(os.Environ(), "KBSYNC_API_URL="+url, "REPLYCX_TOKEN="+e.Token(51), "REPLYCX_WEBHOOK_TOKEN=a-secret")
				return cmd
			})
		})
	}
}

// match runs a program and compares its output with a pattern. ok is whether it must
// succeed.
func match(t *testing.T, cmd *exec.Cmd, ok bool, pattern string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if (err == nil) != ok || !regexp.MustCompile("^(?:"+pattern+")$").Match(out) {
		t.Errorf("%v: %v\n%s\nwant %s", cmd.Args[1:], err, out, pattern)
	}
}

func testUpload(t *testing.T, e *emulator.Emulator, run func(...string) *exec.Cmd) {
	folder := t.TempDir()
	for name, text := range map[string]string{"a.md": "one", "b.txt": "two", "c.pdf": "no PDF"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	match(t, run("876", folder, "*.md", "*.txt"), true,
		"330783  uploaded   a.md\n330784  uploaded   b.txt\n330783  completed  a.md\n330784  completed  b.txt\n")
	match(t, run("876", folder, "*.pdf"), false,
		"330785  uploaded   c.pdf\n330785  failed     c.pdf\nupload: the training of c.pdf failed\n")
	match(t, run("1", folder, "*.md"), false, "upload: a.md: upload sources: the API answered 404 Not Found KNOWLEDGE_BASE_NOT_FOUND: .*\n")
	match(t, run("876"), false, "upload: usage: .*\n")
	if n := len(e.Accepted()); n != 3 {
		t.Errorf("%d sources", n)
	}
}

func testBots(t *testing.T, _ *emulator.Emulator, run func(...string) *exec.Cmd) {
	match(t, run(), true, "9633  Appointment Booking  WEB  deployed 2025-01-22\n")
	cmd := run()
	cmd.Env = append(cmd.Env, "REPLYCX_TOKEN=")
	match(t, cmd, false, "bots: no API token\n")
}

func testConversation(t *testing.T, e *emulator.Emulator, run func(...string) *exec.Cmd) {
	match(t, run("1-123-1231230", "1-1321231320", "agent@example.com", "Sales"), true, `created \w{42}\nsent \w{32}\nclosed\n`)
	all := e.Conversations()
	got := all[len(all)-1]
	if !got.Closed || got.Team != "Sales" || got.Messages != 2 || got.Variables["conversation/order"] != "4711" {
		t.Errorf("conversation %+v", got)
	}
	match(t, run("1-999", "1-1321231320", "agent@example.com", "Sales"), false, "conversation: add the number 1-999 to the account's SMS channel: .*\n")
}

func testWebhook(t *testing.T, e *emulator.Emulator, run func(...string) *exec.Cmd) {
	// The URL must be known before the program listens.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	cmd := run(address, "http://"+address+"/replycx")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	line := func() string {
		if !lines.Scan() {
			t.Fatalf("the program ended: %v\n%s", cmd.Wait(), stderr.Bytes())
		}
		return lines.Text()
	}
	if got := line(); got != "receiving events at "+address {
		t.Errorf("first line %q", got)
	}
	publish(t, cmd)
	if got := line(); !regexp.MustCompile(`^new conversation \w{42} with John Doe$`).MatchString(got) {
		t.Errorf("second line %q", got)
	}
	if got := line(); !strings.HasPrefix(got, "message 12wfegrgt4t {") || !strings.Contains(got, "Good morning") {
		t.Errorf("third line %q", got)
	}
	if err := e.Delivered(t.Context()); err != nil {
		t.Error(err)
	}
	if runtime.GOOS == "windows" { // which has no interrupt for one process
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || len(rest) > 0 || stderr.Len() > 0 {
		t.Errorf("after an interrupt: %v\n%s%s", err, rest, stderr.Bytes())
	}
}

// publish makes two events, as the account of the program.
func publish(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	values := make(map[string]string)
	for _, one := range cmd.Env {
		name, value, _ := strings.Cut(one, "=")
		values[name] = value
	}
	client, err := replycx.New(values["REPLYCX_TOKEN"], replycx.Options{BaseURL: values["KBSYNC_API_URL"]})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	const agent = "agent@example.com"
	if _, err := client.CreateConversation(t.Context(), replycx.NewConversation{
		Channel: replycx.ChannelSMS, From: "1-123-1231230", To: replycx.Person{Phone: "1-1321231320"}, Message: replycx.Message{Text: "Hi"}, Assignee: agent,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SendMessage(t.Context(), "12wfegrgt4t", agent, replycx.Message{Text: "Good morning"}); err != nil {
		t.Fatal(err)
	}
}
