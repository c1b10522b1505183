package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// documentation returns the Markdown files for users, by their path in the repository.
func documentation(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			texts[strings.TrimPrefix(filepath.ToSlash(file), repository+"/")] = readText(t, file)
		}
	}
	return texts
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading      = regexp.MustCompile(`^#+ +(.*)$`)
)

// anchors returns the anchors of the headings of a Markdown text, as GitHub makes them.
func anchors(text string) map[string]bool {
	found, times := map[string]bool{}, map[string]int{}
	_, prose := blocksOf("", text)
	rows := make([]int, 0, len(prose))
	for n := range prose {
		rows = append(rows, n)
	}
	slices.Sort(rows)
	for _, n := range rows {
		match := heading.FindStringSubmatch(prose[n])
		if match == nil {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, markdownLink.ReplaceAllString(match[1], "]"))
		if times[anchor]++; times[anchor] > 1 {
			anchor = fmt.Sprintf("%s-%d", anchor, times[anchor]-1)
		}
		found[anchor] = true
	}
	return found
}

// brokenLinks returns the links of a text to files and headings that do not exist.
func brokenLinks(name, text string, texts map[string]string) (broken []string) {
	_, prose := blocksOf(name, text)
	for n, row := range prose {
		for _, match := range markdownLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(row, ""), -1) {
			u, err := url.Parse(match[1])
			if err == nil && u.IsAbs() {
				continue
			}
			target, wrong := name, err != nil
			if err == nil && u.Path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), u.Path))
				_, err := os.Stat(filepath.Join(repository, target))
				wrong = err != nil
			}
			if !wrong && u.Fragment != "" {
				wrong = !anchors(texts[target])[u.Fragment]
			}
			if wrong {
				broken = append(broken, fmt.Sprintf("%s:%d: %s", name, n, match[1]))
			}
		}
	}
	return broken
}

func TestLinksOfTheDocumentation(t *testing.T) {
	t.Parallel()
	texts := documentation(t)
	for name, text := range texts {
		for _, link := range brokenLinks(name, text, texts) {
			t.Errorf("%s leads nowhere", link)
		}
	}
	for _, text := range []string{"[a](nothing.md)", "[a](docs/watch.md#nothing)", "see [a](#nothing) and more"} {
		if len(brokenLinks("README.md", text, texts)) != 1 {
			t.Errorf("%s: no broken link found", text)
		}
	}
}

// A shownCommand is a command of a console block, and the output that the block shows.
type shownCommand struct {
	where, command string
	output         []string
}

// inConsole returns the commands of the console blocks of a text: a line that begins with "$ ", with the lines after it that begin with
// "> ". All other lines are output.
func inConsole(name, text string) (commands []shownCommand) {
	blocks, _ := blocksOf(name, text)
	for _, b := range blocks {
		if b.language != "console" {
			continue
		}
		for i, row := range b.rows {
			command, begins := strings.CutPrefix(row, "$ ")
			more, goesOn := strings.CutPrefix(row, "> ")
			last := len(commands) - 1
			switch {
			case begins:
				commands = append(commands, shownCommand{where: fmt.Sprintf("%s:%d", name, b.first+i), command: command})
			case last < 0:
			case goesOn && len(commands[last].output) == 0:
				commands[last].command += "\n" + more
			default:
				commands[last].output = append(commands[last].output, row)
			}
		}
	}
	return commands
}

// varies replaces what differs from run to run.
func varies(text string) string {
	for _, r := range []struct{ pattern, replacement string }{
		{`\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?`, "TIME"},
		{`\b\d{4}-\d\d-\d\d\b`, "DATE"},
		{`\b\d\d:\d\d:\d\d\b`, "TIME"},
		{`\b\d+ requests? in \d`, "N requests in 0"},
		{`\b\d+(\.\d+)?(ms|s|m\d+s)\b`, "DURATION"},
		{`(127\.0\.0\.1|localhost):\d+`, "127.0.0.1:PORT"},
		{`\b[0-9a-f]{12,64}\b`, "HEX"},
		{`-[0-9a-f]{8}\b`, "-HEX"},
		{` +\n`, "\n"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.replacement)
	}
	return text
}

// matches reports whether output is the shown one. A line "..." stands for any lines, and "..." at the end of a line for its rest.
func matches(shown []string, output string) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for row := range strings.Lines(varies(strings.Join(shown, "\n") + "\n")) {
		row = strings.TrimRight(row, "\n")
		begin, cut := strings.CutSuffix(row, "...")
		switch {
		case row == "" && len(shown) == 0:
		case row == "...":
			pattern.WriteString(`(?:.*\n)*`)
		case cut:
			pattern.WriteString(regexp.QuoteMeta(begin) + `.*\n`)
		default:
			pattern.WriteString(regexp.QuoteMeta(row) + `\n`)
		}
	}
	return regexp.MustCompile(pattern.String() + `\z`).MatchString(varies(output))
}

