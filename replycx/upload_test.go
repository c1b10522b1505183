package replycx_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// serve starts an emulator and returns it with a client of account 51.
func serve(t testing.TB, opts emulator.Options, copts replycx.Options) (*emulator.Emulator, *replycx.Client) {
	t.Helper()
	e, err := emulator.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	url, err := e.Start("")
	if err != nil {
		t.Fatal(err)
	}
	copts.BaseURL = url
	c, err := replycx.New(e.Token(51), copts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return e, c
}

// client returns a client of a test server.
func client(t testing.TB, h http.HandlerFunc, opts replycx.Options) *replycx.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	opts.BaseURL = server.URL
	c, err := replycx.New("secret-token", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// file returns a part with a content in memory.
func file(field, name, content string) replycx.Part {
	p := replycx.TextPart(field, content)
	p.Filename = name
	return p
}

// sealing counts the calls of the seal.
type sealing struct{ n atomic.Int32 }

func (s *sealing) options() *replycx.UploadOptions {
	return &replycx.UploadOptions{Seal: func(context.Context) error { s.n.Add(1); return nil }}
}

func unsent(err error) bool {
	_, ok := errors.AsType[*replycx.UnsentError](err)
	return ok
}

func TestUpload(t *testing.T) {
	e, c := serve(t, emulator.Options{Train: -1}, replycx.Options{})
	var seal sealing
	result, err := c.UploadSources(t.Context(), 876, []replycx.Part{
		file("f1", "a.md", "# Hello"),
		file("f2", "empty.md", ""),
		replycx.TextPart("f3", "Just text"),
	}, seal.options())
	if err != nil {
		t.Fatal(err)
	}
	if seal.n.Load() != 1 || result.KnowledgeBaseID != 876 || len(result.Sources) != 3 || len(result.Missing) != 0 {
		t.Errorf("sealed %d times, result %+v", seal.n.Load(), result)
	}
	accepted := e.Accepted()
	for i, want := range []string{"# Hello", "", "Just text"} {
		if accepted[i].SHA256 != sha256.Sum256([]byte(want)) || accepted[i].Size != int64(len(want)) {
			t.Errorf("source %d is not %q: %+v", i, want, accepted[i])
		}
	}
	one := result.Sources["f1"][0]
	if one.Name != "a.md" || one.Type != "file" || !one.Status.Is(replycx.StatusInProgress) || one.Errors != "" {
		t.Errorf("first source %+v", one)
	}
	statuses, err := c.SourceStatus(t.Context(), []int64{one.ID, result.Sources["f2"][0].ID, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(statuses) != 2 || statuses[0].Status != replycx.StatusCompleted || statuses[1].Status != replycx.StatusFailed {
		t.Errorf("statuses %+v", statuses)
	}
}

// TestUploadRequest checks the request on the wire.
func TestUploadRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		fmt.Fprint(w, `{"a":[{"id":1}],"b":[{"id":2}],"ok":true}`)
	}, replycx.Options{UserAgent: "test/1"})
	if _, err := c.UploadSources(t.Context(), 7, []replycx.Part{file("a", "ü x.md", "one"), replycx.TextPart("b", "two")}, nil); err != nil {
		t.Fatal(err)
	}
	if got.ProtoMajor != 1 || got.ContentLength != int64(len(body)) || len(got.TransferEncoding) != 0 {
		t.Errorf("protocol %s, length %d of %d, encoding %v", got.Proto, got.ContentLength, len(body), got.TransferEncoding)
	}
	boundary, ok := strings.CutPrefix(got.Header.Get("Content-Type"), "multipart/form-data; boundary=")
	if !ok {
		t.Fatalf("content type %q", got.Header.Get("Content-Type"))
	}
	want := "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"ü x.md\"\r\nContent-Type: text/markdown; charset=utf-8\r\n\r\none\r\n" +
		"--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\ntwo\r\n--B--\r\n"
	if s := strings.ReplaceAll(string(body), boundary, "B"); s != want {
		t.Errorf("body %q, want %q", s, want)
	}
	if got.URL.Path != "/api/v1/ai/knowledge-base/7/upload/sources" || got.Header.Get("Authorization") != "Bearer secret-token" || got.Header.Get("User-Agent") != "test/1" {
		t.Errorf("path %s, header %v", got.URL.Path, got.Header)
	}
	// net/http silently repeats a POST with one of these headers.
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if got.Header.Get(name) != "" {
			t.Errorf("header %s is set", name)
		}
	}
}

