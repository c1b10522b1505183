package replycx_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

func TestNewRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		token string
		opts  replycx.Options
		want  string
	}{
		"no token":                {"", replycx.Options{}, "no API token"},
		"token of spaces":         {" \n", replycx.Options{}, "no API token"},
		"token with a line break": {"ab\ncd", replycx.Options{}, "contains an invalid character"},
		"plain http":              {"t", replycx.Options{BaseURL: "http://api.example.com"}, "unencrypted"},
		"plain http by number":    {"t", replycx.Options{BaseURL: "http://10.0.0.1"}, "unencrypted"},
		"a name like loopback":    {"t", replycx.Options{BaseURL: "http://localhost.example.com"}, "unencrypted"},
		"another scheme":          {"t", replycx.Options{BaseURL: "ftp://api.example.com"}, "https://"},
		"no scheme":               {"t", replycx.Options{BaseURL: "api.example.com"}, "a scheme and a host"},
		"a password":              {"t", replycx.Options{BaseURL: "https://me:hunter2@api.example.com"}, "must not contain a user"},
		"a bad escape":            {"t", replycx.Options{BaseURL: "https://me:hunter2@api.example.com/%zz"}, "invalid API URL"},
		"a query":                 {"t", replycx.Options{BaseURL: "https://api.example.com/?x=1"}, "a scheme and a host"},
		"no CA file":              {"t", replycx.Options{CAFile: "does-not-exist.pem"}, "read certificate authorities"},
		"CA file without one":     {"t", replycx.Options{CAFile: "client_test.go"}, "holds no PEM certificate"},
	} {
		_, err := replycx.New(tt.token, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || tt.token != "" && tt.token != "t" && strings.Contains(err.Error(), tt.token) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
	for _, base := range []string{"", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost", "https://api.example.com/prefix/"} {
		if _, err := replycx.New("t", replycx.Options{BaseURL: base}); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	if _, err := replycx.New("t", replycx.Options{BaseURL: "http://api.example.com", AllowInsecure: true}); err != nil {
		t.Error(err)
	}
}

func TestOriginAndAccount(t *testing.T) {
	claim := func(payload string) string {
		return "h." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".s"
	}
	for token, want := range map[string]int64{
		claim(`{"account_id":51}`): 51, claim(`{"account_id":"52"}`): 52, claim(`{}`): 0, claim(`[]`): 0,
		claim(`{"account_id":-1}`): 0, claim(`{"account_id":1.5}`): 0, "opaque": 0, "a.%%%.c": 0,
	} {
		c, err := replycx.New(token, replycx.Options{BaseURL: "https://API.example.com:8443/prefix"})
		if err != nil {
			t.Fatal(err)
		}
		if id, err := c.AccountID(t.Context()); id != want || err != nil {
			t.Errorf("token %s: account %d, %v, want %d", token, id, err, want)
		}
		if o := c.Origin(); o != "https://api.example.com:8443" {
			t.Errorf("origin %s", o)
		}
	}
	c, _ := replycx.New(claim(`{"account_id":51}`), replycx.Options{AccountID: 7})
	if id, _ := c.AccountID(t.Context()); id != 7 {
		t.Errorf("account %d: the option counts for less than the claim", id)
	}
}

// TestRequestsStayBelowTheBasePath serves the API below a path, to catch absolute
// paths.
func TestRequestsStayBelowTheBasePath(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"ok":true,"sources":[{"id":1,"name":%q}]}`, r.URL.RequestURI())
	}))
	defer server.Close()
	c, err := replycx.New("t", replycx.Options{BaseURL: server.URL + "/gate%2Fway/"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	s, err := c.SourceStatus(t.Context(), []int64{4, 5})
	if err != nil || s[0].Name != "/gate%2Fway/api/v1/ai/status/sources?source_ids=4,5" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTokenRefusedGetsTheTokenOfEach401(t *testing.T) {
	statuses := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnauthorized}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(statuses[0])
		statuses = statuses[1:]
	}))
	defer server.Close()
	n := 0
	var refused []string
	c, err := replycx.New("", replycx.Options{
		BaseURL: server.URL,
		TokenSource: func(context.Context) (string, error) {
			n++
			return fmt.Sprint("token-", n), nil
		},
		TokenRefused: func(token string) { refused = append(refused, token) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	for range 2 {
		if _, err := c.SourceStatus(t.Context(), []int64{0}); err == nil {
			t.Error("a refused request succeeded")
		}
	}
	if _, err := c.UploadSources(t.Context(), 876, []replycx.Part{replycx.TextPart("a", "text")}, nil); err == nil {
		t.Error("a refused upload succeeded")
	}
	if fmt.Sprint(refused) != "[token-1 token-3]" {
		t.Errorf("refused are %v", refused)
	}
}

func TestTokenSource(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"ok":true,"sources":[]}`)
	}))
	defer server.Close()
	tokens := []string{"first", "second\n", "", "bad token"}
	i := 0
	c, err := replycx.New("", replycx.Options{BaseURL: server.URL, TokenSource: func(context.Context) (string, error) {
		if i++; i > len(tokens) {
			return "", io.ErrUnexpectedEOF
		}
		return tokens[i-1], nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	errs := make([]error, 5)
	for i := range errs {
		_, errs[i] = c.SourceStatus(t.Context(), []int64{0})
	}
	if fmt.Sprint(got) != "[Bearer first Bearer second]" {
		t.Errorf("sent %v", got)
	}
	if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], replycx.ErrNoToken) || errs[3] == nil || !errors.Is(errs[4], io.ErrUnexpectedEOF) {
		t.Errorf("errors %v", errs)
	}
	if strings.Contains(errs[3].Error(), "bad token") {
		t.Errorf("the token is in the error %v", errs[3])
	}
}

