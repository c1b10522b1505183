package replycx_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx"
)

// openAPI returns the codes of the errors in the OpenAPI document by endpoint, such as
// "GET /v1/accounts/{}/bots".
func openAPI(t *testing.T) map[string][]string {
	t.Helper()
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]struct {
				Content map[string]struct {
					Examples map[string]struct{ Value struct{ Error string } }
				}
			}
		}
	}
	if err := json.Unmarshal(replycx.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %q", doc.OpenAPI)
	}
	parameter := regexp.MustCompile(`\{[a-z_]+\}`)
	all := make(map[string][]string)
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			endpoint := strings.ToUpper(method) + " " + parameter.ReplaceAllString(path, "{}")
			all[endpoint] = []string{}
			for _, response := range operation.Responses {
				for name, example := range response.Content["application/json"].Examples {
					if code := example.Value.Error; code != "" {
						all[endpoint] = append(all[endpoint], code)
						if code != name {
							t.Errorf("%s: the example %s has the code %s", endpoint, name, code)
						}
					}
				}
			}
			slices.Sort(all[endpoint])
		}
	}
	return all
}

// codes returns the values of the constants of type Code by name.
func codes(t *testing.T) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		call, ok := spec.Values[0].(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		name, isName := call.Fun.(*ast.Ident)
		literal, isLiteral := call.Args[0].(*ast.BasicLit)
		if isName && isLiteral && name.Name == "Code" {
			all[spec.Names[0].Name], _ = strconv.Unquote(literal.Value)
		}
		return true
	})
	return all
}

// TestOpenAPICoversTheClient: the OpenAPI document has the endpoint of each operation of
// the client with the documented errors, and nothing else.
func TestOpenAPICoversTheClient(t *testing.T) {
	byName := codes(t)
	byName["ErrKnowledgeBaseNotOwned"] = byName["ErrBadRequest"]
	want := make(map[string]map[string]bool) // codes by endpoint
	endpoint := regexp.MustCompile(`\b(GET|POST) (/[a-z0-9_{}/-]+)`)
	sentinel := regexp.MustCompile(`Err[A-Z][A-Za-z]+`)
	for name, doc := range operations(t) {
		match := endpoint.FindStringSubmatch(doc)
		if match == nil {
			t.Errorf("the documentation of %s names no endpoint", name)
			continue
		}
		at := match[1] + " " + regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(match[2], "{}")
		if want[at] == nil {
			want[at] = make(map[string]bool)
		}
		_, list, _ := strings.Cut(doc, "Documented errors:")
		list, _, _ = strings.Cut(list, ";") // the rest is not from the API
		for _, one := range sentinel.FindAllString(list, -1) {
			if byName[one] == "" {
				t.Errorf("%s: %s has no code", name, one)
			}
			want[at][byName[one]] = true
		}
	}
	got := openAPI(t)
	for at, list := range want {
		if documented, ok := got[at]; !ok {
			t.Errorf("the OpenAPI document lacks %s", at)
		} else if list := slices.Sorted(maps.Keys(list)); !slices.Equal(documented, list) {
			t.Errorf("%s has the errors %v in the OpenAPI document, %v in the client", at, documented, list)
		}
		delete(got, at)
	}
	for at := range got {
		t.Errorf("the OpenAPI document has %s, which the client lacks", at)
	}
}
