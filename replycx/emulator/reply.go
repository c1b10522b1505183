package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// reply is an answer ready to be sent.
type reply struct {
	status int
	body   []byte
	header http.Header // overrides the default Content-Type
}

func (a reply) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// failure is the API's error body. Its members are in the document's order.
type failure struct {
	OK      bool   `json:"ok"`
	Error   string `json:"error"`
	Code    string `json:"code,omitempty"`
	Message any    `json:"message"`
	Status  int    `json:"status"`
}

func encode(status int, body any) reply {
	data, err := json.Marshal(body)
	if err != nil {
		return reply{status: http.StatusInternalServerError, body: []byte(`{"ok":false,"error":"INTERNAL"}`)}
	}
	return reply{status: status, body: data}
}

// fail is an error with both "error" and "code".
func fail(status int, code, message string) reply {
	return encode(status, failure{Error: code, Code: code, Message: message, Status: status})
}

// failWithoutCode is an error without "code", as the API's document shows some.
func failWithoutCode(status int, code string, message any) reply {
	return encode(status, failure{Error: code, Message: message, Status: status})
}

func badRequest(message string) reply {
	return fail(http.StatusBadRequest, "BAD_REQUEST", message)
}

// readJSON decodes the JSON object in a request's body. Its errors are messages for
// the client.
func readJSON(r *http.Request, out any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	if err != nil {
		return errors.New("the body is incomplete")
	}
	return decodeJSON(data, out)
}

// decodeJSON decodes a JSON object. It refuses what encoding/json accepts or repairs:
// null, and text that is not UTF-8.
func decodeJSON(data []byte, out any) error {
	switch {
	case len(data) > maxJSON:
		return fmt.Errorf("the body is larger than %d bytes", maxJSON)
	case !utf8.Valid(data):
		return errors.New("the body is not UTF-8")
	case bytes.Equal(bytes.TrimSpace(data), []byte("null")):
		return errors.New("the body is not the expected JSON: it is null, not an object")
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the body is not the expected JSON: %w", err)
	}
	return nil
}

// done is the answer to a request without data: {"ok": true}, or the error.
func done(err error) reply {
	if err != nil {
		return internal(err)
	}
	return encode(http.StatusOK, map[string]any{"ok": true})
}

func internal(err error) reply {
	return fail(http.StatusInternalServerError, "INTERNAL", err.Error())
}

// fieldErrors is the error of a request with invalid fields.
func fieldErrors(fields map[string][]string) reply {
	return failWithoutCode(http.StatusBadRequest, "BAD_REQUEST", fields)
}

// maxJSON is the largest JSON request in bytes.
const maxJSON = 1 << 20