// TestTokenDoesNotLeak: the client does not follow a redirect with the token or the
// body, and errors and logs do not contain a token that the server sent back.
func TestTokenDoesNotLeak(t *testing.T) {
	const token = "canary-4711-token"
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other server got %s with %v", r.Method, r.Header)
	}))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308, 400, 401, 500, 200} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", other.URL+"/?token="+token)
			w.WriteHeader(status)
			auth := r.Header.Get("Authorization")
			fmt.Fprintf(w, `{"ok":false,"error":"%s","message":{"%s":["%s"]}}`, auth, "field", auth)
		}))
		var log bytes.Buffer
		c, err := replycx.New(token, replycx.Options{
			BaseURL: server.URL,
			Logger:  slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		_, statusErr := c.SourceStatus(t.Context(), []int64{1})
		_, uploadErr := c.UploadSources(t.Context(), 1, []replycx.Part{file("f", "f", "f")}, nil)
		for _, err := range []error{statusErr, uploadErr} {
			refused, ok := errors.AsType[*replycx.Error](err)
			if !ok || refused.StatusCode != status {
				t.Errorf("status %d: error %v", status, err)
			}
			if text := fmt.Sprintf("%v %+v %#v", err, refused, refused); strings.Contains(text, token) {
				t.Errorf("status %d: the token is in %s", status, text)
			}
		}
		if strings.Contains(log.String(), token) || !strings.Contains(log.String(), `"status":`) {
			t.Errorf("log %s", log.String())
		}
		c.CloseIdleConnections()
		server.Close()
	}
	c, err := replycx.New(token, replycx.Options{BaseURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, other.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(req, nil); err == nil {
		t.Error("a request to another server was sent")
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("protocol %s", r.Proto)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, `{"ok":true,"f":[{"id":1}]}`)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	parts := []replycx.Part{file("f", "f", strings.Repeat("x", 3<<20))}
	for _, caFile := range []string{ca, ""} {
		c, err := replycx.New("t", replycx.Options{BaseURL: server.URL, CAFile: caFile})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.UploadSources(t.Context(), 1, parts, nil)
		if (err == nil) != (caFile != "") {
			t.Errorf("CA file %q: %v", caFile, err)
		}
		if err != nil && !unsent(err) {
			t.Errorf("%v is not unsent", err)
		}
		c.CloseIdleConnections()
	}
}

// TestRequestsCannotBeReplayed: with a GetBody, net/http may silently send a request
// again.
func TestRequestsCannotBeReplayed(t *testing.T) {
	c, err := replycx.New("t", replycx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	req, err := c.NewRequest(t.Context(), http.MethodPost, "/v1/conversations", map[string]int{"a": 1})
	if err != nil || req.GetBody != nil || req.ContentLength != 7 {
		t.Errorf("%v, GetBody set: %v, length %d", err, req.GetBody != nil, req.ContentLength)
	}
}

type limiter struct {
	n   int
	err error
}

func (l *limiter) Wait(context.Context) error { l.n++; return l.err }

func TestLimiter(t *testing.T) {
	l := &limiter{}
	_, c := serve(t, emulator.Options{}, replycx.Options{Limiter: l})
	if _, err := c.SourceStatus(t.Context(), []int64{0}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f", "f")}, nil); err != nil {
		t.Fatal(err)
	}
	l.err = errors.New("no more today")
	if _, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f", "f")}, nil); !errors.Is(err, l.err) || !unsent(err) {
		t.Errorf("error %v", err)
	}
	if l.n != 3 {
		t.Errorf("waited %d times", l.n)
	}
}

func TestErrorBodies(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		header     http.Header
		want       replycx.Error
		is         []error
	}{
		{"code and message", `{"ok":false,"error":"E","code":"KNOWLEDGE_BASE_NOT_FOUND","message":"Not here","status":404}`, 404, nil,
			replycx.Error{Code: "KNOWLEDGE_BASE_NOT_FOUND", Message: "Not here", FromAPI: true}, []error{replycx.ErrKnowledgeBaseNotFound}},
		{"no code", `{"ok":false,"error":"JWT_SIGNATURE_EXCEPTION","message":"Invalid JWT token","status":401}`, 401, nil,
			replycx.Error{Code: "JWT_SIGNATURE_EXCEPTION", Message: "Invalid JWT token", FromAPI: true}, []error{replycx.ErrTokenInvalid}},
		{"field errors", `{"ok":false,"message":{"variables":["Shorter than minimum length 1."],"a":"b"},"status":400,"error":"BAD_REQUEST"}`, 400, nil,
			replycx.Error{Code: "BAD_REQUEST", Message: "a: b; variables: Shorter than minimum length 1.", FromAPI: true}, []error{replycx.ErrBadRequest}},
		{"another account's", `{"ok":false,"error":"BAD_REQUEST","code":"BAD_REQUEST","status":400,"message":"Knowledge base does not belong to the account(876)"}`, 400, nil,
			replycx.Error{Code: "BAD_REQUEST", Message: "Knowledge base does not belong to the account(876)", FromAPI: true}, []error{replycx.ErrKnowledgeBaseNotOwned, replycx.ErrBadRequest}},
		{"unknown code", `{"ok":false,"code":"BRAND_NEW"}`, 418, nil, replycx.Error{Code: "BRAND_NEW", FromAPI: true}, []error{replycx.Code("BRAND_NEW")}},
		{"Ok for ok, status 200", `{"Ok":false,"error":"INVALID_DATA"}`, 200, nil, replycx.Error{Code: "INVALID_DATA", FromAPI: true}, []error{replycx.ErrInvalidData}},
		{"a gateway's page", "<html><HEAD><title>502 \x1b[31mBad\x00 Gateway\r\n</title></html>", 502, nil, replycx.Error{Message: "a web page, 502 [31mBad Gateway"}, nil},
		{"a page without a title", "<html>\r\n502</html>", 502, nil, replycx.Error{Message: "a web page"}, nil},
		{"plain text", "out of\x00 order\r\n", 502, nil, replycx.Error{Message: "out of order"}, nil},
		{"JSON of another", `{"message":"Forbidden"}`, 403, nil, replycx.Error{Message: "Forbidden"}, nil},
		{"nothing", "", 503, http.Header{"Retry-After": {"120"}}, replycx.Error{RetryAfter: 2 * time.Minute}, nil},
		{"members of wrong types", `{"ok":false,"error":5,"code":[],"message":7,"status":"x"}`, 400, nil, replycx.Error{Message: "7", FromAPI: true}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				for k, v := range tt.header {
					w.Header()[k] = v
				}
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			}, replycx.Options{})
			_, err := c.SourceStatus(t.Context(), []int64{1})
			got, ok := errors.AsType[*replycx.Error](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if got.Op != "source status" || got.StatusCode != tt.status || got.Code != tt.want.Code || got.Message != tt.want.Message || got.FromAPI != tt.want.FromAPI || got.RetryAfter != tt.want.RetryAfter {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			for _, target := range tt.is {
				if !errors.Is(err, target) {
					t.Errorf("%v is not %v", err, target)
				}
			}
			for _, other := range []error{replycx.ErrTeamNotFound, replycx.Code(""), replycx.ErrNoToken} {
				if errors.Is(err, other) {
					t.Errorf("%v is %q", err, other)
				}
			}
		})
	}
}

