package emulator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// served is the part of the OpenAPI document that this test reads.
type served struct {
	Paths map[string]map[string]struct {
		RequestBody struct {
			Content map[string]struct {
				Examples map[string]struct{ Value json.RawMessage }
			}
		}
	}
}

// declaredOperations returns the values of the constants of type Operation.
func declaredOperations(t *testing.T) []emulator.Operation {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "operation.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []emulator.Operation
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if ok {
			name, _ := strconv.Unquote(literal.Value)
			all = append(all, emulator.Operation(name))
		}
		return true
	})
	if len(all) < 9 {
		t.Fatalf("operations %v", all)
	}
	return all
}

// TestOpenAPICoversTheEmulator sends the examples of the OpenAPI document to the
// emulator. It accepts them all, and each of its operations gets a request.
func TestOpenAPICoversTheEmulator(t *testing.T) {
	e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
	status, body := call(t, "GET", url+"/_emulator/openapi.json", "", "", nil)
	var doc served
	if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 {
		t.Fatal(status, err)
	}
	requests := make(map[emulator.Operation]int64)
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			send := func(name string, contentType string, body io.Reader) {
				target := url + strings.NewReplacer("{account_id}", "51", "{knowledge_base_id}", "876", "{conversation_id}", "12wfegrgt4t").Replace(path)
				if method == "get" {
					target += "?source_ids=0"
				}
				if status, answer := call(t, strings.ToUpper(method), target, e.Token(51), contentType, body); status != 200 {
					t.Errorf("%s %s: example %s: %d %s", method, path, name, status, answer)
				}
				for op, n := range e.Counts().Requests {
					requests[op] += n
				}
				// A closed conversation would refuse the next example.
				if err := e.Reset(); err != nil {
					t.Fatal(err)
				}
			}
			if len(operation.RequestBody.Content) == 0 {
				send("none", "", nil)
			}
			for contentType, content := range operation.RequestBody.Content {
				for name, example := range content.Examples {
					contentType, body := contentType, io.Reader(bytes.NewReader(example.Value))
					if strings.HasPrefix(contentType, "multipart/") {
						contentType, body = formOf(t, example.Value)
					}
					send(name, contentType, body)
				}
			}
		}
	}
	for _, op := range declaredOperations(t) {
		if requests[op] == 0 {
			t.Errorf("no example in the OpenAPI document calls the operation %s", op)
		}
	}
}

func formOf(t *testing.T, object []byte) (contentType string, body io.Reader) {
	t.Helper()
	var fields map[string]string
	if err := json.Unmarshal(object, &fields); err != nil {
		t.Fatal(err)
	}
	var parts []formPart
	for field, text := range fields {
		parts = append(parts, formPart{field, fmt.Sprint(field, ".txt"), text})
	}
	return form(parts...)
}