// TestClosingBoundaryFollowsTheSeal has a server that sees every byte as it arrives:
// the closing boundary must not arrive while the seal runs or after a failed seal.
func TestClosingBoundaryFollowsTheSeal(t *testing.T) {
	for _, sealErr := range []error{nil, errors.New("the journal is full")} {
		t.Run(fmt.Sprint("seal returns ", sealErr), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var mu sync.Mutex
			var seen []byte
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					mu.Lock()
					seen = append(seen, buf[:n]...)
					whole := bytes.HasSuffix(seen, []byte("--\r\n"))
					mu.Unlock()
					if whole {
						const answer = `{"f":[{"id":5}],"ok":true}`
						fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
					}
					if err != nil {
						return
					}
				}
			}()
			c, err := replycx.New("t", replycx.Options{BaseURL: "http://" + l.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			content := strings.Repeat("x", 300<<10)
			sealed := false
			_, err = c.UploadSources(t.Context(), 1, []replycx.Part{file("f", "f.txt", content)}, &replycx.UploadOptions{
				Seal: func(context.Context) error {
					sealed = true
					mu.Lock()
					defer mu.Unlock()
					if bytes.HasSuffix(seen, []byte("--\r\n")) {
						t.Error("the request was whole before the seal")
					}
					return sealErr
				},
			})
			c.CloseIdleConnections()
			<-ended
			whole := bytes.HasSuffix(seen, []byte("--\r\n"))
			if !sealed || whole != (sealErr == nil) {
				t.Errorf("sealed %v, the server had the whole request: %v", sealed, whole)
			}
			if sealErr == nil && err != nil || sealErr != nil && (!errors.Is(err, sealErr) || !unsent(err)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestUploadFaults checks the error of an upload for each fault. A large upload waits
// for the server's go-ahead.
func TestUploadFaults(t *testing.T) {
	type want struct {
		unsent   bool // an UnsentError
		status   int  // of the *Error, 0 for none
		fromAPI  bool
		broken   bool // an *AnswerError
		accepted bool
		sealed   bool
	}
	tests := []struct {
		name  string
		fault emulator.Fault
		large bool
		want  want
	}{
		{"429 at once", emulator.Fault{Status: 429, Code: "TOO_MANY", RetryAfter: "7"}, true, want{unsent: true, status: 429, fromAPI: true}},
		{"413 page at once", emulator.Fault{Status: 413}, true, want{unsent: true, status: 413}},
		{"500 after reading", emulator.Fault{Status: 500, At: emulator.Read}, true, want{status: 500, sealed: true}},
		{"502 after accepting", emulator.Fault{Status: 502, At: emulator.After}, false, want{status: 502, accepted: true, sealed: true}},
		{"503 of the API after reading", emulator.Fault{Status: 503, Code: "BUSY", At: emulator.Read}, false, want{status: 503, fromAPI: true, sealed: true}},
		{"reset before the body", emulator.Fault{Reset: true}, true, want{unsent: true}},
		{"reset halfway", emulator.Fault{Reset: true, At: emulator.Middle}, true, want{unsent: true}},
		{"reset after reading", emulator.Fault{Reset: true, At: emulator.Read}, false, want{sealed: true}},
		{"reset after accepting", emulator.Fault{Reset: true, At: emulator.After}, true, want{accepted: true, sealed: true}},
		{"truncated", emulator.Fault{Answer: "truncated"}, false, want{broken: true, accepted: true, sealed: true}},
		{"empty", emulator.Fault{Answer: "empty"}, false, want{broken: true, accepted: true, sealed: true}},
		{"html", emulator.Fault{Answer: "html"}, false, want{broken: true, accepted: true, sealed: true}},
		{"foreign", emulator.Fault{Answer: "foreign"}, false, want{broken: true, accepted: true, sealed: true}},
		{"huge", emulator.Fault{Answer: "huge"}, false, want{broken: true, accepted: true, sealed: true}},
		{"bomb", emulator.Fault{Answer: "bomb"}, false, want{broken: true, accepted: true, sealed: true}},
		{"ids that are no numbers", emulator.Fault{Answer: "bad-ids"}, false, want{broken: true, accepted: true, sealed: true}},
		{"ok false with 200", emulator.Fault{Status: 200, Code: "BAD_REQUEST", At: emulator.Read}, false, want{status: 200, fromAPI: true, sealed: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, c := serve(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{tt.fault}}}, replycx.Options{})
			content := "hello"
			if tt.large {
				content = strings.Repeat("0123456789abcde\n", 1<<20) // more than sockets buffer
			}
			var seal sealing
			result, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("a", "a.md", content), file("b", "b.md", "b")}, seal.options())
			if err == nil {
				t.Fatalf("no error, result %+v", result)
			}
			got := want{unsent: unsent(err), sealed: seal.n.Load() == 1, accepted: e.Counts().AcceptedUploads == 1}
			if refused, ok := errors.AsType[*replycx.Error](err); ok {
				got.status, got.fromAPI = refused.StatusCode, refused.FromAPI
				if tt.fault.RetryAfter == "7" && refused.RetryAfter != 7*time.Second {
					t.Errorf("retry after %v", refused.RetryAfter)
				}
			}
			_, got.broken = errors.AsType[*replycx.AnswerError](err)
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v\nerror %v", got, tt.want, err)
			}
			if got.unsent && got.accepted {
				t.Error("the error is unsent although the server accepted the upload")
			}
		})
	}
}