func TestFieldErrors(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprint(w, `{"ok":false,"message":{"variables":{"0":{"name":["Missing data."]}}},"error":"BAD_REQUEST"}`)
	}, replycx.Options{})
	_, err := c.SourceStatus(t.Context(), []int64{1})
	got, _ := errors.AsType[*replycx.Error](err)
	if got == nil || fmt.Sprint(got.Fields) != `map[variables:[{"0":{"name":["Missing data."]}}]]` {
		t.Errorf("error %+v", got)
	}
}

func TestRetryAfter(t *testing.T) {
	date := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "1.5": 1500 * time.Millisecond, "0": time.Millisecond, "-3": time.Millisecond,
		"99999999999999999999": math.MaxInt64, "inf": math.MaxInt64, "NaN": 0, "soon": 0,
		date.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		date.Add(-time.Hour).Format(http.TimeFormat):       time.Millisecond,
	} {
		c := client(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", date.Format(http.TimeFormat))
			w.Header().Set("Retry-After", value)
			w.WriteHeader(429)
		}, replycx.Options{})
		_, err := c.SourceStatus(t.Context(), []int64{1})
		if got, _ := errors.AsType[*replycx.Error](err); got == nil || got.RetryAfter != want {
			t.Errorf("Retry-After %q gives %+v, want %v", value, got, want)
		}
	}
}

func TestSourceStatusAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		want   string // of the statuses, or
		reason string // of the AnswerError
	}{
		"documented":         {`{"sources":[{"id":330778,"name":"sample.txt","status":"in-progress","knowledge_base_id":876}],"ok":true}`, "[330778 in-progress 876]", ""},
		"none":               {`{"sources":[],"ok":true}`, "[]", ""},
		"curly quotes":       {`{“sources”:[{“id”:4,“status”:“completed”}],“Ok”:true}`, "[4 completed 0]", ""},
		"one is malformed":   {`{"sources":[7,{"id":"x"},{"id":4,"status":9,"knowledge_base_id":"?"}]}`, "[4 9 0]", ""},
		"only malformed":     {`{"sources":[{"id":0}]}`, "", "names no source"},
		"no list":            {`{"ok":true}`, "", "has no list of sources"},
		"list of other kind": {`{"ok":true,"sources":{"1":"completed"}}`, "", "has an unexpected form"},
		"empty":              {" \n", "", "is empty"},
		"page":               {"<html>", "", "is not from the API"},
		"cut off":            {`{"sources":[{"id":1`, "", "is not from the API"},
	} {
		c := client(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, tt.answer) }, replycx.Options{})
		got, err := c.SourceStatus(t.Context(), []int64{1})
		if tt.reason != "" {
			if broken, ok := errors.AsType[*replycx.AnswerError](err); !ok || !strings.Contains(broken.Reason, tt.reason) {
				t.Errorf("%s: error %v, want %q", name, err, tt.reason)
			}
			continue
		}
		var text []string
		for _, s := range got {
			text = append(text, fmt.Sprint(s.ID, " ", s.Status, " ", s.KnowledgeBaseID))
		}
		if err != nil || fmt.Sprint(text) != tt.want {
			t.Errorf("%s: %v, %v, want %s", name, text, err, tt.want)
		}
	}
}

func TestStatusWords(t *testing.T) {
	for word, want := range map[replycx.Status][2]bool{ // known, final
		"in-progress": {true, false}, "IN_PROGRESS": {true, false}, "in progress": {true, false},
		"completed": {true, true}, "Completed ": {true, true}, "failed": {true, true}, "FAILED": {true, true},
		"queued": {false, false}, "": {false, false},
	} {
		if word.Known() != want[0] || word.Final() != want[1] {
			t.Errorf("%q: known %v, final %v", word, word.Known(), word.Final())
		}
	}
}

// TestCallTimeoutEndsAStalledAnswer: a server that never completes its answer does not
// block a call for ever.
func TestCallTimeoutEndsAStalledAnswer(t *testing.T) {
	_, c := serve(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{Stall: time.Hour, At: emulator.After}}}},
		replycx.Options{Timeouts: replycx.Timeouts{Call: 50 * time.Millisecond}})
	if _, err := c.SourceStatus(t.Context(), []int64{0}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// Of a server that does not answer, the error names the host and what to do, for uploads as for other operations.
func TestErrorOfAServerThatIsAwayNamesItAndTheRemedy(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client, err := replycx.New("token", replycx.Options{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.URL, "http://")
	_, status := client.SourceStatus(t.Context(), []int64{1})
	_, upload := client.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f", "f")}, nil)
	for name, err := range map[string]error{"status": status, "upload": upload} {
		if err == nil || !strings.Contains(err.Error(), "cannot reach "+host+"; check the network") {
			t.Errorf("%s: %v, want the host and the remedy", name, err)
		}
	}
}
