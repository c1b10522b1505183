package state

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// SQLite reports an unknown name only when the query runs.
func TestEveryNameInAQueryIsKnown(t *testing.T) {
	name := regexp.MustCompile(`\{[a-z]+\.[a-z]+\}`)
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	known := newTexts("{skip.locked}", "", "{no.index}", "", "{share.lock}", "", "{db.now}", "0")
	found := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || f.Name() == "codes.go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range name.FindAllString(text, -1) {
				found++
				if known.of(n) == n {
					t.Errorf("%s: %s is not a name of codes.go", f.Name(), n)
				}
			}
			return true
		})
	}
	if found < 100 {
		t.Fatalf("only %d names found", found)
	}
}