// TestAnswerBeforeTheEnd: a server answers while a part is being read. The answer
// counts, and the client must not call the seal.
func TestAnswerBeforeTheEnd(t *testing.T) {
	for _, status := range []int{401, 502, 200} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			answered := make(chan struct{})
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				// Without it the server waits for the body before it writes the answer.
				_ = http.NewResponseController(w).EnableFullDuplex()
				const answer = `{"ok":true,"f":[{"id":3}]}`
				w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
				w.WriteHeader(status)
				fmt.Fprint(w, answer)
				_ = http.NewResponseController(w).Flush()
				close(answered)
				_, _ = io.Copy(io.Discard, r.Body)
			}, replycx.Options{})
			var seal sealing
			slow := replycx.Part{Field: "f", Filename: "f.txt", Size: 1 << 10, Open: func(ctx context.Context) (io.ReadCloser, error) {
				<-answered
				<-ctx.Done() // ends only because the answer is there
				return nil, ctx.Err()
			}}
			_, err := c.UploadSources(t.Context(), 1, []replycx.Part{replycx.TextPart("a", strings.Repeat("a", 80<<10)), slow}, seal.options())
			refused, isRefused := errors.AsType[*replycx.Error](err)
			_, isBroken := errors.AsType[*replycx.AnswerError](err)
			switch {
			case seal.n.Load() != 0:
				t.Error("sealed although an answer was there")
			case status == 200 && (!isBroken || unsent(err)):
				t.Errorf("error %v, unsent %v", err, unsent(err))
			case status != 200 && (!isRefused || refused.StatusCode != status || !unsent(err)):
				t.Errorf("error %v, unsent %v", err, unsent(err))
			}
		})
	}
}

