package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// discard parses uploads, discards them and answers.
type discard struct{ last atomic.Int64 }

func (d *discard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := map[string]any{"ok": true, "knowledge_base_id": knowledgeBase}
	parts := multipart.NewReader(r.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			break
		}
		if _, err := io.Copy(io.Discard, p); err != nil {
			return
		}
		id := d.last.Add(1)
		answer[p.FormName()] = []map[string]any{{"id": id, "type": "file", "name": p.FileName(), "status": "in-progress"}}
	}
	_ = json.NewEncoder(w).Encode(answer) // the client notices
}

// A directory opens real files, as the watcher's root does.
type directory struct{ root *os.Root }

func (d directory) Open(_ context.Context, key string, _ state.Fingerprint) (io.ReadCloser, error) {
	return d.root.Open(key)
}

// BenchmarkP2FirstSync uploads 10,000 files of 4 KiB to a server that parses and discards them, with hashing and a durable
// state.
func BenchmarkP2FirstSync(b *testing.B) {
	server := httptest.NewServer(&discard{})
	defer server.Close()
	client, err := replycx.New("token", replycx.Options{BaseURL: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	defer client.CloseIdleConnections()
	dir := b.TempDir()
	const files = 10_000
	content := make([]byte, 4096)
	for i := range files {
		copy(content, fmt.Sprintf("content %d", i))
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/10))
		if i%10 == 0 {
			if err := os.Mkdir(sub, 0o700); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%05d.md", i)), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		fx := newFixtureAt(b, filepath.Join(b.TempDir(), "kbsync.db"))
		scan, err := fx.store.Scans.Begin(b.Context(), fx.sync.ID, "")
		if err != nil {
			b.Fatal(err)
		}
		changes := make([]state.Change, files)
		for i := range changes {
			changes[i] = state.Change{Op: state.Put, Key: fmt.Sprintf("d%03d/%05d.md", i/10, i), Fingerprint: state.Fingerprint{Size: 4096, MTime: 1}}
		}
		if err := fx.store.Scans.Record(b.Context(), scan, changes); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		res, err := New(fx.store, client, directory{root}, fx.sync, fx.opts).Run(b.Context())
		b.StopTimer()
		if err != nil || res.Uploaded != files {
			b.Fatalf("%+v, %v", res, err)
		}
		if err := fx.store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkP3OneLargeFile uploads one file of 2 GiB. Its memory must not grow with the file.
func BenchmarkP3OneLargeFile(b *testing.B) {
	server := httptest.NewServer(&discard{})
	defer server.Close()
	client, err := replycx.New("token", replycx.Options{BaseURL: server.URL})
	if err != nil {
		b.Fatal(err)
	}
	defer client.CloseIdleConnections()
	const size = 2 << 30
	b.SetBytes(size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		fx := newFixture(b)
		fx.tree.files["large.bin"] = &file{fp: state.Fingerprint{Size: size, MTime: 1}}
		fx.scan()
		res, err := New(fx.store, client, fx.tree, fx.sync, fx.opts).Run(b.Context())
		if err != nil || res.Bytes != size {
			b.Fatalf("%+v, %v", res, err)
		}
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Sys)/(1<<20), "MiB-of-process")
}
