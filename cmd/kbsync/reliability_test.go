package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachPromiseNamesTestsThatExist reads docs/reliability.md: each row of its tables of promises names a test, a fuzz target or a
// story, and all that it names exist.
func TestEachPromiseNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	functions := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	exist := map[string]bool{}
	root := os.DirFS(repository)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "bin" || name == ".git"):
			return fs.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		data, err := fs.ReadFile(root, name)
		for _, m := range functions.FindAllSubmatch(data, -1) {
			exist[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([A-Za-z_]+)`")
	rows := 0
	for line := range strings.Lines(readText(t, filepath.Join(repository, "docs", "reliability.md"))) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(line, "| ---") || strings.Contains(line, "| promise |") {
			continue
		}
		rows++
		proofs := names.FindAllStringSubmatch(cells[3], -1)
		if len(proofs) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, p := range proofs {
			_, err := os.Stat(filepath.Join("testdata", "script", p[1]+".txtar"))
			if !exist[p[1]] && err != nil {
				t.Errorf("there is no test %s: %s", p[1], line)
			}
		}
	}
	if rows < 30 {
		t.Errorf("found only %d promises", rows)
	}
}
