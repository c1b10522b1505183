package emulator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// TestGolden sends each documented request by plain HTTP. A refusal must be identical
// to the documented one; a success must have the documented members and JSON types.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("../testdata/api/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var g struct {
				Method, Path, Token string
				Account             int64
				Request             json.RawMessage
				Form                []struct{ Field, Filename, Content string }
				Status              int
				Answer              json.RawMessage
			}
			if err := json.Unmarshal(data, &g); err != nil {
				t.Fatal(err)
			}
			e, url := start(t, emulator.Options{Webhook: emulator.WebhookOptions{NoHandshake: true}})
			if g.Token == "" {
				if g.Account == 0 {
					g.Account = 51
				}
				g.Token = e.Token(g.Account)
			}
			if g.Method == "GET" && g.Status == 200 {
				upload(t, url, e.Token(51), 876, formPart{"q1", "sample.txt", "A sample."})
			}
			contentType, body := "application/json", io.Reader(bytes.NewReader(g.Request))
			if g.Form != nil {
				var parts []formPart
				for _, p := range g.Form {
					parts = append(parts, formPart{p.Field, p.Filename, p.Content})
				}
				contentType, body = form(parts...)
			}
			status, answer := call(t, g.Method, url+g.Path, g.Token, contentType, body)
			var got, want any
			if err := json.Unmarshal([]byte(answer), &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(g.Answer, &want); err != nil {
				t.Fatal(err)
			}
			if status != g.Status {
				t.Errorf("status %d, want %d", status, g.Status)
			}
			if g.Status == 200 {
				if different := differ("answer", got, want); different != "" {
					t.Errorf("%s\n%s", different, answer)
				}
				return
			}
			if m := want.(map[string]any); m["message"] == "Error message" {
				m["message"] = got.(map[string]any)["message"] // the document's placeholder
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("answer %s\nwant %s", answer, g.Answer)
			}
		})
	}
}

// differ returns the place at which two answers differ in members or JSON types.
func differ(at string, got, want any) string {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
			return fmt.Sprintf("%s has the members %v, want %v", at, got, want)
		}
		for k := range want {
			if d := differ(at+"."+k, got[k], want[k]); d != "" {
				return d
			}
		}
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return fmt.Sprintf("%s is %v, want %v", at, got, want)
		}
		for i := range want {
			if d := differ(fmt.Sprintf("%s[%d]", at, i), got[i], want[i]); d != "" {
				return d
			}
		}
	default:
		if reflect.TypeOf(got) != reflect.TypeOf(want) {
			return fmt.Sprintf("%s is %T, want %T", at, got, want)
		}
		if _, isText := want.(string); !isText && got != want {
			return fmt.Sprintf("%s is %v, want %v", at, got, want)
		}
	}
	return ""
}