// TestAnswerWhileSealing: the answer arrives while the seal runs, so the closing
// boundary must not be sent although the seal succeeds. In the second case the answer
// would end only after the request.
func TestAnswerWhileSealing(t *testing.T) {
	for name, length := range map[string]string{"whole answer": "3", "unfinished answer": "999"} {
		t.Run(name, func(t *testing.T) {
			answer := make(chan struct{})
			whole := make(chan bool, 1)
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				<-answer
				w.Header().Set("Content-Length", length)
				w.WriteHeader(503)
				fmt.Fprint(w, "sad")
				_ = http.NewResponseController(w).Flush()
				_, err := io.Copy(io.Discard, r.Body)
				whole <- err == nil
			}, replycx.Options{Timeouts: replycx.Timeouts{Stall: 300 * time.Millisecond}})
			// The part is larger than the buffers, so that the server gets a request.
			_, err := c.UploadSources(t.Context(), 1, []replycx.Part{replycx.TextPart("a", strings.Repeat("a", 200<<10))}, &replycx.UploadOptions{
				Seal: func(ctx context.Context) error {
					close(answer)
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Second):
						t.Error("the answer did not end the seal")
					}
					return nil
				},
			})
			if refused, ok := errors.AsType[*replycx.Error](err); !ok || refused.StatusCode != 503 || refused.Message != "sad" || !unsent(err) {
				t.Errorf("error %v, unsent %v", err, unsent(err))
			}
			if <-whole {
				t.Error("the server had the whole request")
			}
		})
	}
}

// TestSlowAnswerBeforeTheEnd: the answer's body arrives some time after its header.
// The request's body must end after it, because an earlier end would close the
// connection during the answer.
func TestSlowAnswerBeforeTheEnd(t *testing.T) {
	const words = `{"ok":false,"error":"BAD_REQUEST","message":"the words of the server"}`
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		_ = out.EnableFullDuplex()
		w.Header().Set("Content-Length", fmt.Sprint(len(words)))
		w.WriteHeader(400)
		fmt.Fprint(w, words[:20])
		_ = out.Flush()
		time.Sleep(50 * time.Millisecond) // real sockets: no other way to be slow
		fmt.Fprint(w, words[20:])
		_ = out.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}, replycx.Options{})
	// Small enough to be sent without the server's go-ahead, and not finished in time.
	parts := []replycx.Part{{Field: "f", Size: 900 << 10, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(readerFunc(func(p []byte) (int, error) { time.Sleep(time.Millisecond); return min(len(p), 1<<10), nil })), nil
	}}}
	_, err := c.UploadSources(t.Context(), 1, parts, nil)
	if refused, ok := errors.AsType[*replycx.Error](err); !ok || refused.Message != "the words of the server" || !unsent(err) {
		t.Errorf("error %v, unsent %v", err, unsent(err))
	}
}

