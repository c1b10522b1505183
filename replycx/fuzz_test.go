package replycx_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/kbsync/kbsync/replycx"
)

var answerSeeds = []string{
	``, ` `, `null`, `{}`, `[]`, `"x"`, `7`, `{"ok":true}`, `{"ok":false}`, `{"Ok":false,"error":"X"}`, `{"ok":"yes"}`, "\xef\xbb\xbf{}", `{“Ok”: true}`,
	`{"q1":[{"id":330783,"type":"text","name":"sample.txt","status":"in-progress","errors":null}],"knowledge_base_id":876,"ok":true}`,
	`{"q1":[{"id":1},{"id":"2"},{"id":-3},{"id":1e3},{"id":99999999999999999999}],"q2":{},"ok":true}`,
	`{"q1":[{"id":1,"errors":["a",{"b":[]}]}]}`, `{"q1":[null,1,"x",[]]}`,
	`{"sources":[{"id":330778,"name":"sample.txt","status":"in-progress","knowledge_base_id":876}],"ok":true}`, `{"sources":[{}],"ok":true}`, `{"sources":null}`,
	`{"ok":false,"error":"KNOWLEDGE_BASE_NOT_FOUND","message":"KnowledgeBase Not Found in DB!","code":"KNOWLEDGE_BASE_NOT_FOUND","status":404}`,
	`{"ok":false,"message":{"variables":["Shorter than minimum length 1."]},"status":400,"error":"BAD_REQUEST"}`, `{"message":{"a":{"b":[1]},"c":5}}`,
	`<html><body>502</body></html>`, `{"ok":tr`, strings.Repeat(`[`, 9000), strings.Repeat(`{"a":`, 9000), `{"a":[{"id":1}],"a":[{"id":2}]}`, "\x00\xff\u202e\x1b[0m",
}

// FuzzErrorBody: any error body gives an *Error, and its text is safe for a line of a
// terminal.
func FuzzErrorBody(f *testing.F) {
	for _, s := range answerSeeds {
		f.Add(400, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 300 || status > 599 {
			status = 500
		}
		c := answering(t, status, body, nil)
		_, err := c.SourceStatus(context.Background(), []int64{1})
		e, ok := errors.AsType[*replycx.Error](err)
		if !ok || e.StatusCode != status {
			t.Fatalf("error %v", err)
		}
		text := err.Error()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q is not fit to be shown", text)
		}
		if e.FromAPI && !json.Valid([]byte(strings.TrimPrefix(string(body), "\xef\xbb\xbf"))) {
			t.Errorf("%q counts as the API's own", body)
		}
	})
}

// FuzzUploadAnswer: an answer to an upload is a result, a refusal or invalid, and
// every field of the request has sources with valid ids or is missing.
func FuzzUploadAnswer(f *testing.F) {
	for _, s := range answerSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := answering(t, 200, body, nil)
		result, err := c.UploadSources(context.Background(), 1, []replycx.Part{file("q1", "a", "a"), file("q2", "b", "b")}, nil)
		if err != nil {
			_, refused := errors.AsType[*replycx.Error](err)
			_, broken := errors.AsType[*replycx.AnswerError](err)
			if unsent(err) || refused == broken || result != nil {
				t.Fatalf("error %v, result %v", err, result)
			}
			return
		}
		missing := strings.Join(result.Missing, " ")
		for field, sources := range result.Sources {
			if len(sources) == 0 {
				t.Errorf("field %q is there without a source", field)
			}
			for _, s := range sources {
				if s.ID <= 0 || !utf8.ValidString(s.Name+s.Errors+string(s.Status)) {
					t.Errorf("source %+v", s)
				}
			}
		}
		for _, field := range []string{"q1", "q2"} {
			if len(result.Sources[field]) == 0 && !strings.Contains(missing, field) {
				t.Errorf("field %s is neither there nor missing", field)
			}
		}
	})
}

// FuzzStatusAnswer: a status answer is a result, a refusal or invalid.
func FuzzStatusAnswer(f *testing.F) {
	for _, s := range answerSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := answering(t, 200, body, nil)
		statuses, err := c.SourceStatus(context.Background(), []int64{1})
		if err != nil {
			_, refused := errors.AsType[*replycx.Error](err)
			_, broken := errors.AsType[*replycx.AnswerError](err)
			if refused == broken {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, s := range statuses {
			if s.ID <= 0 {
				t.Errorf("status %+v", s)
			}
		}
	})
}
