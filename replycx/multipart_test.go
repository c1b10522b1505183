package replycx_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/kbsync/kbsync/replycx"
)

// roundTrip is a function as a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering returns a client whose server reads the request and gives one answer.
func answering(t testing.TB, status int, answer []byte, see func(r *http.Request, body []byte)) *replycx.Client {
	c, err := replycx.New("secret-token", replycx.Options{HTTPClient: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		var body []byte
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
			_ = r.Body.Close()
		}
		if see != nil {
			see(r, body)
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(answer)), Request: r}, nil
	})}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hardNames are file names with characters that could break a header.
var hardNames = []string{
	`plain.txt`, `with space.txt`, `a"b.txt`, `"`, `a\b.txt`, `ends in backslash\`, `\"`, "a\r\nX-Injected: 1", "a\nb", "a\rb", "nul\x00.txt", "tab\t.txt",
	"ünïcödé – 文書.md", "📄 emoji.pdf", "\u202egnp.exe", "invalid \xff\xfe utf-8", "-leading-dash", "..", "a;b=c", `name="x"; filename="y"`, "%22%0D%0A", "=?utf-8?q?x?=",
	"a\u0085b\u2028c", "'single'", "CON", "a:b", strings.Repeat("x", 255), strings.Repeat("é", 127), " ", "c\x7fd",
}

// encodedName returns the name that a parser must see: quotes, backslashes and control
// characters percent-encoded, invalid bytes replaced.
func encodedName(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' {
			const hex = "0123456789ABCDEF"
			b.WriteString("%" + string(hex[r>>4]) + string(hex[r&15]))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

type parsedPart struct {
	Field    string  `json:"field"`
	Filename *string `json:"filename"`
	Body     string  `json:"body"`
	Headers  int     `json:"headers"`
}

// parseGo reads a request body with Go's parser.
func parseGo(t testing.TB, contentType string, body []byte) []parsedPart {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var parts []parsedPart
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatalf("%v in %q", err, body)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		_, disposition, err := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
		if err != nil {
			t.Fatalf("%v in %q", err, p.Header)
		}
		part := parsedPart{Field: p.FormName(), Body: string(content), Headers: len(p.Header)}
		if name, ok := disposition["filename"]; ok {
			part.Filename = &name
		}
		parts = append(parts, part)
	}
}

// hardUpload returns the body of an upload with all hard names, and its type.
func hardUpload(t *testing.T) (contentType string, body []byte) {
	var parts []replycx.Part
	answer := []byte(`{"ok":true`)
	for i, name := range hardNames {
		field := fmt.Sprint("f", i)
		parts = append(parts, file(field, name, "content of "+field))
		answer = append(answer, `,"`+field+`":[{"id":1}]`...)
	}
	parts = append(parts, replycx.TextPart("plain text", "words"))
	c := answering(t, 200, append(answer, '}'), func(r *http.Request, b []byte) {
		if int64(len(b)) != r.ContentLength {
			t.Errorf("%d bytes with Content-Length %d", len(b), r.ContentLength)
		}
		contentType, body = r.Header.Get("Content-Type"), b
	})
	if _, err := c.UploadSources(t.Context(), 1, parts, nil); err != nil {
		t.Fatal(err)
	}
	return contentType, body
}

func checkHard(t *testing.T, parts []parsedPart, parser string, trims bool) {
	t.Helper()
	if len(parts) != len(hardNames)+1 {
		t.Fatalf("%s sees %d parts, want %d", parser, len(parts), len(hardNames)+1)
	}
	for i, name := range hardNames {
		field := fmt.Sprint("f", i)
		p := parts[i]
		want := encodedName(name)
		if p.Filename == nil || *p.Filename != want && !(trims && strings.TrimSpace(*p.Filename) == strings.TrimSpace(want)) {
			got := "none"
			if p.Filename != nil {
				got = *p.Filename
			}
			t.Errorf("%s: name %q came as %q, want %q", parser, name, got, want)
		}
		if p.Field != field || p.Body != "content of "+field || p.Headers > 2 {
			t.Errorf("%s: name %q broke its part: %+v", parser, name, p)
		}
	}
	if last := parts[len(hardNames)]; last.Field != "plain text" || last.Filename != nil || last.Body != "words" {
		t.Errorf("%s: the text field came as %+v", parser, last)
	}
}

func TestHardNamesGo(t *testing.T) {
	contentType, body := hardUpload(t)
	checkHard(t, parseGo(t, contentType, body), "Go", false)
}

