package replycx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer is a server's answer with as much of its body as arrived.
type answer struct {
	op     string
	status int
	header http.Header
	body   []byte // in buf
	err    error  // why the body is incomplete, nil if it is complete
	token  string

	buf  *bytes.Buffer
	pool *sync.Pool
}

func (c *Client) readAnswer(op string, resp *http.Response, token string) *answer {
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized && c.refused != nil {
		c.refused(token)
	}
	buf := c.answers.Get().(*bytes.Buffer)
	buf.Reset()
	_, err := io.Copy(buf, io.LimitReader(resp.Body, MaxAnswer+1))
	a := &answer{op: op, status: resp.StatusCode, header: resp.Header, body: buf.Bytes(), err: err, token: token, buf: buf, pool: &c.answers}
	if err == nil && len(a.body) > MaxAnswer {
		a.body, a.err = a.body[:MaxAnswer], fmt.Errorf("larger than %d bytes", MaxAnswer)
	}
	return a
}

// free returns the buffer to the pool. The body must not be used afterwards.
func (a *answer) free() {
	if a.buf.Cap() <= 64<<10 {
		a.pool.Put(a.buf)
	}
	a.body, a.buf = nil, nil
}

// refused returns an *Error if the status is not 2xx.
func (a *answer) refused() error {
	if a.status/100 == 2 {
		return nil
	}
	e := refusal(a.op, a.status, a.header, a.body, time.Now())
	if a.status/100 == 3 {
		e.Message = "the server redirects" + redirectTarget(a.header) + ", and the client follows no redirect: correct the API URL"
	}
	a.redact(e)
	return e
}

// refusedWithin returns an *Error if the body of a 2xx has "ok": false.
func (a *answer) refusedWithin(ok *bool) error {
	if ok == nil || *ok {
		return nil
	}
	e := refusal(a.op, a.status, a.header, a.body, time.Now())
	a.redact(e)
	return e
}

// redact removes the token from the texts of a server that sent it back.
func (a *answer) redact(e *Error) {
	e.Message = a.redacted(e.Message)
	e.Code = a.redacted(e.Code)
	for _, list := range e.Fields {
		for i := range list {
			list[i] = a.redacted(list[i])
		}
	}
}

func (a *answer) redacted(text string) string {
	return strings.ReplaceAll(text, a.token, "[token]")
}

// invalid returns an *AnswerError.
func (a *answer) invalid(reason string, err error) error {
	return &AnswerError{Op: a.op, StatusCode: a.status, Reason: a.redacted(reason), Err: err}
}

// completeBody returns the body, or an *AnswerError if it is incomplete or empty.
func (a *answer) completeBody() ([]byte, error) {
	switch {
	case a.err != nil:
		return nil, a.invalid("is incomplete", a.err)
	case len(bytes.TrimSpace(a.body)) == 0:
		return nil, a.invalid("is empty", nil)
	}
	return trimBOM(a.body), nil
}

// decode checks the answer and decodes its JSON into out.
func (a *answer) decode(out any) error {
	if err := a.refused(); err != nil {
		return err
	}
	body, err := a.completeBody()
	if err != nil {
		return err
	}
	var head struct {
		OK *bool `json:"ok"` // encoding/json also accepts "Ok"
	}
	if json.Unmarshal(body, &head) != nil {
		// The document prints one answer with typographic quotes.
		body = []byte(strings.NewReplacer("“", `"`, "”", `"`).Replace(string(body)))
		if err := json.Unmarshal(body, &head); err != nil {
			return a.invalid(fmt.Sprintf("is not from the API: it begins with %q", excerpt(string(a.body))), err)
		}
		a.body = body
	}
	if err := a.refusedWithin(head.OK); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return a.invalid("has an unexpected form", err)
	}
	return nil
}

// redirectTarget returns the scheme and host of a redirect. It omits path and query
// because they may contain secrets.
func redirectTarget(header http.Header) string {
	target, err := url.Parse(header.Get("Location"))
	if err != nil || target.Host == "" {
		return ""
	}
	return " to " + target.Scheme + "://" + clean(target.Host, maxExcerpt)
}

// maxSourceID is the largest id that every JSON parser reads exactly: 2^53 - 1. A program between the API and the client
// may have rounded a larger number, which is then the id of another source or of none.
const maxSourceID = 1<<53 - 1

// sourceID parses a source's id, which must be a JSON number and a positive integer up to maxSourceID.
func sourceID(raw json.RawMessage) (int64, error) {
	id, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || id <= 0 || id > maxSourceID {
		return 0, fmt.Errorf("id %s is not a positive integer below 2^53", excerpt(string(raw)))
	}
	return id, nil
}

// looseText is a string member of an answer. Another JSON type does not fail the
// decoding: null becomes "", anything else its JSON text.
type looseText string

func (t *looseText) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = string(data)
	}
	*t = looseText(clean(s, 4<<10))
	return nil
}

// looseInt is an integer member of an answer. It also accepts an integer in quotes;
// any other value becomes 0 and does not fail the decoding.
type looseInt int64

func (n *looseInt) UnmarshalJSON(data []byte) error {
	v, _ := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 64)
	*n = looseInt(v)
	return nil
}

// looseBool is true for true and for 1.
type looseBool bool

func (b *looseBool) UnmarshalJSON(data []byte) error {
	*b = string(data) == "true" || string(data) == "1"
	return nil
}

// errorText converts the "errors" of a source to text. The API does not document its
// form: null and empty values become "", a string stays as it is, a list is joined.
func errorText(raw json.RawMessage) string {
	var text string
	var list []string
	switch trimmed := string(bytes.TrimSpace(raw)); trimmed {
	case "", "null", "[]", "{}", "false", `""`:
		return ""
	}
	if json.Unmarshal(raw, &text) == nil {
		return clean(text, 4<<10)
	}
	if json.Unmarshal(raw, &list) == nil {
		return clean(strings.Join(list, "; "), 4<<10)
	}
	text, _ = messageField(raw)
	return text
}
