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

// A discarding is a server that parses and discards each upload.
type discarding struct {
	url         string
	accepted    atomic.Int64
	first, last atomic.Int64 // when the first upload began and the last one was accepted
}

func (d *discarding) took() time.Duration { return time.Duration(d.last.Load() - d.first.Load()) }

// serveDiscarding serves uploads and statuses at the lowest cost. It parses and discards each body, and reports every
// source as completed.
func serveDiscarding(tb testing.TB) *discarding {
	d := &discarding{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{"ok": true}
		if r.Method == http.MethodGet {
			sources := []map[string]any{}
			for id := range strings.SplitSeq(r.URL.Query().Get("source_ids"), ",") {
				sources = append(sources, map[string]any{"id": json.Number(id), "status": "completed", "knowledge_base_id": 876})
			}
			answer["sources"] = sources
		} else {
			d.first.CompareAndSwap(0, time.Now().UnixNano())
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
				answer[part.FormName()] = []map[string]any{{"id": d.accepted.Add(1), "type": "file", "name": part.FileName(), "status": "in-progress", "errors": nil}}
			}
			answer["knowledge_base_id"] = 876
			d.last.Store(time.Now().UnixNano())
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			tb.Error(err)
		}
	}))
	tb.Cleanup(server.Close)
	d.url = server.URL
	return d
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

func fileSize(tb testing.TB, path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return info.Size()
}

func syncOnce(tb testing.TB, url, state, root string, flags ...string) {
	var stderr strings.Builder
	args := []string{"sync", root, "--knowledge-base", "876", "--state", state, "--api-url", url, "--rate", "off", "--settle", "0s", "--wait=false", "-q"}
	code := run(tb.Context(), append(args, flags...),
		[]string{"REPLYCX_TOKEN=x.y.z", "HOME=" + tb.TempDir()}, strings.NewReader(""), io.Discard, &stderr)
	if code != exitDone && code != exitTemporary && code != exitTraining {
		tb.Fatalf("exit %d: %s", code, stderr.String())
	}
}

// BenchmarkFirstSync measures the first sync of files to a server in this process that discards them: the rate from the
// first byte to the last acceptance, and the size of the state's file without the keys.
func BenchmarkFirstSync(b *testing.B) {
	for _, c := range []struct{ files, size int }{{10000, 4096}, {100000, 1024}} {
		b.Run(fmt.Sprint(c.files), func(b *testing.B) {
			root := corpus(b, c.files, c.size)
			keys := int64(len("00/00000/doc-000000.md")+1) * int64(c.files)
			for b.Loop() {
				server := serveDiscarding(b)
				state := filepath.Join(b.TempDir(), "kbsync.db")
				syncOnce(b, server.url, state, root)
				if n := server.accepted.Load(); n != int64(c.files) {
					b.Fatalf("%d accepted", n)
				}
				b.ReportMetric(float64(c.files)/server.took().Seconds(), "files/s")
				b.StopTimer()
				training := fileSize(b, state)
				syncOnce(b, server.url, state, root, "--wait=true")
				b.ReportMetric(float64(training-keys)/float64(c.files), "training-bytes/document")
				b.ReportMetric(float64(fileSize(b, state)-keys)/float64(c.files), "state-bytes/document")
				b.StartTimer()
			}
		})
	}
}

// BenchmarkNothingChanged measures a sync of 100,000 known files of 1 KiB.
func BenchmarkNothingChanged(b *testing.B) {
	root := corpus(b, 100000, 1024)
	server := serveDiscarding(b)
	state := filepath.Join(b.TempDir(), "kbsync.db")
	syncOnce(b, server.url, state, root)
	n := server.accepted.Load()
	for b.Loop() {
		syncOnce(b, server.url, state, root)
	}
	if server.accepted.Load() != n {
		b.Fatal("a document was uploaded again")
	}
}