func TestHardNamesPython(t *testing.T) {
	const script = `
import sys, json
from email import message_from_string
m = message_from_string("Content-Type: " + sys.argv[1] + "\r\n\r\n" + sys.stdin.buffer.read().decode())
assert not m.defects, m.defects
out = []
for p in m.get_payload():
    assert not p.defects, p.defects
    param = lambda name: p.get_param(name, header="content-disposition")
    out.append(dict(field=param("name"), filename=param("filename"), body=p.get_payload(), headers=len(p.items())))
json.dump(out, sys.stdout)
`
	contentType, body := hardUpload(t)
	checkHard(t, parseOther(t, body, "python3", "-c", script, contentType), "Python", true)
}

func TestHardNamesNode(t *testing.T) {
	const script = `
const chunks = [];
process.stdin.on("data", c => chunks.push(c)).on("end", async () => {
  const form = await new Response(Buffer.concat(chunks), {headers: {"content-type": process.argv[1]}}).formData();
  const out = [];
  for (const [field, v] of form) out.push(typeof v === "string" ? {field, filename: null, body: v, headers: 1} : {field, filename: v.name, body: await v.text(), headers: 2});
  process.stdout.write(JSON.stringify(out));
});
`
	contentType, body := hardUpload(t)
	parts := parseOther(t, body, "node", "-e", script, contentType)
	// Node's parser follows the browsers' rules and decodes their escapes.
	for i := range parts {
		if parts[i].Filename != nil {
			name := encodedName(*parts[i].Filename)
			parts[i].Filename = &name
		}
	}
	for i := range parts {
		if i < len(hardNames) && hardNames[i] == "%22%0D%0A" {
			parts[i].Filename = &hardNames[i]
		}
	}
	checkHard(t, parts, "Node", true)
}

// parseOther runs a parser in another language. It skips the test if the language is
// not installed.
func parseOther(t *testing.T, body []byte, command string, args ...string) []parsedPart {
	path, err := exec.LookPath(command)
	if err != nil {
		t.Skipf("%s is not installed", command)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(body)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, stderr.String())
	}
	var parts []parsedPart
	if err := json.Unmarshal(out, &parts); err != nil {
		t.Fatalf("%s printed %q: %v", command, out, err)
	}
	return parts
}

// FuzzMultipartHeader: for any names, a parser sees exactly the parts of the request,
// without additional headers.
func FuzzMultipartHeader(f *testing.F) {
	for _, name := range hardNames {
		f.Add("field", name, "text/plain", "content")
		f.Add(name, "file.txt", "text/plain; charset=utf-8", "--\r\n")
	}
	f.Add("f", "x", "text/plain\r\nX-Injected: 1", "")
	f.Fuzz(func(t *testing.T, field, filename, contentType, content string) {
		var header string
		var body []byte
		c := answering(t, 200, []byte(`{"ok":true}`), func(r *http.Request, b []byte) {
			header, body = r.Header.Get("Content-Type"), b
			if int64(len(b)) != r.ContentLength {
				t.Errorf("%d bytes with Content-Length %d", len(b), r.ContentLength)
			}
		})
		part := replycx.Part{Field: field, Filename: filename, ContentType: contentType, Size: int64(len(content)), Open: replycx.TextPart("", content).Open}
		last := file("the last", "last.txt", "last")
		_, err := c.UploadSources(context.Background(), 1, []replycx.Part{part, last}, nil)
		if body == nil {
			if !unsent(err) {
				t.Fatalf("no request and error %v", err)
			}
			refusable := field == "" || len(field) > 200 || !utf8.ValidString(field) || field == "the last" || strings.ContainsAny(field, `"\`) ||
				strings.ContainsFunc(field, unicode.IsControl) || strings.Contains(" ok knowledge_base_id error code message status ", " "+strings.ToLower(field)+" ")
			if !refusable {
				t.Fatalf("field %q was refused: %v", field, err)
			}
			return
		}
		parts := parseGo(t, header, body)
		if len(parts) != 2 || parts[1].Field != "the last" || parts[1].Body != "last" {
			t.Fatalf("parts %+v", parts)
		}
		p := parts[0]
		if p.Field != field || p.Body != content || p.Headers > 2 {
			t.Errorf("field %q, name %q came as %+v", field, filename, p)
		}
		if filename != "" && (p.Filename == nil || *p.Filename != encodedName(filename)) {
			t.Errorf("name %q came as %v", filename, p.Filename)
		}
		if filename == "" && p.Filename != nil {
			t.Errorf("a text field came with the name %q", *p.Filename)
		}
	})
}
