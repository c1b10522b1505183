package replycx_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedOperations compares the table of docs/api.md with the client: the
// operations are the exported methods whose documentation lists documented errors.
func TestDocumentedOperations(t *testing.T) {
	data, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string][]string) // by client method
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, "`Client.") || !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			if cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`"); cells[i] == "" {
				t.Errorf("an empty cell in %s", line)
			}
		}
		if len(cells) != 7 {
			t.Fatalf("%d cells in %s", len(cells), line)
		}
		rows[strings.TrimPrefix(cells[2], "Client.")] = cells
	}
	all := goldens(t)
	sentinel := regexp.MustCompile(`Err[A-Z][A-Za-z]+`)
	for name, doc := range operations(t) {
		cells, ok := rows[name]
		if !ok {
			t.Errorf("Client.%s is not in docs/api.md", name)
			continue
		}
		delete(rows, name)
		method, path, _ := strings.Cut(cells[1], " ")
		documented := regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(doc, "{}")
		if endpoint := method + " " + regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(path, "{}"); !strings.Contains(documented, endpoint) {
			t.Errorf("Client.%s: the method's documentation does not name %s", name, endpoint)
		}
		golden, _, _ := strings.Cut(cells[5], "`") // the story of its command stands behind it
		if _, ok := all[strings.TrimPrefix(golden, "TestGolden/")]; !ok {
			t.Errorf("Client.%s: there is no test %s", name, golden)
		}
		_, list, _ := strings.Cut(doc, "Documented errors:")
		list, _, _ = strings.Cut(list, ";") // the rest is not from the API
		want, got := sentinel.FindAllString(list, -1), sentinel.FindAllString(cells[6], -1)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("Client.%s: the table has the errors %v, the documentation %v", name, got, want)
		}
	}
	for name := range rows {
		t.Errorf("docs/api.md has Client.%s, which is no operation", name)
	}
}

// TestDocumentedSections: the documentation of each operation names its section of the
// API's document, and each section has an operation.
func TestDocumentedSections(t *testing.T) {
	sections := map[string]int{
		"Adding a data source to a knowledge base": 0, "Get training status of a data source": 0, "Creating a conversation": 0,
		"Send agent response to a conversation": 0, "Closing a conversation": 0, "Changing assignee in a conversation": 0,
		"Update variable of a conversation": 0, "Set webhook URL for Events feature": 0, "Fetch Bots List": 0,
	}
	section := regexp.MustCompile(`Section "([^"]+)"`)
	for name, doc := range operations(t) {
		match := section.FindStringSubmatch(doc)
		if match == nil {
			t.Errorf("the documentation of %s names no section", name)
			continue
		}
		if _, ok := sections[match[1]]; !ok {
			t.Errorf("%s: the document has no section %q", name, match[1])
		}
		sections[match[1]]++
	}
	for name, n := range sections {
		if n == 0 {
			t.Errorf("no operation names the section %q", name)
		}
	}
}

// TestEveryTaskHasAnExample: each operation has an example for the package page.
func TestEveryTaskHasAnExample(t *testing.T) {
	data, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for name := range operations(t) {
		if !strings.Contains(string(data), "func ExampleClient_"+name+"(") {
			t.Errorf("Client.%s has no example", name)
		}
	}
}

// operations returns the documentation of the client's operations by name.
func operations(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || !f.Name.IsExported() || !strings.Contains(f.Doc.Text(), "Documented errors:") {
				continue
			}
			found[f.Name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
	}
	if len(found) != 10 {
		t.Errorf("%d operations: %v", len(found), found)
	}
	return found
}

// TestClientImportsOneModule: other programs import the client, so it must not import
// kbsync, and only one module outside the standard library.
func TestClientImportsOneModule(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path := strings.Trim(i.Path.Value, `"`); strings.Contains(path, ".") && path != "github.com/cenkalti/backoff/v4" {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}
