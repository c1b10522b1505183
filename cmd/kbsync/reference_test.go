package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
)

// update makes the tests write the generated documentation in place of comparing it: make reference.
var update = flag.Bool("update", false, "write the generated documentation")

// commandsOf calls visit for a command and for each one below it that a user can see.
func commandsOf(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			commandsOf(sub, visit)
		}
	}
}

// wholeProgram returns the commands of the program and of cobra.
func wholeProgram() *cobra.Command {
	a := &app{stdin: strings.NewReader(""), out: console.New(io.Discard, io.Discard, false)}
	root := a.rootCommand()
	root.InitDefaultCompletionCmd()
	commandsOf(root, (*cobra.Command).InitDefaultHelpFlag)
	return root
}

func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	commandsOf(wholeProgram(), func(c *cobra.Command) {
		if strings.Contains(c.CommandPath(), " completion") {
			return // cobra's own
		}
		if c.Short == "" || c.Example == "" || c.HasParent() && !c.Parent().HasParent() && c.GroupID == "" {
			t.Errorf("%s: short %q, group %q, example %q", c.CommandPath(), c.Short, c.GroupID, c.Example)
		}
		for row := range strings.Lines(c.Example) {
			for _, l := range ofKbsync("its example", row, false) {
				if err := shown(l); err != nil {
					t.Errorf("%s: kbsync %s: %v", c.CommandPath(), strings.Join(l.argv, " "), err)
				}
			}
		}
	})
}

// cell makes text fit for a cell of a table in Markdown.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// code returns text as a code span, or "" for none.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + cell(text) + "`"
}

// settingsTable writes the settings of a scope. The settings of a sync are those with a key below syncs[].
func settingsTable(b *bytes.Buffer, has func(config.Setting) bool) {
	b.WriteString("| key in the file | flag | variable | value | default | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, s := range config.Settings() {
		if !has(s) {
			continue
		}
		name := ""
		if s.Name != "" {
			name = "--" + s.Name
		}
		kind := string(s.Kind)
		if len(s.Choices) > 0 {
			kind = strings.Join(s.Choices, ", ")
		}
		if s.Repeatable() {
			kind += ", repeatable"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", code(s.Key), code(name), code(s.Env()), cell(kind), code(s.Default), cell(s.Usage))
	}
	b.WriteString("\n")
}

// ownFlags writes the flags of a command that are not settings.
func ownFlags(b *bytes.Buffer, flags *pflag.FlagSet) {
	rows := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*setting); ok || f.Name == "help" || f.Hidden {
			return
		}
		if rows++; rows == 1 {
			b.WriteString("| flag | variable | default | |\n| --- | --- | --- | --- |\n")
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value := f.DefValue
		if value == "[]" || value == "false" || value == "0" || value == "0s" {
			value = ""
		}
		variable := "KBSYNC_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(name), code(variable), code(value), cell(f.Usage))
	})
	if rows > 0 {
		b.WriteString("\n")
	}
}

// settingScopes names the tables with the settings of a command.
func settingScopes(flags *pflag.FlagSet) (scopes []string) {
	has := map[config.Scope]int{}
	flags.VisitAll(func(f *pflag.Flag) {
		if s, ok := f.Value.(*setting); ok {
			has[s.Scope]++
		}
	})
	if has[config.ScopeSync] > 0 {
		scopes = append(scopes, "the [settings of a run](#settings-of-a-run)", "the [settings of a sync](#settings-of-a-sync)")
	}
	if has[config.ScopeWatch] > 0 {
		scopes = append(scopes, "those [of watch](#settings-of-watch)")
	}
	return scopes
}

const referenceHead = `# Reference

All commands, flags, environment variables and keys of the config file. This page is generated from the program: ` + "`make reference`" + ` writes it, and a
test fails if it is out of date. Editors read [kbsync.schema.json](kbsync.schema.json), which is generated from the same table.

A flag overrides its environment variable, and the variable overrides the file. Variables that begin with ` + "`KBSYNC_`" + ` and are not listed here are
errors, and so are unknown keys. A repeatable flag may be given several times; its variable separates patterns by commas or lines, and paths by lines.

| value | is |
| --- | --- |
| size | bytes, with an optional unit: ` + "`32MiB`, `1GB`" + ` |
| duration | ` + "`2s`, `10m`, `1h30m`, `7d`, `2w`" + ` |
| count or percentage | ` + "`20` or `50%`" + ` |
| command | a list of words, run without a shell |
| command or URL | a list of words, a line for the shell, or the URL of a webhook |
| pattern | a glob; ` + "`**` matches any number of directories" + ` |

The token is never in the file or on the command line. It comes from the variable ` + "`REPLYCX_TOKEN`" + `, from ` + "`api.token_file` or from `api.token_command`" + `.

`

