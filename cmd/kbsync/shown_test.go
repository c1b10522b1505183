package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
)

const (
	repository = "../.."
	examples   = "../../examples"
	image      = "kbsync:local" // the placeholder of the manifests and of the Compose file
)

// parseOnly parses a command line with the commands of the program and runs none of them. It returns the command, its
// arguments, and the app with the global flags. A sentence may leave arguments out: `kbsync sources ack`.
func parseOnly(argv []string, sentence bool) (a *app, cmd *cobra.Command, args []string, err error) {
	a = &app{stdin: strings.NewReader(""), out: console.New(io.Discard, io.Discard, false), now: time.Now}
	root := a.rootCommand()
	root.PersistentPreRunE = nil
	var replace func(*cobra.Command)
	replace = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			replace(sub)
		}
		if !c.HasParent() {
			return // the root command itself rejects unknown commands
		}
		if sentence {
			c.Args = cobra.ArbitraryArgs
		}
		c.Run, c.RunE = nil, func(c *cobra.Command, given []string) error {
			cmd, args = c, given
			return nil
		}
	}
	replace(root)
	root.SetArgs(argv)
	err = root.Execute()
	return a, cmd, args, err
}

// parseWith parses a command line and the config that it names, as the program does.
func parseWith(argv []string, files map[string][]byte) (*config.Config, error) {
	a, cmd, args, err := parseOnly(argv, false)
	if err != nil {
		return nil, err
	}
	if cmd == nil {
		return nil, errors.New("runs no command")
	}
	data, ok := files[a.configPath]
	if !ok {
		return nil, fmt.Errorf("the examples have no file for --config %q", a.configPath)
	}
	if cmd.Name() == "export" || cmd.Name() == "apply" {
		args = nil // its argument is a file, not a sync
	}
	return config.Parse(config.Input{
		Path: a.configPath, File: data, Dir: "/",
		Flags: settingsOf(cmd), OtherFlags: otherFlags(cmd.Root()), Args: args,
	})
}

// A line is a command line of kbsync in the documentation or the examples.
type line struct {
	where    string
	argv     []string // without the name of the program
	sentence bool     // the line is part of a sentence
}

var (
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	cronTimes  = regexp.MustCompile(`^\s*([-*/,0-9]+\s+){5}`)
	// A placeholder such as NAME or FILE.
	standIn = regexp.MustCompile(`^[A-Z]+(\.\.\.)?$`)
)

