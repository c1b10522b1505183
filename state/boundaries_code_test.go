package state_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// outsideOfPasses are methods that write and that no pass calls: commands of a person, and the hooks.
var outsideOfPasses = map[string]string{
	"Journal.Adopt":       "kbsync state adopt",
	"Journal.AdoptStrays": "kbsync state adopt",
	"Queue.ClaimAll":      "kbsync state adopt",
	"Store.Import":        "kbsync state import, in one transaction",
	"Outbox.Enqueue":      "TestEnqueueReportsNewItemsOnce: the outbox compares what is true with what was reported",
	"Outbox.Ack":          "the same",
	"Outbox.Retry":        "the same",
}

// TestEveryBoundaryHasARow compares the table of boundaries with the code: the methods of package state that write, and the methods of
// the interfaces through which a pass reaches the API and the root.
func TestEveryBoundaryHasARow(t *testing.T) {
	t.Parallel()
	found := writingMethods(t)
	for name, of := range map[string]reflect.Type{
		"API": reflect.TypeFor[ingest.API](), "API ": reflect.TypeFor[tracker.API](), "Root": reflect.TypeFor[ingest.Root](),
	} {
		for m := range of.Methods() {
			found[strings.TrimSpace(name)+"."+m.Name] = true
		}
	}
	for method := range found {
		if _, ok := boundaries[method]; !ok && outsideOfPasses[method] == "" {
			t.Errorf("%s is a boundary of the pipeline without a row in the table. Write what a kill before and after it costs, and let a "+
				"phase of the life reach it", method)
		}
	}
	for method := range boundaries {
		if !found[method] && !strings.HasPrefix(method, "Reader.") {
			t.Errorf("the table has %s, which the code has not", method)
		}
	}
	for method := range outsideOfPasses {
		if !found[method] {
			t.Errorf("%s is not in the code", method)
		}
	}
	if len(found) < 40 {
		t.Errorf("found only %d boundaries", len(found))
	}
}

// writingMethods returns the exported methods of package state from which a transaction can begin. Calls are followed by their names.
func writingMethods(t *testing.T) map[string]bool {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls, methods := map[string][]string{}, map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			receiver := receiverOf(f)
			// A backend and a transaction are below the boundary.
			if receiver == "tx" || strings.HasSuffix(receiver, "DB") || strings.HasSuffix(receiver, "Tx") || receiver == "leases" {
				continue
			}
			name := f.Name.Name
			if ast.IsExported(name) && isGroup(receiver) {
				name = receiver + "." + name
				methods[name] = true
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if _, local := n.X.(*ast.Ident); local {
						calls[name] = append(calls[name], n.Sel.Name)
					} else if x, ok := n.X.(*ast.SelectorExpr); ok && x.Sel.Name == "db" {
						calls[name] = append(calls[name], n.Sel.Name)
					}
				case *ast.Ident:
					calls[name] = append(calls[name], n.Name)
				}
				return true
			})
		}
	}
	found := map[string]bool{}
	for method := range methods {
		if writes(calls, method, map[string]bool{}) {
			found[method] = true
		}
	}
	return found
}

func writes(calls map[string][]string, name string, seen map[string]bool) bool {
	if name == "update" || name == "updateLazily" {
		return true
	}
	if seen[name] {
		return false
	}
	seen[name] = true
	for _, called := range calls[name] {
		if writes(calls, called, seen) {
			return true
		}
	}
	return false
}

// isGroup reports whether a type is the Store or one of its groups of methods.
func isGroup(name string) bool {
	_, ok := reflect.TypeFor[state.Store]().FieldByName(name)
	return ok || name == "Store"
}

func receiverOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if p, ok := of.(*ast.StarExpr); ok {
		of = p.X
	}
	if id, ok := of.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
