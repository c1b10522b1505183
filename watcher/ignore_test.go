package watcher

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// ignoredByUs applies ignore files as a walk does: everything below an ignored directory is ignored.
func ignoredByUs(t *testing.T, files map[string]string, key string) bool {
	t.Helper()
	var file *ignoreFile
	load := func(dir string) {
		if text, ok := files[dir]; ok {
			f, err := parseIgnore([]byte(text), dir, file)
			if err != nil {
				t.Fatal(err)
			}
			file = f
		}
	}
	load("")
	for i := 0; i < len(key); i++ {
		if key[i] != '/' {
			continue
		}
		if by, ok := file.match(key[:i], true); ok && !by.rule.negated {
			return true
		}
		load(key[:i+1])
	}
	by, ok := file.match(key, false)
	return ok && !by.rule.negated
}

// TestIgnoreAgainstGit compares verdicts with those of git itself, on random trees and patterns. Names in several cases make us leave
// out more, never less, than git does with and without case.
func TestIgnoreAgainstGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("this test compares with git, which is not installed: ", err)
	}
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(7, uint64(round)))
		names := []string{"a", "b", "foo", "foobar", "x.md", "y.txt", "[z]", "a b", "#h", "!n", "foo.md", "bar", "a-b", "q ", `s\t`}
		cases := round%3 == 2 && runtime.GOOS == "linux" // other systems have files without case
		if cases {
			names = append(names, "Bar", "FOO", "X.md", "Foo.md", "B")
		}
		pick := func() string { return names[rng.IntN(len(names))] }
		var keys []string
		dirs := []string{""}
		for range 12 {
			if d := dirs[rng.IntN(len(dirs))]; strings.Count(d, "/") < 4 {
				dirs = append(dirs, d+pick()+"/")
			}
		}
		isDir := map[string]bool{}
		for _, d := range dirs {
			isDir[d] = true
		}
		for _, d := range dirs {
			for range 4 {
				if key := d + pick(); !isDir[key+"/"] {
					keys = append(keys, key)
				}
			}
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		atom := func() string {
			switch rng.IntN(16) {
			case 0:
				return "*"
			case 1:
				return "**"
			case 2:
				return "?"
			case 3:
				return "[a-f]oo"
			case 4:
				return "[!a]*"
			case 5:
				return "*.md"
			case 6:
				return "[[:alpha:]]*[]d]"
			case 7:
				return "fo**"
			case 8:
				return "*o*"
			case 9:
				return "**o"
			case 10:
				return `\` + pick()
			case 11:
				return `[\[a]` + pick()
			default:
				return pick()
			}
		}
		files := map[string]string{}
		for _, d := range dirs {
			if d != "" && rng.IntN(3) > 0 {
				continue
			}
			var text strings.Builder
			for range 1 + rng.IntN(5) {
				var line string
				if rng.IntN(3) == 0 {
					line = "!"
				}
				if rng.IntN(4) == 0 {
					line += "/"
				}
				line += atom()
				for range rng.IntN(3) {
					line += "/" + atom()
				}
				if rng.IntN(4) == 0 {
					line += "/"
				}
				switch rng.IntN(12) {
				case 0:
					line += " "
				case 1:
					line += `\ `
				case 2:
					line += "\r"
				case 3:
					line = "# " + line
				case 4:
					line = ""
				}
				if _, err := parseIgnore([]byte(line), d, nil); err != nil {
					continue // git ignores it silently
				}
				text.WriteString(line + "\n")
			}
			files[d] = text.String()
		}
		repo := t.TempDir()
		for _, key := range keys {
			path := filepath.Join(repo, filepath.FromSlash(key))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for d, text := range files {
			dir := filepath.Join(repo, filepath.FromSlash(d))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		git := func(stdin string, args ...string) string {
			cmd := exec.Command("git", args...)
			cmd.Dir = repo
			cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "XDG_CONFIG_HOME="+repo, "HOME="+repo)
			cmd.Stdin = strings.NewReader(stdin)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
				t.Fatalf("git %v: %v: %s", args, err, &stderr)
			}
			return string(out)
		}
		git("", "init", "-q")
		git("", "config", "core.ignorecase", fmt.Sprint(round%2 == 0 && cases))
		out := git(strings.Join(keys, "\x00")+"\x00", "check-ignore", "-z", "--no-index", "--stdin")
		byGit := map[string]bool{}
		for key := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
			byGit[key] = true
		}
		for _, key := range keys {
			if ours := ignoredByUs(t, files, key); ours != byGit[key] && (!cases || byGit[key]) {
				t.Errorf("round %d: %q: ignored by us %v, by git %v\n%s", round, key, ours, byGit[key], fmt.Sprintf("%q", files))
			}
		}
		if t.Failed() {
			return
		}
	}
}

func TestInvalidIgnorePatternIsAnError(t *testing.T) {
	for _, text := range []string{"[abc", `foo\`, "[[:word:]]", "[a-"} {
		_, err := parseIgnore([]byte("ok\n"+text+"\n"), "sub/", nil)
		if err == nil || !strings.Contains(err.Error(), "sub/.kbsyncignore:2") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestIgnorePatternTakesBoundedTime(t *testing.T) {
	f, err := parseIgnore([]byte(strings.Repeat("a*", 60)+"b\n"+strings.Repeat("**/a*/", 60)+"b\n"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := f.match(strings.Repeat(strings.Repeat("a", 250)+"/", 10)+strings.Repeat("a", 250), false); ok {
		t.Error("matched")
	}
}