// rawServer accepts connections and passes each to serve, which sees the bytes.
func rawServer(t *testing.T, serve func(c *net.TCPConn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// readHeader reads a request's header and returns it in lower case.
func readHeader(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(strings.ToLower(line))
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// TestLargeUploadWaitsForTheServer: a server that refuses the header gets no body.
func TestLargeUploadWaitsForTheServer(t *testing.T) {
	type seen struct {
		header string
		body   int64
	}
	got := make(chan seen, 1)
	url := rawServer(t, func(c *net.TCPConn, r *bufio.Reader) {
		header := readHeader(r)
		fmt.Fprint(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge")
		n, _ := io.Copy(io.Discard, r)
		got <- seen{header, n}
	})
	c, err := replycx.New("t", replycx.Options{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	opened := false
	part := file("f", "f.txt", strings.Repeat("x", 2<<20))
	open := part.Open
	part.Open = func(ctx context.Context) (io.ReadCloser, error) { opened = true; return open(ctx) }
	_, err = c.UploadSources(t.Context(), 1, []replycx.Part{part}, nil)
	if refused, ok := errors.AsType[*replycx.Error](err); !ok || refused.StatusCode != 413 || refused.Message != "large" || !unsent(err) {
		t.Errorf("error %v", err)
	}
	s := <-got
	if s.body != 0 || opened || !strings.Contains(s.header, "expect: 100-continue") || !strings.Contains(s.header, "connection: close") {
		t.Errorf("%d bytes of body, opened %v, after %q", s.body, opened, s.header)
	}
}

// TestAnswerBeforeReset: a server answers during the body and resets the connection.
// The answer counts.
func TestAnswerBeforeReset(t *testing.T) {
	url := rawServer(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHeader(r)
		fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		_, _ = io.CopyN(io.Discard, r, 1<<20)
		fmt.Fprint(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
		// Closing with unread bytes resets the connection.
	})
	c, err := replycx.New("t", replycx.Options{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	parts := []replycx.Part{{Field: "f", Size: 1 << 40, Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }}}
	for range 50 {
		_, err := c.UploadSources(t.Context(), 1, parts, nil)
		if refused, ok := errors.AsType[*replycx.Error](err); !ok || refused.StatusCode != 413 || !unsent(err) {
			t.Fatalf("error %v", err)
		}
	}
}

type failing struct {
	io.Reader
	close error
}

func (f failing) Close() error { return f.close }

func TestPartErrors(t *testing.T) {
	boom := errors.New("boom")
	open := func(content string, then, close error) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) {
			r := io.Reader(strings.NewReader(content))
			if then != nil {
				r = io.MultiReader(r, readerFunc(func([]byte) (int, error) { return 0, then }))
			}
			return failing{r, close}, nil
		}
	}
	good := file("good", "good.md", "good")
	tests := []struct {
		name string
		part replycx.Part
		want error
	}{
		{"short", replycx.Part{Field: "f", Filename: "f", Size: 6, Open: open("12345", nil, nil)}, replycx.ErrPartShort},
		{"long", replycx.Part{Field: "f", Filename: "f", Size: 4, Open: open("12345", nil, nil)}, replycx.ErrPartLong},
		{"long when empty was planned", replycx.Part{Field: "f", Filename: "f", Size: 0, Open: open("1", nil, nil)}, replycx.ErrPartLong},
		{"fails halfway", replycx.Part{Field: "f", Filename: "f", Size: 9, Open: open("12345", boom, nil)}, boom},
		{"fails at its end", replycx.Part{Field: "f", Filename: "f", Size: 5, Open: open("12345", boom, nil)}, boom},
		{"fails at its closing", replycx.Part{Field: "f", Filename: "f", Size: 5, Open: open("12345", nil, boom)}, boom},
		{"does not open", replycx.Part{Field: "f", Filename: "f", Size: 5, Open: func(context.Context) (io.ReadCloser, error) { return nil, boom }}, boom},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, c := serve(t, emulator.Options{}, replycx.Options{})
			var seal sealing
			_, err := c.UploadSources(t.Context(), 876, []replycx.Part{good, tt.part}, seal.options())
			part, ok := errors.AsType[*replycx.PartError](err)
			if !ok || !errors.Is(err, tt.want) || part.Field != "f" || part.Index != 1 || !unsent(err) {
				t.Errorf("error %v (unsent %v), want %v", err, unsent(err), tt.want)
			}
			if seal.n.Load() != 0 || e.Counts().AcceptedParts != 0 {
				t.Errorf("sealed %d times, accepted %d", seal.n.Load(), e.Counts().AcceptedParts)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestUploadRefusedBeforeAnyRequest(t *testing.T) {
	c := client(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }, replycx.Options{})
	for name, parts := range map[string][]replycx.Part{
		"no parts":         nil,
		"no field":         {file("", "a.md", "a")},
		"field twice":      {file("f", "a.md", "a"), file("f", "b.md", "b")},
		"an answer's key":  {file("ok", "a.md", "a")},
		"newline in field": {file("a\nb", "a.md", "a")},
		"quote in field":   {file(`a"b`, "a.md", "a")},
		"invalid UTF-8":    {file("a\xff", "a.md", "a")},
		"negative size":    {{Field: "f", Size: -1, Open: file("f", "", "").Open}},
		"overflow":         {{Field: "f", Size: 1<<63 - 1, Open: file("f", "", "").Open}},
		"nothing to open":  {{Field: "f"}},
		"too many":         make([]replycx.Part, replycx.MaxParts+1),
	} {
		if _, err := c.UploadSources(t.Context(), 1, parts, nil); !unsent(err) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := c.UploadSources(t.Context(), 0, []replycx.Part{file("f", "a", "a")}, nil); !unsent(err) {
		t.Errorf("knowledge base 0: error %v", err)
	}
}

func TestUploadStalls(t *testing.T) {
	timeouts := replycx.Timeouts{Stall: 50 * time.Millisecond}
	t.Run("in a part", func(t *testing.T) {
		e, c := serve(t, emulator.Options{}, replycx.Options{Timeouts: timeouts})
		_, err := c.UploadSources(t.Context(), 876, []replycx.Part{{Field: "f", Size: 5, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return io.NopCloser(readerFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, context.Cause(ctx) })), nil
		}}}, nil)
		if !errors.Is(err, replycx.ErrStalled) || !unsent(err) || e.Counts().AcceptedParts != 0 {
			t.Errorf("error %v, unsent %v", err, unsent(err))
		}
	})
	t.Run("waiting for the answer", func(t *testing.T) {
		e, c := serve(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{Stall: time.Hour, At: emulator.After}}}},
			replycx.Options{Timeouts: replycx.Timeouts{Answer: 500 * time.Millisecond}})
		_, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f.md", "f")}, nil)
		if !errors.Is(err, replycx.ErrStalled) || unsent(err) || e.Counts().AcceptedParts != 1 {
			t.Errorf("error %v, unsent %v", err, unsent(err))
		}
	})
	t.Run("server does not read", func(t *testing.T) {
		e, c := serve(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{Stall: time.Hour}}}}, replycx.Options{Timeouts: timeouts})
		_, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f.md", strings.Repeat("f", 16<<20))}, nil)
		if !errors.Is(err, replycx.ErrStalled) || !unsent(err) || e.Counts().AcceptedParts != 0 {
			t.Errorf("error %v, unsent %v", err, unsent(err))
		}
	})
	t.Run("seal takes longer than the stall", func(t *testing.T) {
		timeouts := replycx.Timeouts{Stall: 300 * time.Millisecond}
		_, c := serve(t, emulator.Options{}, replycx.Options{Timeouts: timeouts})
		_, err := c.UploadSources(t.Context(), 876, []replycx.Part{file("f", "f.md", "f")}, &replycx.UploadOptions{
			Seal: func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				case <-time.After(2 * timeouts.Stall):
				}
				return nil
			},
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestUploadCancelled(t *testing.T) {
	e, c := serve(t, emulator.Options{}, replycx.Options{})
	cause := errors.New("the breaker opened")
	t.Run("before the seal", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		var seal sealing
		part := file("f", "f.md", "f")
		open := part.Open
		part.Open = func(ctx context.Context) (io.ReadCloser, error) { cancel(cause); <-ctx.Done(); return open(ctx) }
		_, err := c.UploadSources(ctx, 876, []replycx.Part{part}, seal.options())
		if !errors.Is(err, cause) || !unsent(err) {
			t.Errorf("error %v, unsent %v", err, unsent(err))
		}
	})
	t.Run("within the seal", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := c.UploadSources(ctx, 876, []replycx.Part{file("f", "f.md", "f")}, &replycx.UploadOptions{
			Seal: func(context.Context) error { cancel(cause); return nil },
		})
		if !errors.Is(err, cause) || !unsent(err) {
			t.Errorf("error %v, unsent %v", err, unsent(err))
		}
	})
	if n := e.Counts().AcceptedParts; n != 0 {
		t.Errorf("%d parts were accepted", n)
	}
}

