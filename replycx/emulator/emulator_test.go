package emulator_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/replycx/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts an emulator.
func start(t testing.TB, opts emulator.Options) (*emulator.Emulator, string) {
	t.Helper()
	e, err := emulator.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = e.Close()
	})
	url, err := e.Start("")
	if err != nil {
		t.Fatal(err)
	}
	return e, url
}

// call makes a request by plain HTTP and returns status and body.
func call(t testing.TB, method, url, token, contentType string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

type formPart struct{ field, name, content string }

// form builds a multipart body; a part without a name is a text field.
func form(parts ...formPart) (contentType string, body *bytes.Buffer) {
	body = new(bytes.Buffer)
	w := multipart.NewWriter(body)
	for _, p := range parts {
		var part io.Writer
		if p.name == "" {
			part, _ = w.CreateFormField(p.field)
		} else {
			part, _ = w.CreateFormFile(p.field, p.name)
		}
		_, _ = io.WriteString(part, p.content)
	}
	_ = w.Close()
	return w.FormDataContentType(), body
}

func upload(t testing.TB, url, token string, knowledgeBase int64, parts ...formPart) (int, string) {
	t.Helper()
	contentType, body := form(parts...)
	return call(t, "POST", fmt.Sprintf("%s/api/v1/ai/knowledge-base/%d/upload/sources", url, knowledgeBase), token, contentType, body)
}

// TestDocumentedUpload sends the upload of the API's document by plain HTTP.
func TestDocumentedUpload(t *testing.T) {
	_, url := start(t, emulator.Options{})
	e, _ := emulator.New(emulator.Options{}) // a token of another emulator with the same key is good
	token := e.Token(51)
	status, body := upload(t, url, token, 876,
		formPart{"q1", "sample.txt", "one"}, formPart{"q1", "", "two"}, formPart{"q1", "File.pdf", "%PDF-1.4 %%EOF"}, formPart{"d2", "File2.pdf", "x"})
	want := `{"q1":[{"id":330783,"type":"file","name":"sample.txt","status":"in-progress","errors":null},` +
		`{"id":330784,"type":"text","name":"q1.txt","status":"in-progress","errors":null},` +
		`{"id":330785,"type":"file","name":"File.pdf","status":"in-progress","errors":null}],` +
		`"d2":[{"id":330786,"type":"file","name":"File2.pdf","status":"in-progress","errors":null}],"knowledge_base_id":876,"ok":true}`
	if status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
	status, body = call(t, "GET", url+"/api/v1/ai/status/sources?source_ids=330784,1,0,330783", token, "", nil)
	want = `{"sources":[{"id":330784,"name":"q1.txt","status":"in-progress","knowledge_base_id":876},{"id":330783,"name":"sample.txt","status":"in-progress","knowledge_base_id":876}],"ok":true}`
	if status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
}

// TestDocumentedErrors causes each documented error of the two operations and compares
// the body with the document's.
func TestDocumentedErrors(t *testing.T) {
	e, url := start(t, emulator.Options{})
	const statusPath = "/api/v1/ai/status/sources?source_ids=1"
	uploadPath := func(id string) string { return "/api/v1/ai/knowledge-base/" + id + "/upload/sources" }
	tests := []struct{ name, method, path, token, want string }{
		{"upload, unknown knowledge base", "POST", uploadPath("1"), e.Token(51), `{"ok":false,"error":"KNOWLEDGE_BASE_NOT_FOUND","code":"KNOWLEDGE_BASE_NOT_FOUND","message":"KnowledgeBase Not Found in DB!","status":404}`},
		{"upload, no number", "POST", uploadPath("x"), e.Token(51), `{"ok":false,"error":"KNOWLEDGE_BASE_NOT_FOUND","code":"KNOWLEDGE_BASE_NOT_FOUND","message":"KnowledgeBase Not Found in DB!","status":404}`},
		{"upload, bad token", "POST", uploadPath("876"), "x.y.z", `{"ok":false,"error":"JWT_SIGNATURE_EXCEPTION","message":"Invalid JWT token","status":401}`},
		{"upload, no token", "POST", uploadPath("876"), "", `{"ok":false,"error":"JWT_SIGNATURE_EXCEPTION","message":"Invalid JWT token","status":401}`},
		{"upload, not enabled", "POST", uploadPath("910"), e.Token(53), `{"ok":false,"error":"UNAUTHORIZED_FEATURE","code":"UNAUTHORIZED_FEATURE","message":"Please reach out to support to use this feature","status":401}`},
		{"upload, no account", "POST", uploadPath("876"), e.Token(99), `{"ok":false,"error":"ACCOUNT_DETAILS_NOT_FOUND","code":"ACCOUNT_DETAILS_NOT_FOUND","message":"Account Details are Not Found!","status":404}`},
		{"upload, another's", "POST", uploadPath("876"), e.Token(52), `{"ok":false,"error":"BAD_REQUEST","code":"BAD_REQUEST","message":"Knowledge base does not belong to the account(876)","status":400}`},
		{"status, bad token", "GET", statusPath, "x", `{"ok":false,"error":"JWT_SIGNATURE_EXCEPTION","message":"Invalid JWT token","status":401}`},
		{"status, not enabled", "GET", statusPath, e.Token(53), `{"ok":false,"error":"UNAUTHORIZED_FEATURE","code":"UNAUTHORIZED_FEATURE","message":"Please reach out to support to use this feature","status":401}`},
		{"status, no account", "GET", statusPath, e.Token(99), `{"ok":false,"error":"ACCOUNT_DETAILS_NOT_FOUND","code":"ACCOUNT_DETAILS_NOT_FOUND","message":"Account Details are Not Found!","status":404}`},
	}
	for _, tt := range tests {
		contentType, body := form(formPart{"f", "f.txt", "f"})
		status, got := call(t, tt.method, url+tt.path, tt.token, contentType, body)
		var answer struct{ Status int }
		_ = json.Unmarshal([]byte(got), &answer)
		if got != tt.want || status != answer.Status {
			t.Errorf("%s: %d %s\nwant %s", tt.name, status, got, tt.want)
		}
	}
	if n := e.Counts().AcceptedParts; n != 0 {
		t.Errorf("%d parts were accepted", n)
	}
}

// TestForeignTokens: the emulator refuses a token of another key or another method, and
// a missing token.
func TestForeignTokens(t *testing.T) {
	_, url := start(t, emulator.Options{})
	other, err := emulator.New(emulator.Options{Secret: []byte("another")})
	if err != nil {
		t.Fatal(err)
	}
	const none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJhY2NvdW50X2lkIjo1MX0."
	for _, token := range []string{other.Token(51), none, "", "a.b.c"} {
		if status, _ := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids=0", token, "", nil); status != 401 {
			t.Errorf("token %q: status %d", token, status)
		}
	}
}