// words splits a shell line into its commands, and each command into words. It supports the syntax of the examples: quotes,
// comments, redirections and the separators of commands.
func words(text string) (commands [][]string) {
	var command []string
	var word strings.Builder
	inWord, target := false, false
	var quote rune
	endWord := func() {
		if inWord && !target {
			command = append(command, word.String())
		}
		if inWord {
			target = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if command != nil {
			commands = append(commands, command)
		}
		command, target = nil, false
	}
	for _, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			endCommand()
			return commands
		case r == ' ' || r == '\t':
			endWord()
		case r == ';' || r == '|' || r == '&' || r == '\n':
			endCommand()
		case r == '>' || r == '<':
			endWord()
			target = true
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	endCommand()
	return commands
}

// ofKbsync finds the command lines of kbsync in a shell line.
func ofKbsync(where, text string, sentence bool) (lines []line) {
	for _, command := range words(cronTimes.ReplaceAllString(text, "")) {
		for len(command) > 0 && (command[0] == "$" || assignment.MatchString(command[0])) {
			command = command[1:]
		}
		if len(command) > 3 && command[0] == "sudo" && command[1] == "-u" {
			command = command[3:]
		}
		if len(command) > 0 && path.Base(command[0]) == "kbsync" {
			lines = append(lines, line{where, command[1:], sentence})
		}
	}
	return lines
}

// A block is a fenced block of Markdown.
type block struct {
	where    string // file:line of its fence
	language string
	rows     []string
	first    int // the number of the line after the fence
}

// blocksOf returns the fenced blocks of a Markdown text, and its other lines by their number. Blocks in lists are indented.
func blocksOf(name, text string) (blocks []block, prose map[int]string) {
	prose = map[int]string{}
	var open *block
	indent, n := "", 0
	for row := range strings.Lines(text) {
		n++
		row = strings.TrimRight(row, "\n")
		bare := strings.TrimLeft(row, " ")
		switch language, fence := strings.CutPrefix(bare, "```"); {
		case fence && open == nil:
			indent = row[:len(row)-len(bare)]
			open = &block{where: fmt.Sprintf("%s:%d", name, n), language: cmp.Or(language, "text"), first: n + 1}
		case fence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.rows = append(open.rows, strings.TrimPrefix(row, indent))
		default:
			prose[n] = row
		}
	}
	return blocks, prose
}

// inMarkdown finds the command lines in fenced blocks and code spans, and the blocks that are configs.
func inMarkdown(name, text string) (lines []line, configs map[string]string) {
	configs = map[string]string{}
	blocks, prose := blocksOf(name, text)
	for _, b := range blocks {
		whole := strings.Join(b.rows, "\n") + "\n"
		if b.language != "yaml" {
			for i, row := range b.rows {
				lines = append(lines, ofKbsync(fmt.Sprintf("%s:%d", name, b.first+i), row, false)...)
			}
		} else if strings.Contains("\n"+whole, "\nsyncs:") {
			configs[b.where] = whole
		}
	}
	for n, row := range prose {
		for _, span := range codeSpan.FindAllStringSubmatch(row, -1) {
			lines = append(lines, ofKbsync(fmt.Sprintf("%s:%d", name, n), span[1], true)...)
		}
	}
	return lines, configs
}

// inComments finds the command lines in the comments of an example, indented or in code spans, and in the lines of a crontab.
func inComments(name, text string) (lines []line) {
	n := 0
	for row := range strings.Lines(text) {
		n++
		where := fmt.Sprintf("%s:%d", name, n)
		trimmed := strings.TrimSpace(row)
		if code, ok := strings.CutPrefix(trimmed, "#   "); ok {
			lines = append(lines, ofKbsync(where, code, false)...)
		} else if strings.HasPrefix(trimmed, "#") {
			for _, span := range codeSpan.FindAllStringSubmatch(trimmed, -1) {
				lines = append(lines, ofKbsync(where, span[1], true)...)
			}
		} else if path.Base(name) == "crontab" {
			lines = append(lines, ofKbsync(where, row, false)...)
		}
	}
	return lines
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n")
}

// TestShownCommandLinesParse parses every command line in the documentation and the examples.
func TestShownCommandLinesParse(t *testing.T) {
	t.Parallel()
	var lines []line
	blocks := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "examples/*.yaml", "examples/crontab", "examples/Dockerfile", "examples/*/*.yaml", "examples/systemd/*"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text := readText(t, file)
			name := strings.TrimPrefix(filepath.ToSlash(file), repository+"/")
			if path.Ext(name) != ".md" {
				lines = append(lines, inComments(name, text)...)
				continue
			}
			found, configs := inMarkdown(name, text)
			lines = append(lines, found...)
			for where, block := range configs {
				blocks++
				if _, err := config.Parse(config.Input{Path: "kbsync.yaml", File: []byte(block), Dir: "/"}); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
		}
	}
	if len(lines) < 30 || blocks == 0 {
		t.Errorf("found only %d command lines and %d configs", len(lines), blocks)
	}
	for _, l := range lines {
		if len(l.argv) > 0 && standIn.MatchString(l.argv[0]) {
			continue // kbsync COMMAND --help
		}
		if err := shown(l); err != nil {
			t.Errorf("%s: kbsync %s: %v", l.where, strings.Join(l.argv, " "), err)
		}
	}
}

// shown checks a command line, and the values of its settings.
func shown(l line) error {
	_, cmd, _, err := parseOnly(l.argv, l.sentence)
	if err != nil {
		return err
	}
	if cmd == nil {
		return nil // --help, or without an argument
	}
	flags := settingsOf(cmd)
	for name, values := range flags {
		if slices.ContainsFunc(values, standIn.MatchString) {
			delete(flags, name)
		}
	}
	_, err = config.Parse(config.Input{
		Path: "kbsync.yaml", File: []byte("syncs: [{name: a, root: docs, knowledge_base: 1}]"), Dir: "/",
		Flags: flags, OtherFlags: otherFlags(cmd.Root()),
	})
	return err
}

func TestShownCommandLinesWithMistakesFail(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"kbsync snyc", "kbsync sync --touchfile /x", "kbsync sync a b", "kbsync state exprot", "*/5 * * * * kbsync -Q sync",
		"FOO=1 bin/kbsync sync --settle soon", "sudo -u me /usr/local/bin/kbsync status --nope", "a && kbsync emulator --listn :1 &",
	} {
		lines := ofKbsync("here", text, false)
		if len(lines) != 1 {
			t.Errorf("%s: %d command lines found", text, len(lines))
			continue
		}
		if err := shown(lines[0]); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	got := words(`a 'b c' "d" >e 2 f <g;h|i & j # k`)
	want := [][]string{{"a", "b c", "d", "2", "f"}, {"h"}, {"i"}, {"j"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("words are %q", got)
	}
}
