package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveDiscarding serves uploads and statuses at the lowest cost. It parses and discards each body, and reports every
// source as completed.
func serveDiscarding(tb testing.TB) (url string, accepted *atomic.Int64) {
	accepted = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{"ok": true}
		if r.Method == http.MethodGet {
			sources := []map[string]any{}
			for id := range strings.SplitSeq(r.URL.Query().Get("source_ids"), ",") {
				sources = append(sources, map[string]any{"id": json.Number(id), "status": "completed", "knowledge_base_id": 876})
			}
			answer["sources"] = sources
		} else {
			parts, err := r.MultipartReader()
			if err != nil {
				tb.Error(err)
				return
			}
			for {
				part, err := parts.NextPart()
				if err == io.EOF {
					break
				}
				if err != nil {
					tb.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, part); err != nil {
					tb.Error(err)
					return
				}
				answer[part.FormName()] = []map[string]any{{"id": accepted.Add(1), "type": "file", "name": part.FileName(), "status": "in-progress", "errors": nil}}
			}
			answer["knowledge_base_id"] = 876
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			tb.Error(err)
		}
	}))
	tb.Cleanup(server.Close)
	return server.URL, accepted
}

// corpus writes files of about size bytes into directories of 25.
func corpus(tb testing.TB, files, size int) string {
	root := filepath.Join(tb.TempDir(), "root")
	for i := range files {
		dir := filepath.Join(root, fmt.Sprintf("%03d", i/25/64), fmt.Sprintf("%05d", i/25))
		if i%25 == 0 {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				tb.Fatal(err)
			}
		}
		text := fmt.Sprintf("document %d\n", i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("doc-%06d.md", i)), []byte(text+strings.Repeat("x", size-len(text))), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

func syncOnce(tb testing.TB, url, state, root string) {
	var stderr strings.Builder
	code := run(tb.Context(), []string{"sync", root, "--knowledge-base", "876", "--state", state, "--api-url", url, "--rate", "off", "--settle", "0s", "--wait=false", "-q"},
		[]string{"REPLYCX_TOKEN=x.y.z", "HOME=" + tb.TempDir()}, strings.NewReader(""), io.Discard, &stderr)
	if code != exitDone && code != exitTemporary && code != exitTraining {
		tb.Fatalf("exit %d: %s", code, stderr.String())
	}
}

// BenchmarkFirstSync measures the first sync of 10,000 files of 4 KiB to a server in this process that discards them.
func BenchmarkFirstSync(b *testing.B) {
	const files = 10000
	root := corpus(b, files, 4096)
	for b.Loop() {
		url, accepted := serveDiscarding(b)
		start := time.Now()
		syncOnce(b, url, filepath.Join(b.TempDir(), "kbsync.db"), root)
		if n := accepted.Load(); n != files {
			b.Fatalf("%d accepted", n)
		}
		b.ReportMetric(files/time.Since(start).Seconds(), "files/s")
	}
}

// BenchmarkNothingChanged measures a sync of 100,000 known files of 1 KiB.
func BenchmarkNothingChanged(b *testing.B) {
	root := corpus(b, 100000, 1024)
	url, accepted := serveDiscarding(b)
	state := filepath.Join(b.TempDir(), "kbsync.db")
	syncOnce(b, url, state, root)
	n := accepted.Load()
	for b.Loop() {
		syncOnce(b, url, state, root)
	}
	if accepted.Load() != n {
		b.Fatal("a document was uploaded again")
	}
}
