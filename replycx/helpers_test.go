package replycx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

func TestUploadFiles(t *testing.T) {
	fsys := fstest.MapFS{"top.md": {Data: []byte("top")}, "a/b/deep.md": {Data: []byte("deep")}, "a/data.csv": {Data: []byte("x,y")}, "a/skip.png": {Data: []byte("png")}}
	for i := range 45 {
		fsys[fmt.Sprintf("many/%02d.txt", i)] = &fstest.MapFile{Data: []byte(fmt.Sprint("text ", i))}
	}
	tests := []struct {
		patterns []string
		want     int
		uploads  int64
	}{
		{nil, 49, 3},
		{[]string{"*.md"}, 2, 1},
		{[]string{"a/**/*.md", "a/*.csv"}, 2, 1},
		{[]string{"**/0?.txt"}, 10, 1},
		{[]string{"a/*"}, 2, 1},
		{[]string{"nothing"}, 0, 0},
	}
	for _, tt := range tests {
		e, c := serve(t, emulator.Options{}, replycx.Options{})
		var paths []string
		for f, err := range c.UploadFiles(t.Context(), 876, fsys, tt.patterns...) {
			if err != nil || len(f.Sources) != 1 {
				t.Errorf("%+v: %v", f, err)
			}
			paths = append(paths, f.Path)
		}
		if len(paths) != tt.want || e.Counts().Uploads != tt.uploads || len(e.Accepted()) != tt.want {
			t.Errorf("%v: %d files in %d uploads, want %d in %d: %v", tt.patterns, len(paths), e.Counts().Uploads, tt.want, tt.uploads, paths)
		}
	}
	e, c := serve(t, emulator.Options{Faults: &emulator.Faults{Rules: []emulator.Fault{{Operation: emulator.OpUpload, Nth: []int64{1}, Status: 500}, {Operation: emulator.OpUpload, DropFields: 1}}}}, replycx.Options{})
	bad, good := 0, 0
	for f, err := range c.UploadFiles(t.Context(), 876, fsys, "many/*") {
		if err != nil {
			bad++
		} else if good++; len(f.Sources) != 1 {
			t.Errorf("file %+v", f)
		}
	}
	if bad != 22 || good != 23 {
		t.Errorf("%d failed, %d good", bad, good)
	}
	if names := e.Accepted()[0].Filename; names != "many__20.txt" {
		t.Errorf("name %s", names)
	}
	for range c.UploadFiles(t.Context(), 876, fsys) {
		break // stops cleanly, after one upload
	}
	if n := e.Counts().Uploads; n != 4 {
		t.Errorf("%d uploads", n)
	}
	for _, err := range c.UploadFiles(t.Context(), 876, fsys, "[") {
		if err == nil {
			t.Error("an invalid pattern was accepted")
		}
	}
}

// trainer is a server of source statuses. It has the time at which each training ends.
type trainer struct {
	began  time.Time
	ends   map[int64]time.Duration // negative: the source is not named
	spoil  func(request int) *http.Response
	asked  [][]string
	failed map[int64]bool
}

func (s *trainer) RoundTrip(r *http.Request) (*http.Response, error) {
	ids := strings.Split(r.URL.Query().Get("source_ids"), ",")
	s.asked = append(s.asked, ids)
	if s.spoil != nil {
		if resp := s.spoil(len(s.asked)); resp != nil {
			return resp, nil
		}
	}
	var b strings.Builder
	b.WriteString(`{"ok":true,"sources":[`)
	first := true
	for _, text := range ids {
		var id int64
		_, _ = fmt.Sscan(text, &id)
		if s.ends[id] < 0 {
			continue
		}
		word := "in-progress"
		if time.Since(s.began) >= s.ends[id] {
			word = "completed"
			if s.failed[id] {
				word = "failed"
			}
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		fmt.Fprintf(&b, `{"id":%d,"status":%q}`, id, word)
	}
	b.WriteString("]}")
	return respond(200, b.String(), nil), nil
}

func respond(status int, body string, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

func TestWaitForSources(t *testing.T) {
	newClient := func(t *testing.T, s *trainer) *replycx.Client {
		s.began = time.Now()
		c, err := replycx.New("t", replycx.Options{HTTPClient: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("until all have ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &trainer{ends: map[int64]time.Duration{1: 0, 2: 90 * time.Second, 3: 10 * time.Minute}, failed: map[int64]bool{2: true}}
			var rounds int
			got, err := newClient(t, s).WaitForSources(t.Context(), []int64{3, 1, 2, 1}, replycx.WaitOptions{Progress: func(list []replycx.SourceStatus) {
				rounds++
				if len(list) != 4 {
					t.Errorf("progress of %d", len(list))
				}
			}})
			var words []string
			for _, one := range got {
				words = append(words, fmt.Sprint(one.ID, one.Status))
			}
			if err != nil || fmt.Sprint(words) != "[3completed 1completed 2failed 1completed]" {
				t.Errorf("%v, %v", words, err)
			}
			if n := len(s.asked); n < 8 || n > 30 || n != rounds {
				t.Errorf("%d requests and %d rounds for ten minutes of training", n, rounds)
			}
			if last := s.asked[len(s.asked)-1]; !slices.Equal(last, []string{"3"}) {
				t.Errorf("a finished source was requested again: %v", last)
			}
		})
	})
	t.Run("in chunks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &trainer{ends: map[int64]time.Duration{}}
			ids := make([]int64, 250)
			for i := range ids {
				ids[i] = int64(i + 1)
			}
			if _, err := newClient(t, s).WaitForSources(t.Context(), ids, replycx.WaitOptions{}); err != nil || len(s.asked) != 3 {
				t.Errorf("%d requests, %v", len(s.asked), err)
			}
		})
	})
	t.Run("failures that pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &trainer{ends: map[int64]time.Duration{1: 0}, spoil: func(n int) *http.Response {
				switch n {
				case 1:
					return respond(429, "", http.Header{"Retry-After": {"100"}})
				case 2:
					return respond(502, "<html>", nil)
				case 3:
					return respond(200, "<html>", nil)
				}
				return nil
			}}
			_, err := newClient(t, s).WaitForSources(t.Context(), []int64{1}, replycx.WaitOptions{})
			if err != nil || len(s.asked) != 4 || time.Since(s.began) < 100*time.Second {
				t.Errorf("%d requests in %v, %v", len(s.asked), time.Since(s.began), err)
			}
		})
	})
	t.Run("failures that stay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &trainer{spoil: func(int) *http.Response {
				return respond(401, `{"ok":false,"error":"JWT_SIGNATURE_EXCEPTION"}`, nil)
			}}
			if _, err := newClient(t, s).WaitForSources(t.Context(), []int64{1}, replycx.WaitOptions{}); !errors.Is(err, replycx.ErrTokenInvalid) || len(s.asked) != 1 {
				t.Errorf("%d requests, %v", len(s.asked), err)
			}
		})
	})
	t.Run("until the context ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			s := &trainer{ends: map[int64]time.Duration{1: 0, 2: -1}}
			got, err := newClient(t, s).WaitForSources(ctx, []int64{1, 2}, replycx.WaitOptions{})
			if !errors.Is(err, context.DeadlineExceeded) || !got[0].Status.Final() || got[1].Status != "" || got[1].ID != 2 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	})
}