func TestRefusals(t *testing.T) {
	fixture := emulator.DefaultFixture()
	fixture.Limits = emulator.Limits{Request: 300 << 10, File: 200 << 10, Parts: 3}
	fixture.Refuse = append(fixture.Refuse, emulator.Refusal{Name: "*.exe", Status: 422, Code: "UNSUPPORTED", Message: "No programs"},
		emulator.Refusal{Name: "*.csv", Contains: "secret"})
	e, url := start(t, emulator.Options{Fixture: fixture})
	good := formPart{"good", "good.txt", "good"}
	const marker = "KBSYNC-EMULATOR-REFUSE"
	for _, tt := range []struct {
		name   string
		parts  []formPart
		status int
		words  string
	}{
		{"marked", []formPart{good, {"f", "f.txt", "x " + marker}}, 400, "contains KBSYNC-EMULATOR-REFUSE"},
		{"marked across the borders of reads", []formPart{{"f", "f.txt", strings.Repeat("x", 64<<10-10) + marker}}, 400, "contains KBSYNC-EMULATOR-REFUSE"},
		{"by name", []formPart{good, {"f", "a.exe", "x"}}, 422, "No programs"},
		{"by name and content", []formPart{{"f", "a.csv", "the secret"}}, 400, "not accepted: a.csv"},
		{"by name, other content", []formPart{{"f", "a.csv", "open"}}, 200, ""},
		{"file too large", []formPart{{"f", "f.txt", strings.Repeat("x", 201<<10)}}, 400, "larger than 204800 bytes"},
		{"request too large", []formPart{{"f", "f.txt", strings.Repeat("x", 301<<10)}}, 413, "<html>"},
		{"too many", []formPart{good, {"a", "a", "a"}, {"b", "b", "b"}, {"c", "c", "c"}}, 400, "More than 3"},
		{"an answer's key", []formPart{{"ok", "a", "a"}}, 400, `key \"ok\"`},
		{"no parts", nil, 400, "No data source"},
	} {
		before := e.Counts().AcceptedParts
		status, body := upload(t, url, e.Token(51), 876, tt.parts...)
		if status != tt.status || !strings.Contains(body, tt.words) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
		if accepted := e.Counts().AcceptedParts > before; accepted != (status == 200) {
			t.Errorf("%s: accepted %v with status %d", tt.name, accepted, status)
		}
	}
	const path = "/api/v1/ai/knowledge-base/876/upload/sources"
	if status, _ := call(t, "POST", url+path, e.Token(51), "application/json", strings.NewReader("{}")); status != 400 {
		t.Errorf("JSON: status %d", status)
	}
	_, whole := form(good)
	for n := range whole.Len() - 2 { // the last line break may be missing
		contentType, body := form(good)
		if status, answer := call(t, "POST", url+path, e.Token(51), contentType, io.LimitReader(body, int64(n))); status != 400 {
			t.Errorf("%d bytes of %d: status %d %s", n, whole.Len(), status, answer)
		}
	}
	if status, _ := call(t, "GET", url+"/v1/unknown", e.Token(51), "", nil); status != 404 {
		t.Errorf("unknown path: status %d", status)
	}
	for _, ids := range []string{"", "x", "1,,2"} {
		if status, _ := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids="+ids, e.Token(51), "", nil); status != 400 {
			t.Errorf("source_ids=%s: status %d", ids, status)
		}
	}
}