func TestUploadMissingFields(t *testing.T) {
	parts := []replycx.Part{file("a", "a", "a"), file("b", "b", "b"), file("c", "c", "c")}
	tests := []struct {
		name, answer, missing string
		sources               int
	}{
		{"all there", `{"a":[{"id":1}],"b":[{"id":2},{"id":3}],"c":[{"id":4}],"ok":true}`, "[]", 4},
		{"one missing", `{"a":[{"id":1}],"c":[{"id":4}],"ok":true}`, "[b]", 2},
		{"an empty list", `{"a":[{"id":1}],"b":[],"c":[{"id":4}],"ok":true}`, "[b]", 2},
		{"one of two ids is none", `{"a":[{"id":1}],"b":[{"id":2},{"id":"x"}],"c":[{"id":4}],"ok":true}`, "[b]", 3},
		{"no list", `{"a":[{"id":1}],"b":{"id":2},"c":"?","ok":true}`, "[b c]", 1},
		{"ids that overflow, are negative, are fractions", `{"a":[{"id":99999999999999999999}],"b":[{"id":-1}],"c":[{"id":1.5}],"d":[{"id":1}]}`, "[a b c]", 1},
		{"no ok, a foreign key, a BOM", "\xef\xbb\xbf" + `{"a":[{"id":1}],"b":[{"id":2}],"c":[{"id":4}],"z":[{"id":9}]}`, "[]", 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, tt.answer)
			}, replycx.Options{})
			result, err := c.UploadSources(t.Context(), 1, parts, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, list := range result.Sources {
				n += len(list)
			}
			if fmt.Sprint(result.Missing) != tt.missing || n != tt.sources {
				t.Errorf("missing %v, want %s; %d sources, want %d", result.Missing, tt.missing, n, tt.sources)
			}
		})
	}
}