// session returns a shell script that runs commands and writes their output to the file out. A line with \001 and a number is before the
// output of each.
func session(commands []shownCommand) string {
	var script strings.Builder
	script.WriteString(`exec >out 2>&1
make() { case $1 in run) kbsync sync --config examples/handbook.yaml --emulator ;; esac; }
`)
	for i, c := range commands {
		fmt.Fprintf(&script, "printf '\\001%d\\n'\n%s\n", i, c.command)
	}
	return script.String()
}

// TestConsoleBlocksRun runs the commands of the console blocks of each page in one shell, in a directory with the examples and a folder
// docs. The API is an emulator. What the commands print must be what the page shows. Blocks of other languages are only parsed: their
// commands need a cluster, a cloud or an account.
func TestConsoleBlocksRun(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	switch {
	case err != nil && runtime.GOOS == "windows":
		t.Skip("the console blocks are for sh, which Windows does not have")
	case err != nil:
		t.Fatal(err)
	}
	ran := 0
	for name, text := range documentation(t) {
		commands := inConsole(name, text)
		if len(commands) == 0 {
			continue
		}
		ran += len(commands)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runSession(t, shell, commands)
		})
	}
	if ran < 20 {
		t.Errorf("found only %d commands", ran)
	}
}

func runSession(t *testing.T, shell string, commands []shownCommand) {
	dir := t.TempDir()
	for from, to := range map[string]string{examples: "examples", examples + "/handbook/returns": "docs"} {
		if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	api, err := emulator.New(emulator.Options{KnowledgeBases: []int64{876, 877}, Train: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	address, err := api.Start("")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell, "-c", session(commands))
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_STATE_HOME="+filepath.Join(dir, ".state"), "NO_COLOR=1",
		"KBSYNC_API_URL="+address, "REPLYCX_TOKEN="+api.Token(emulator.DefaultFixture().Accounts[0].ID),
		"KBSYNC_LOG_LEVEL=warn", "KBSYNC_SETTLE=0s", "KBSYNC_POLL_MIN=20ms", "KBSYNC_POLL_MAX=100ms", "KBSYNC_RATE=off")
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	output := strings.ReplaceAll(readText(t, filepath.Join(dir, "out")), dir, "/home/me")
	for i, c := range commands {
		_, rest, found := strings.Cut(output, fmt.Sprintf("\001%d\n", i))
		rest, _, _ = strings.Cut(rest, "\001")
		if !found || !matches(c.output, rest) {
			t.Errorf("%s: $ %s\nprints\n%s\nand the page shows\n%s", c.where, c.command, rest, strings.Join(c.output, "\n"))
		}
	}
}

func TestShownOutputsAreCompared(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shown, output string
		want          bool
	}{
		{"a\nb", "a\nb\n", true}, {"a", "a\nb\n", false}, {"a\n...", "a\nb\nc\n", true}, {"...\nc", "a\nb\nc\n", true}, {"a", "b\n", false},
		{"1 file in 2s", "1 file in 310ms\n", true}, {"1 file in 2s", "2 files in 2s\n", false}, {"error: ...", "error: no\n", true},
	} {
		if got := matches(strings.Split(c.shown, "\n"), c.output); got != c.want {
			t.Errorf("%q matches %q: %v", c.shown, c.output, got)
		}
	}
	if !matches(nil, "") || matches(nil, "a\n") {
		t.Error("a command without shown output must print nothing")
	}
}

var messageCell = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestQuotedMessagesExist finds each message of docs/troubleshooting.md in the source code, or in the API's own errors.
func TestQuotedMessagesExist(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, dir := range []string{"cmd", "ingest", "internal", "replycx", "state", "tracker", "watcher"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(path string, d os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				code.WriteString(readText(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	messages := messageCell.FindAllStringSubmatch(readText(t, filepath.Join(repository, "docs/troubleshooting.md")), -1)
	if len(messages) < 25 {
		t.Errorf("found only %d messages", len(messages))
	}
	for _, message := range messages {
		if !strings.Contains(code.String(), message[1]) {
			t.Errorf("no source file has %q", message[1])
		}
	}
}

var (
	jsonTag   = regexp.MustCompile("`json:\"([a-z0-9_]+)(,omit(?:empty|zero))?\"`")
	fieldName = regexp.MustCompile("(\\*?)`([a-z0-9_]+)`")
)

// TestJSONFieldsAreDocumented compares the names of the fields that the commands print with docs/json.md, where names of fields that may be
// missing are in italics.
func TestJSONFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	page := readText(t, filepath.Join(repository, "docs/json.md"))
	shown := map[string]bool{}
	for _, match := range fieldName.FindAllStringSubmatch(page, -1) {
		shown[match[1]+match[2]] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	printed := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "listing.go" { // listing.go reads JSON
			continue
		}
		for _, match := range jsonTag.FindAllStringSubmatch(readText(t, file), -1) {
			printed++
			name := match[1]
			if match[2] != "" {
				name = "*" + name
			}
			if !shown[name] {
				t.Errorf("docs/json.md does not have %s, which %s prints", name, file)
			}
		}
	}
	if printed < 150 {
		t.Errorf("found only %d fields", printed)
	}
}