func zipped(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("[Content_Types].xml")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(f, strings.Repeat("<Types/>", 1000))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestTraining: training of readable content completes and of other content fails, and
// not before the training time is over.
func TestTraining(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	e, url := start(t, emulator.Options{Train: time.Minute, Now: clock})
	docx := zipped(t)
	pdf := "%PDF-1.7\n" + strings.Repeat("x", 10_000) + "\ntrailer\n%%EOF\n"
	tests := []struct {
		name, content string
		ok            bool
	}{
		{"a.txt", "text", true}, {"b.txt", "", false}, {"c.txt", " \n\t", false}, {"d.md", "tëxt", true}, {"e.txt", "latin-1: \xe9t\xe9 and more words", true},
		{"f.txt", "\xff\xfet\x00e\x00", true}, {"g.txt", "a\x00b", false}, {"h.csv", "\x01\x02\x03\x04", false}, {"i.txt", strings.Repeat("é", 40_000), true},
		{"j.txt", strings.Repeat("text ", 20_000) + "\x00", false},
		{"a.pdf", pdf, true}, {"b.pdf", pdf[:5000], false}, {"c.PDF", "text", false}, {"d.pdf", "", false},
		{"a.docx", docx, true}, {"b.docx", docx[:len(docx)/2], false}, {"c.xlsx", "text", false}, {"d.zip", "PK\x03\x04" + docx[len(docx)-22:], false},
		{"a.doc", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", true}, {"b.doc", "text", false}, {"a.rtf", `{\rtf1 x}`, true}, {"b.rtf", "x", false},
		{"noext", "text", true}, {"binary", "\x7fELF\x00\x00", false},
	}
	var parts []formPart
	ids := "330783"
	for i, tt := range tests {
		parts = append(parts, formPart{fmt.Sprint("f", i), tt.name, tt.content})
		if i > 0 {
			ids += fmt.Sprint(",", 330783+i)
		}
	}
	if status, body := upload(t, url, e.Token(51), 876, parts...); status != 200 {
		t.Fatal(status, body)
	}
	statuses := func() map[string]string {
		_, body := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids="+ids, e.Token(51), "", nil)
		var answer struct {
			Sources []struct{ Name, Status string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		words := make(map[string]string)
		for _, s := range answer.Sources {
			words[s.Name] = s.Status
		}
		return words
	}
	for name, word := range statuses() {
		if word != "in-progress" {
			t.Errorf("%s is %s at once", name, word)
		}
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	words := statuses()
	for _, tt := range tests {
		want := "failed"
		if tt.ok {
			want = "completed"
		}
		if words[tt.name] != want {
			t.Errorf("%s is %q, want %s", tt.name, words[tt.name], want)
		}
	}
	// Another account does not see them.
	if _, body := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids="+ids, e.Token(52), "", nil); body != `{"sources":[],"ok":true}` {
		t.Errorf("another account sees %s", body)
	}
}

// TestFileSurvivesARestart: a new emulator has the accepted sources, continues their
// ids and drops a last line that a crash left incomplete.
func TestFileSurvivesARestart(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dir", "emulator.jsonl")
	open := func() (*emulator.Emulator, string) { return start(t, emulator.Options{File: name, Train: -1}) }
	e, url := open()
	upload(t, url, e.Token(51), 876, formPart{"a", "ä.md", "one"}, formPart{"b", "", "two"})
	upload(t, url, e.Token(51), 877, formPart{"c", "c.pdf", "broken"})
	first := e.Accepted()
	_ = e.Close()
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v", info.Mode(), err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"sources":[{"acc`)
	_ = f.Close()

	e, url = open()
	second := e.Accepted()
	if fmt.Sprint(first) != fmt.Sprint(second) || len(second) != 3 {
		t.Errorf("before %v\nafter  %v", first, second)
	}
	if one := second[0]; one.SHA256 != sha256.Sum256([]byte("one")) || one.Filename != "ä.md" || one.Field != "a" || one.Size != 3 || one.KnowledgeBase != 876 || one.RequestNumber != 1 {
		t.Errorf("first %+v", one)
	}
	if n := e.Counts(); n.Uploads != 0 || n.AcceptedParts != 0 {
		t.Errorf("a new emulator counts %+v", n)
	}
	// Two emulators with one file: each sees the sources of the other.
	other, otherURL := open()
	upload(t, otherURL, other.Token(51), 876, formPart{"d", "d.md", "four"})
	_, body := upload(t, url, e.Token(51), 876, formPart{"e", "e.md", "five"})
	if !strings.Contains(body, `"id":330787`) {
		t.Errorf("the next id is in %s", body)
	}
	post(t, otherURL+"/v1/conversations", e.Token(51), `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"2"},"message":{"type":"text","text":"Hi"}}`)
	post(t, url+"/v1/conversations", e.Token(51), `{"channel":"SMS","from":"1-123-1231230","to":{"phone":"3"},"message":{"type":"text","text":"Hi"}}`)
	if here, there := fmt.Sprint(e.Conversations()), fmt.Sprint(other.Conversations()); len(e.Conversations()) != 6 || here != there {
		t.Errorf("conversations here  %s\nconversations there %s", here, there)
	}
	if list := other.Accepted(); len(list) != 5 || list[4].RequestNumber != 4 {
		t.Errorf("accepted %v", list)
	}
	_, body = call(t, "GET", otherURL+"/api/v1/ai/status/sources?source_ids=330783,330785,330787", e.Token(51), "", nil)
	if strings.Count(body, "completed") != 2 || strings.Count(body, "failed") != 1 {
		t.Errorf("statuses %s", body)
	}
	if err := os.WriteFile(name, []byte("no JSON\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := emulator.New(emulator.Options{File: name}); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("an invalid file: %v", err)
	}
}

func TestConcurrentUploads(t *testing.T) {
	e, url := start(t, emulator.Options{File: filepath.Join(t.TempDir(), "e")})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				if status, body := upload(t, url, e.Token(51), 876, formPart{"a", "a", fmt.Sprint(g, i)}, formPart{"b", "b", fmt.Sprint(g, i, "b")}); status != 200 {
					t.Error(status, body)
				}
			}
		})
	}
	wg.Wait()
	perRequest := make(map[int64]int)
	for i, s := range e.Accepted() {
		perRequest[s.RequestNumber]++
		if s.SourceID != int64(330783+i) {
			t.Errorf("source %d has id %d", i, s.SourceID)
		}
	}
	counts := e.Counts()
	if len(perRequest) != 80 || counts.Uploads != 80 || counts.AcceptedUploads != 80 || counts.AcceptedParts != 160 || counts.AcceptedBytes != 560 {
		t.Errorf("%d requests, counts %+v", len(perRequest), counts)
	}
}

func TestFaultMatching(t *testing.T) {
	// One letter per request: the rule that applied to it.
	tests := []struct {
		name   string
		script string
		want   string
	}{
		{"always", `faults: [{status: 500}]`, "xxxxxxxxxx"},
		{"nth", `faults: [{nth: [2, 5], status: 500}]`, ".x..x....."},
		{"every", `faults: [{every: 3, status: 500}]`, "..x..x..x."},
		{"skip and count", `faults: [{skip: 3, count: 2, status: 500}]`, "...xx....."},
		{"another operation", `faults: [{operation: upload, status: 500}]`, ".........."},
		{"this operation", `faults: [{operation: status, nth: [1], status: 500}]`, "x........."},
		{"the first that fires", `faults: [{nth: [2], status: 500}, {every: 2, status: 429, code: SLOW}]`, ".x.t.t.t.t"},
		{"by chance, the same each time", "seed: 4\nfaults: [{probability: 0.5, status: 500}]", ""},
		{"nothing", ``, ".........."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			faults, err := emulator.ParseFaults([]byte(tt.script))
			if err != nil {
				t.Fatal(err)
			}
			e, url := start(t, emulator.Options{})
			run := func() string {
				if err := e.SetFaults(faults); err != nil {
					t.Fatal(err)
				}
				got := ""
				for range 10 {
					status, _ := call(t, "GET", url+"/api/v1/ai/status/sources?source_ids=0", e.Token(51), "", nil)
					got += map[int]string{200: ".", 500: "x", 429: "t"}[status]
				}
				return got
			}
			first := run()
			if second := run(); first != second {
				t.Errorf("first %s, then %s", first, second)
			}
			if tt.want == "" && (!strings.Contains(first, "x") || !strings.Contains(first, ".")) || tt.want != "" && first != tt.want {
				t.Errorf("got %s, want %s", first, tt.want)
			}
		})
	}
}

func TestFaultsOfTraining(t *testing.T) {
	faults, err := emulator.ParseFaults([]byte(`
faults:
  - {file: "never*", train: never}
  - {file: "failed*", train: failed}
  - {file: "slow*", train_for: 1h}
  - {file: "good*", train: completed}
`))
	if err != nil {
		t.Fatal(err)
	}
	e, url := start(t, emulator.Options{Train: -1, Faults: faults})
	upload(t, url, e.Token(51), 876, formPart{"a", "never.md", "x"}, formPart{"b", "failed.md", "x"}, formPart{"c", "slow.md", "x"}, formPart{"d", "good.pdf", "broken"}, formPart{"e", "e.md", "x"})
	const path = "/api/v1/ai/status/sources?source_ids=330783,330784,330785,330786,330787"
	words := func() string {
		_, body := call(t, "GET", url+path, e.Token(51), "", nil)
		var answer struct{ Sources []struct{ Status string } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(answer.Sources)
	}
	if got := words(); got != "[{in-progress} {failed} {in-progress} {completed} {completed}]" {
		t.Errorf("statuses %s", got)
	}
	if err := e.SetFaults(&emulator.Faults{Rules: []emulator.Fault{{Word: "marinating", DropSources: 3}}}); err != nil {
		t.Fatal(err)
	}
	if got := words(); got != "[{marinating} {marinating}]" {
		t.Errorf("statuses %s", got)
	}
}

func TestDropFields(t *testing.T) {
	e, url := start(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{DropFields: 1}}}})
	_, body := upload(t, url, e.Token(51), 876, formPart{"a", "a", "a"}, formPart{"b", "b", "b"})
	if !strings.Contains(body, `"a":[`) || strings.Contains(body, `"b":[`) || e.Counts().AcceptedParts != 2 {
		t.Errorf("answer %s, accepted %d", body, e.Counts().AcceptedParts)
	}
}

func TestBadScripts(t *testing.T) {
	for script, want := range map[string]string{
		`faults: [{oops: 1}]`:                       `oops`,
		`faults: [{operation: uplod}]`:              `rule 1: unknown operation "uplod"`,
		`faults: [{status: 500}, {at: afterwards}]`: `rule 2: unknown place`,
		`faults: [{answer: short}]`:                 `unknown answer`,
		`faults: [{train: maybe}]`:                  `unknown training`,
		`faults: [{probability: 2}]`:                `between 0 and 1`,
		`faults: [{status: 99}]`:                    `not between 200 and 599`,
		`faults: [{file: "["}]`:                     `file pattern`,
		`faults: {`:                                 `fault script`,
	} {
		if _, err := emulator.ParseFaults([]byte(script)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", script, err, want)
		}
	}
	for fixture, want := range map[string]string{
		`accounts: []`:                   `no account`,
		`accounts: [{id: 0}]`:            `not positive`,
		`accounts: [{idd: 1}]`:           `idd`,
		`{accounts: [{id: 1}, {id: 1}]}`: `not unique`,
		`accounts: [{id: 1, knowledge_bases: [{id: 5}]}, {id: 2, knowledge_bases: [{id: 5}]}]`: `knowledge base id 5`,
		`{accounts: [{id: 1}], refuse: [{status: 400}]}`:                                       `needs name or contains`,
		`{accounts: [{id: 1}], refuse: [{name: "["}]}`:                                         `refusal name`,
	} {
		if _, err := emulator.ParseFixture([]byte(fixture)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", fixture, err, want)
		}
	}
}

// TestDocumentedControls: docs/api.md lists each request that controls the emulator.
func TestDocumentedControls(t *testing.T) {
	docs, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("control.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`"([A-Z]+ /_emulator/[^"]+)": `).FindAllStringSubmatch(string(source), -1)
	if len(routes) < 10 {
		t.Fatalf("routes %v", routes)
	}
	for _, route := range routes {
		if row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(route[1]) + "[`?]"); !row.Match(docs) {
			t.Errorf("docs/api.md lacks %s", route[1])
		}
	}
}

// TestDocumentedFiles parses the fixture and the fault script of the documentation.
func TestDocumentedFiles(t *testing.T) {
	data, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "```")
	fixtures, scripts := 0, 0
	for i := 1; i < len(blocks); i += 2 {
		text, ok := strings.CutPrefix(blocks[i], "yaml\n")
		if !ok {
			continue
		}
		if strings.HasPrefix(text, "accounts:") {
			fixtures++
			_, err = emulator.ParseFixture([]byte(text))
		} else {
			scripts++
			_, err = emulator.ParseFaults([]byte(text))
		}
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
	if fixtures != 1 || scripts != 1 {
		t.Errorf("%d fixtures and %d fault scripts", fixtures, scripts)
	}
}

func TestFixtureKnowledgeBases(t *testing.T) {
	e, url := start(t, emulator.Options{KnowledgeBases: []int64{876, 900, 12345}})
	for id, want := range map[int64]int{876: 200, 12345: 200, 900: 400, 1: 404} {
		if status, _ := upload(t, url, e.Token(51), id, formPart{"a", "a", "a"}); status != want {
			t.Errorf("knowledge base %d: status %d, want %d", id, status, want)
		}
	}
}