func TestSourceErrors(t *testing.T) {
	for errs, want := range map[string]string{
		`null`: "", `[]`: "", `{}`: "", `""`: "", `"too long"`: "too long",
		`["a","b"]`: "a; b", `{"file":["bad","worse"]}`: "file: bad worse", `7`: "7", `[{"m":1}]`: `[{"m":1}]`,
	} {
		c := client(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, `{"f":[{"id":1,"type":null,"name":7,"status":"In_Progress","errors":%s}],"ok":true}`, errs)
		}, replycx.Options{})
		result, err := c.UploadSources(t.Context(), 1, []replycx.Part{file("f", "f", "f")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s := result.Sources["f"][0]; s.Errors != want || s.Name != "7" || !s.Status.Is(replycx.StatusInProgress) {
			t.Errorf("errors %s give %+v, want %q", errs, s, want)
		}
	}
}

// TestUploadMemory sends 256 MiB with a few megabytes of allocations on both sides
// together.
func TestUploadMemory(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, `{"f":[{"id":1}],"ok":true}`)
	}, replycx.Options{})
	const size = 256 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.UploadSources(t.Context(), 1, []replycx.Part{{Field: "f", Filename: "f.bin", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}}, nil)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestUploadConcurrently(t *testing.T) {
	e, c := serve(t, emulator.Options{}, replycx.Options{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				if _, err := c.UploadSources(t.Context(), 876, []replycx.Part{
					file("a", "a.md", fmt.Sprint(g, "-", i, "a")), file("b", "b.md", strings.Repeat(fmt.Sprint(g, "-", i, "b"), 30_000)),
				}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	distinct := make(map[[sha256.Size]byte]bool)
	for _, s := range e.Accepted() {
		distinct[s.SHA256] = true
	}
	if len(distinct) != 320 {
		t.Errorf("%d distinct contents were accepted, want 320", len(distinct))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func BenchmarkUploadSmallParts(b *testing.B) {
	_, c := serve(b, emulator.Options{}, replycx.Options{})
	content := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	const n = 100
	parts := make([]replycx.Part, n)
	for i := range parts {
		parts[i] = replycx.Part{
			Field: fmt.Sprintf("f%d", i), Filename: fmt.Sprintf("docs__page-%d.md", i), Size: int64(len(content)),
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UploadSources(b.Context(), 876, parts, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "parts/s")
}

func BenchmarkUploadLargePart(b *testing.B) {
	_, c := serve(b, emulator.Options{}, replycx.Options{})
	const size = 256 << 20
	parts := []replycx.Part{{Field: "f", Filename: "large.bin", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UploadSources(b.Context(), 876, parts, nil); err != nil {
			b.Fatal(err)
		}
	}
}
