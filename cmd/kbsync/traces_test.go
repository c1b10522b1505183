//go:build !nocloud

package main

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A spanCollector receives the spans of a process.
type spanCollector struct {
	mu      sync.Mutex
	service string
	spans   map[string][]*otlp.Span // by name
	body    strings.Builder         // everything received
}

func (c *spanCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(data, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.body.Write(data)
	for _, resource := range request.GetResourceSpans() {
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[span.GetName()] = append(c.spans[span.GetName()], span)
			}
		}
	}
}

// A pass is one trace: the run, its pass, the scan, the upload and each request, with counts and without names or the token.
func TestPassIsATrace(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "docs")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "canary-name.md"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	received := &spanCollector{spans: map[string][]*otlp.Span{}}
	server := httptest.NewServer(received)
	defer server.Close()
	f := newFixture(t, root)
	cmd := f.command("sync", root, "--knowledge-base", "876", "--settle", "0s", "--poll-min", "20ms")
	cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parents := map[string]string{"pass": "run", "scan": "pass", "upload": "pass", "upload request": "upload"}
	for name, parent := range parents {
		if len(received.spans[name]) == 0 || len(received.spans[parent]) == 0 {
			t.Fatalf("no span %s or %s in %v", name, parent, received.spans)
		}
		if got, want := string(received.spans[name][0].GetParentSpanId()), string(received.spans[parent][0].GetSpanId()); got != want {
			t.Errorf("the parent of %s is %x, want %s, %x", name, got, parent, want)
		}
	}
	if len(received.spans["status request"]) == 0 {
		t.Error("no span of a status request")
	}
	if received.service != "kbsync" {
		t.Errorf("the service is %q", received.service)
	}
	for _, secret := range []string{"canary-name", f.emulator.Token(51)} {
		if strings.Contains(received.body.String(), secret) {
			t.Errorf("the traces contain %s", secret)
		}
	}
}

// A collector that is away costs a warning, and no document and no exit code.
func TestCollectorThatIsAwayChangesNothing(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "docs")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "a.md"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, root)
	cmd := f.command("sync", root, "--knowledge-base", "876", "--settle", "0s", "--poll-min", "20ms")
	cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "KBSYNC_LOG_FORMAT=json")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 completed") {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), `"msg":"traces were not sent"`) {
		t.Errorf("no warning in the form of the log in\n%s", out)
	}
}
