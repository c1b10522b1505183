package deploytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// An exchange is a golden file of the client: a request and the documented answer to it.
type exchange struct {
	Method, Path string
	Request      json.RawMessage
	Form         []struct{ Field, Filename, Content string }
	Status       int
	Answer       json.RawMessage
}

// request returns the exchange's request.
func (e *exchange) request() *http.Request {
	body, contentType := bytes.NewBuffer(e.Request), "application/json"
	if e.Form != nil {
		form := multipart.NewWriter(body)
		contentType = form.FormDataContentType()
		for _, p := range e.Form {
			var part io.Writer
			if p.Filename == "" {
				part, _ = form.CreateFormField(p.Field)
			} else {
				part, _ = form.CreateFormFile(p.Field, p.Filename)
			}
			_, _ = io.WriteString(part, p.Content)
		}
		_ = form.Close()
	}
	r := httptest.NewRequest(e.Method, "https://api.reply.cx"+e.Path, body)
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", "Bearer token")
	return r
}

// refusesRequest reports whether the answer refuses the form of the request. Such a request must not match the document.
func (e *exchange) refusesRequest() bool {
	var answer struct {
		Error   string
		Message any
	}
	_ = json.Unmarshal(e.Answer, &answer)
	_, fields := answer.Message.(map[string]any)
	return fields || answer.Error == "INVALID_DATA"
}

// apiDocument reads the OpenAPI document of the API.
func apiDocument(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../replycx/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	openapi3filter.RegisterBodyDecoder("multipart/form-data", decodeForm)
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// decodeForm decodes a multipart body as an object, a string for each field. The decoder of kin-openapi knows only the fields
// that the schema names, and in an upload any name is a field.
func decodeForm(body io.Reader, header http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
	_, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	fields := make(map[string]any)
	for parts := multipart.NewReader(body, parameters["boundary"]); ; {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		fields[part.FormName()] = string(content)
	}
}

// validate checks an exchange against the document. It returns the error of the request and the error of the answer.
func (e *exchange) validate(t *testing.T, router routers.Router) (route *routers.Route, request, answer error) {
	t.Helper()
	r := e.request()
	route, parameters, err := router.FindRoute(r)
	if err != nil {
		return nil, err, err
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, MultiError: true}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: parameters, Route: route, Options: options}
	request = openapi3filter.ValidateRequest(t.Context(), in)
	answer = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: e.Status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(e.Answer)), Options: options,
	})
	return route, request, answer
}

func exchanges(t *testing.T) map[string]exchange {
	t.Helper()
	files, err := filepath.Glob("../../replycx/testdata/api/*.json")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d golden exchanges, %v", len(files), err)
	}
	all := make(map[string]exchange)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var e exchange
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = e
	}
	return all
}

// TestOpenAPIMatchesGoldenExchanges: the requests and answers of the golden exchanges match the OpenAPI document, each error is
// an example in it, and each of its operations has a golden exchange.
func TestOpenAPIMatchesGoldenExchanges(t *testing.T) {
	doc, router := apiDocument(t)
	used := make(map[string]bool)
	for name, e := range exchanges(t) {
		route, request, answer := e.validate(t, router)
		if refused := e.refusesRequest(); refused && request == nil {
			t.Errorf("%s: the request matches the document, but the API refuses it", name)
		} else if !refused && request != nil {
			t.Errorf("%s: request: %v", name, request)
		}
		if answer != nil {
			t.Errorf("%s: answer: %v", name, answer)
		}
		if route == nil {
			continue
		}
		used[route.Operation.OperationID] = true
		var got any
		if err := json.Unmarshal(e.Answer, &got); err != nil {
			t.Fatal(err)
		}
		if e.Status != http.StatusOK && !hasExample(route.Operation, e.Status, e.Answer) {
			t.Errorf("%s: the error is no example of %s", name, route.Operation.OperationID)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if !used[operation.OperationID] {
				t.Errorf("%s %s has no golden exchange", method, path)
			}
		}
	}
}

// hasExample reports whether an answer is an example of an operation.
func hasExample(operation *openapi3.Operation, status int, answer json.RawMessage) bool {
	want := canonical(answer)
	response := operation.Responses.Status(status)
	if response == nil {
		return false
	}
	for example := range maps.Values(response.Value.Content["application/json"].Examples) {
		data, err := json.Marshal(example.Value.Value)
		if err == nil && canonical(data) == want {
			return true
		}
	}
	return false
}

func canonical(data []byte) string {
	var value any
	if json.Unmarshal(data, &value) != nil {
		return ""
	}
	out, _ := json.Marshal(value)
	return string(out)
}

// TestOpenAPIRefusesOtherExchanges tests the validation: other requests and answers do not match the document.
func TestOpenAPIRefusesOtherExchanges(t *testing.T) {
	_, router := apiDocument(t)
	all := exchanges(t)
	for _, tt := range []struct {
		name, golden, old, new string
		inRequest              bool
	}{
		{"an unknown path", "list-bots", "/bots", "/robots", true},
		{"an id that is no number", "source-status", "source_ids=330783", "source_ids=x", true},
		{"a message of no kind", "send-message-text", `"type": "text"`, `"type": "song"`, true},
		{"an event of no kind", "close-conversation", `"CLOSE"`, `"OPEN"`, true},
		{"a variable of no type", "update-variables", `"type": "contact"`, `"type": "bot"`, true},
		{"a webhook without a token", "set-webhook", `"token"`, `"key"`, true},
		{"a field with the name of a fixed member", "upload-sources", "q1", "ok", true},
		{"a source without an id", "upload-sources", `"id"`, `"key"`, false},
		{"a success that is none", "set-webhook", `"ok": true`, `"ok": false`, false},
		{"an error without a code", "list-bots-bad-token", `"error"`, `"reason"`, false},
		{"field errors as a list", "update-variables-none", `"variables": [
        "Shorter than minimum length 1."
      ]`, `"variables": "Shorter"`, false},
	} {
		e := all[tt.golden]
		before := e
		if tt.inRequest {
			e.Path = strings.Replace(e.Path, tt.old, tt.new, 1)
			e.Request = bytes.Replace(e.Request, []byte(tt.old), []byte(tt.new), 1)
			e.Form = slices.Clone(e.Form)
			for i := range e.Form {
				e.Form[i].Field = strings.Replace(e.Form[i].Field, tt.old, tt.new, 1)
			}
		} else {
			e.Answer = bytes.Replace(e.Answer, []byte(tt.old), []byte(tt.new), 1)
		}
		if reflect.DeepEqual(e, before) {
			t.Errorf("%s: %s has no %s", tt.name, tt.golden, tt.old)
		}
		if _, request, answer := e.validate(t, router); tt.inRequest && request == nil || !tt.inRequest && answer == nil {
			t.Errorf("%s matches the document", tt.name)
		}
	}
}
