package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwoAPIsBehindOneHostAreTwoDestinations syncs a root to one of two APIs that differ only by the path of their URL, and
// then to the other. The other API has none of the documents, so the sync must halt and not share them.
func TestTwoAPIsBehindOneHostAreTwoDestinations(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.md"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	one, two := newFixture(t, root), newFixture(t, root)
	host := http.NewServeMux()
	for path, f := range map[string]*fixture{"/one": one, "/two": two} {
		target, err := url.Parse(f.url)
		f.must(err)
		host.Handle(path+"/", http.StripPrefix(path, httputil.NewSingleHostReverseProxy(target)))
	}
	server := httptest.NewServer(host)
	defer server.Close()
	sync := func(path string, more ...string) (code int, log string) {
		var stderr strings.Builder
		code = run(t.Context(), append([]string{
			"sync", root, "--knowledge-base", "876", "--state", one.state, "--api-url", server.URL + path,
			"--rate", "off", "--settle", "0s", "--poll-min", "10ms",
		}, more...), []string{"REPLYCX_TOKEN=" + one.emulator.Token(51), "HOME=" + one.dir}, strings.NewReader(""), &strings.Builder{}, &stderr)
		return code, stderr.String()
	}
	if code, log := sync("/one"); code != exitDone || len(one.emulator.Accepted()) != 1 {
		t.Fatalf("exit %d, %d accepted: %s", code, len(one.emulator.Accepted()), log)
	}
	if code, log := sync("/one/"); code != exitDone || len(one.emulator.Accepted()) != 1 {
		t.Errorf("with a slash at the end: exit %d, %d accepted: %s", code, len(one.emulator.Accepted()), log)
	}
	if code, log := sync("/two"); code != exitGuard || !strings.Contains(log, server.URL+"/one") || !strings.Contains(log, server.URL+"/two") {
		t.Errorf("the other API: exit %d, want %d: %s", code, exitGuard, log)
	}
	if code, log := sync("/two", "--accept-new-destination"); code != exitDone || len(two.emulator.Accepted()) != 1 {
		t.Errorf("the other API, accepted: exit %d, %d accepted: %s", code, len(two.emulator.Accepted()), log)
	}
}
