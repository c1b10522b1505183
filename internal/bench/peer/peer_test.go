package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func tree(t *testing.T, files int) (dir string, size int64) {
	t.Helper()
	dir = t.TempDir()
	for i := range files {
		content := strings.Repeat(fmt.Sprint(i, " "), i*1000) // one is empty, and some are larger than a buffer
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d.md", i)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		size += int64(len(content))
	}
	return dir, size
}

func get(t *testing.T, url string, result any) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(result); err != nil {
		t.Fatal(err)
	}
}

func set(t *testing.T, url string, body string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, response.Status)
	}
}

func TestMinimalClientSendsEachFileOnceWithItsExactLength(t *testing.T) {
	dir, size := tree(t, 45)
	var mu sync.Mutex
	var names []string
	var got int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength <= 0 {
			t.Errorf("a request has the length %d", r.ContentLength)
		}
		parts, err := r.MultipartReader()
		if err != nil {
			t.Error(err)
			return
		}
		for {
			part, err := parts.NextPart()
			if err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				return
			}
			n, err := io.Copy(io.Discard, part)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			names, got = append(names, part.FileName()), got+n
			mu.Unlock()
		}
	}))
	defer server.Close()
	if err := send(t.Context(), []string{"-url", server.URL, dir}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 45 || got != size {
		t.Errorf("%d names and %d bytes, not 45 and %d", len(names), got, size)
	}
}

func TestAPICountsUploadsAndTrainsThem(t *testing.T) {
	server := httptest.NewServer(newAPI())
	defer server.Close()
	set(t, server.URL+"/bench/reset", `{"train": 3600000000000, "arrivals": true}`)
	var body strings.Builder
	form := multipart.NewWriter(&body)
	for _, name := range []string{"a.md", "b.md"} {
		w, err := form.CreateFormFile("key of "+name, name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "four")
	}
	form.Close()
	before := time.Now()
	response, err := http.Post(server.URL+"/api/v1/ai/knowledge-base/876/upload/sources", form.FormDataContentType(), strings.NewReader(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer["knowledge_base_id"] != 876.0 || answer["key of a.md"] == nil || answer["key of b.md"] == nil {
		t.Errorf("the answer is %v", answer)
	}
	var c counts
	get(t, server.URL+"/bench/counts", &c)
	if c.Uploads != 1 || c.Documents != 2 || c.Bytes != 8 || c.First.Before(before) || c.Last.Before(c.First) {
		t.Errorf("the counts are %+v", c)
	}
	var at time.Time
	get(t, server.URL+"/bench/arrival?name=b.md", &at)
	if !at.Equal(c.Last) {
		t.Errorf("b.md arrived at %v, not at %v", at, c.Last)
	}
	status := func() string {
		var status struct {
			Sources []struct{ Status string }
		}
		get(t, server.URL+"/api/v1/ai/knowledge-base/876/sources?source_ids=1,2,3", &status)
		if len(status.Sources) != 2 || status.Sources[0] != status.Sources[1] {
			t.Fatalf("the sources are %v: source 3 does not exist", status.Sources)
		}
		return status.Sources[0].Status
	}
	if word := status(); word != "in-progress" {
		t.Errorf("a source of this minute is %s", word)
	}
	set(t, server.URL+"/bench/reset", `{}`)
	if word := status(); word != "completed" {
		t.Errorf("without a training time a source is %s", word)
	}
}

// The examples of Amazon's description of version 4 signatures for S3.
func TestSignature(t *testing.T) {
	b := &bucket{
		accessKey: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		now: func() time.Time { return time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC) },
	}
	for query, signature := range map[string]string{
		"lifecycle=":          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		"max-keys=2&prefix=J": "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
	} {
		r := httptest.NewRequest(http.MethodGet, "http://examplebucket.s3.amazonaws.com/?"+query, nil)
		b.sign(r, nil)
		if got := r.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+signature) {
			t.Errorf("%s: %s", query, got)
		}
	}
}

func TestPagesAreReadToTheEnd(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch r.URL.Query().Get("continuation-token") {
		case "":
			fmt.Fprint(w, "<Key>a</Key><NextContinuationToken>to+ken</NextContinuationToken>")
		case "to+ken":
			fmt.Fprint(w, "<Key>b</Key>")
		default:
			t.Errorf("unknown page %s", r.URL)
		}
	}))
	defer server.Close()
	if err := pages(t.Context(), []string{"-endpoint", server.URL, "-bucket", "b"}); err != nil {
		t.Fatal(err)
	}
	if asked != 2 {
		t.Errorf("%d pages were asked for, not 2", asked)
	}
}

func TestDelayedRequestsKeepTheirHost(t *testing.T) {
	host := ""
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { host = r.Host }))
	defer behind.Close()
	proxy := httptest.NewServer(newDelay(strings.TrimPrefix(behind.URL, "http://")))
	defer proxy.Close()
	set(t, proxy.URL+"/-/delay?is=30ms", "")
	begun := time.Now()
	response, err := http.Get(proxy.URL + "/bucket")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if took := time.Since(begun); took < 30*time.Millisecond {
		t.Errorf("a request took %v", took)
	}
	if host != strings.TrimPrefix(proxy.URL, "http://") {
		t.Errorf("the server behind sees the host %s", host)
	}
}

func TestUsageOfAProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "usage.json")
	if err := measured(t.Context(), []string{"-usage", file, "--", os.Args[0], "-test.run=^$", "-no-such-flag"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	if err := json.Unmarshal(data, &u); err != nil {
		t.Fatal(err)
	}
	if u.Exit != 2 || u.Seconds <= 0 || u.Peak < 1<<20 {
		t.Errorf("%+v", u)
	}
}