func TestDialect(t *testing.T) {
	for _, tt := range []struct {
		dialect replycx.Dialect
		path    string
		message string
	}{
		{replycx.Dialect{}, "/v1/conversations", `"message":{"text":"Hi","type":"text"}`},
		{replycx.Dialect{CreateUnderAPI: true, Text: replycx.TextBody}, "/api/v1/conversations", `"message":{"data":{"body":"Hi"},"type":"text"}`},
		{replycx.Dialect{Text: replycx.TextBoth}, "/v1/conversations", `"message":{"data":{"body":"Hi"},"text":"Hi","type":"text"}`},
	} {
		var path, body string
		record := roundTrip(func(r *http.Request) (*http.Response, error) {
			data, _ := io.ReadAll(r.Body)
			path, body = r.URL.Path, string(data)
			return respond(200, `{"ok":true,"conversation":{"id":"x"}}`, nil), nil
		})
		c, err := replycx.New("t", replycx.Options{Dialect: tt.dialect, HTTPClient: &http.Client{Transport: record}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateConversation(t.Context(), sms(func(n *replycx.NewConversation) { n.Message.Text = "Hi" })); err != nil {
			t.Fatal(err)
		}
		if path != tt.path || !strings.Contains(body, tt.message) {
			t.Errorf("%+v: %s %s", tt.dialect, path, body)
		}
		// The emulator accepts every form.
		_, ec := serve(t, emulator.Options{}, replycx.Options{Dialect: tt.dialect})
		if _, err := ec.CreateConversation(t.Context(), sms(nil)); err != nil {
			t.Errorf("%+v: %v", tt.dialect, err)
		}
	}
}

func TestCallsRefusedBeforeAnyRequest(t *testing.T) {
	c := client(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }, replycx.Options{})
	if _, err := c.Bots(t.Context()); !errors.Is(err, replycx.ErrNoAccount) {
		t.Errorf("no account: %v", err)
	}
	for _, id := range []string{"", ".", ".."} {
		if err := c.CloseConversation(t.Context(), id, agent); err == nil {
			t.Errorf("conversation id %q was accepted", id)
		}
	}
	for _, m := range []replycx.Message{{}, {Text: "a", File: orchid}} {
		if _, err := c.SendMessage(t.Context(), "x", agent, m); err == nil {
			t.Errorf("message %+v was accepted", m)
		}
	}
	if err := c.SetWebhook(t.Context(), replycx.Webhook{URL: "example.com/hook"}); err == nil {
		t.Error("a URL without a scheme was accepted")
	}
}

// TestConversationIDIsOnePathSegment: any id is escaped to one segment of the path.
func TestConversationIDIsOnePathSegment(t *testing.T) {
	var path string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		fmt.Fprint(w, `{"ok":true}`)
	}, replycx.Options{})
	if err := c.CloseConversation(t.Context(), "../a/b?c#d%2f", agent); err != nil || path != "/api/v1/conversation/..%2Fa%2Fb%3Fc%23d%252f/events" {
		t.Errorf("path %s, %v", path, err)
	}
}