// reference returns the text of docs/reference.md.
func reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	ofSync := func(s config.Setting) bool { return strings.HasPrefix(s.Key, "syncs[].") }
	b.WriteString("## Settings of every command\n\n")
	settingsTable(&b, func(s config.Setting) bool {
		return s.Scope == config.ScopeAll || s.Scope == config.ScopeFile && !ofSync(s)
	})
	b.WriteString("## Settings of a run\n\nThe commands that sync have them.\n\n")
	settingsTable(&b, func(s config.Setting) bool { return s.Scope == config.ScopeSync && !ofSync(s) })
	b.WriteString("## Settings of a sync\n\nIn the file, each sync has its own. The block `defaults` holds what several syncs share. A flag or a variable applies to all syncs of the run.\n\n")
	settingsTable(&b, func(s config.Setting) bool {
		return (s.Scope == config.ScopeSync || s.Scope == config.ScopeFile) && ofSync(s)
	})
	b.WriteString("## Settings of watch\n\n")
	settingsTable(&b, func(s config.Setting) bool { return s.Scope == config.ScopeWatch })

	root := wholeProgram()
	b.WriteString("## Flags of every command\n\n")
	ownFlags(&b, root.PersistentFlags())
	b.WriteString("## Commands\n\n")
	commandsOf(root, func(c *cobra.Command) {
		if c == root || strings.Contains(c.CommandPath(), " completion ") {
			return
		}
		fmt.Fprintf(&b, "### %s\n\n%s.\n\n", c.CommandPath(), c.Short)
		if c.Long != "" && c.Name() != "completion" {
			fmt.Fprintf(&b, "%s\n\n", strings.ReplaceAll(strings.TrimSpace(c.Long), "*", `\*`))
		}
		fmt.Fprintf(&b, "Usage: `%s`\n\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
		if c.Example != "" {
			b.WriteString("```sh\n")
		}
		for row := range strings.Lines(c.Example) {
			b.WriteString(cmp.Or(strings.TrimPrefix(strings.TrimRight(row, "\n"), "  "), "") + "\n")
		}
		if c.Example != "" {
			b.WriteString("```\n\n")
		}
		ownFlags(&b, c.LocalNonPersistentFlags())
		if scopes := settingScopes(c.LocalNonPersistentFlags()); len(scopes) > 0 {
			fmt.Fprintf(&b, "It has %s.\n\n", strings.Join(scopes, " and "))
		}
	})
	b.WriteString("## A config file with every setting\n\n`kbsync init ./docs --knowledge-base 876` writes this file.\n\n```yaml\n")
	b.Write(config.Sample("./docs", 876))
	b.WriteString("```\n")
	return b.Bytes()
}

// compareOrWrite fails if a generated file differs from the one in the repository, or writes it with -update.
func compareOrWrite(t *testing.T, name string, want []byte) {
	t.Helper()
	file := filepath.Join(repository, filepath.FromSlash(name))
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got := strings.Split(readText(t, file), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("%s:%d is out of date: run make reference. The program has\n%s", name, i+1, line)
		}
	}
	if len(got) > bytes.Count(want, []byte("\n"))+1 {
		t.Fatalf("%s has more lines than the program: run make reference", name)
	}
}

func TestReferenceIsUpToDate(t *testing.T) {
	t.Parallel()
	compareOrWrite(t, "docs/reference.md", reference())
}

// Each setting and flag has its place in the reference.
func TestReferenceIsComplete(t *testing.T) {
	t.Parallel()
	text := string(reference())
	for _, s := range config.Settings() {
		if strings.Count(text, "| `"+s.Key+"` |") != 1 {
			t.Errorf("%s is not in one table", s.Key)
		}
	}
	names := otherFlags(wholeProgram())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name != "help" && name != "no-descriptions" && // of kbsync completion bash
			!strings.Contains(text, "--"+name+"`") {
			t.Errorf("--%s is in no table", name)
		}
	}
}
