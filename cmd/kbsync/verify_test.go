package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

func TestVerifyReportsSourcesThatDiffer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.md", "b.md", "c.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, dir)
	kbsync := func(args ...string) (code int, stdout, stderr string) {
		var out, log strings.Builder
		code = run(t.Context(), append(args, "--state", f.state, "--api-url", f.url, "--rate", "off"),
			[]string{"REPLYCX_TOKEN=" + f.emulator.Token(51), "HOME=" + f.dir}, strings.NewReader(""), &out, &log)
		return code, out.String(), log.String()
	}
	if code, _, stderr := kbsync("sync", dir, "--knowledge-base", "876", "--settle", "0s", "--poll-min", "10ms"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	always := func(fault emulator.Fault) *emulator.Faults {
		fault.Operation = emulator.OpStatus
		return &emulator.Faults{Rules: []emulator.Fault{fault}}
	}
	for _, c := range []struct {
		name   string
		faults *emulator.Faults
		exit   int
		drifts map[string]int
	}{
		{"no difference", nil, exitDone, nil},
		{"one answer lacks a source by mistake", always(emulator.Fault{DropSources: 1, Count: 1}), exitDone, nil},
		{"one source is gone", always(emulator.Fault{DropSources: 1}), exitFailed, map[string]int{"missing": 1}},
		{"all sources are gone", always(emulator.Fault{DropSources: 3}), exitFailed, map[string]int{"missing": 3}},
		{"completed sources are failed now", always(emulator.Fault{Word: "failed"}), exitFailed, map[string]int{"status": 3}},
		{"the API is down", always(emulator.Fault{Status: 503}), exitTemporary, nil},
		{"the API refuses the token", always(emulator.Fault{Status: 401, Code: "JWT_SIGNATURE_EXCEPTION"}), exitFatal, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := f.emulator.SetFaults(c.faults); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := kbsync("verify", "--json")
			if code != c.exit {
				t.Fatalf("exit %d, want %d: %s%s", code, c.exit, stdout, stderr)
			}
			if code != exitDone && code != exitFailed {
				return
			}
			var result struct {
				Checked int
				Drifts  []driftView
			}
			if err := json.NewDecoder(strings.NewReader(stdout)).Decode(&result); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, d := range result.Drifts {
				got[d.Drift]++
			}
			if result.Checked != 3 || len(got) != len(c.drifts) || got["missing"] != c.drifts["missing"] || got["status"] != c.drifts["status"] {
				t.Errorf("got %s", stdout)
			}
		})
	}
	if err := f.emulator.SetFaults(always(emulator.Fault{DropSources: 1})); err != nil {
		t.Fatal(err)
	}
	_, stdout, stderr := kbsync("verify")
	for _, want := range []string{"missing: not in the answer of the API, in the state: completed", "3 live sources verified, 1 different from the state"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in %s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "kbsync sources ack") {
		t.Errorf("no remedy in %s", stderr)
	}
	if code, _, stderr := kbsync("verify", "unknown"); code != exitUsage || !strings.Contains(stderr, "unknown") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// The API may answer 404 to a request with an id that it does not know. verify and api status report that source alone.
func TestOneUnknownSourceDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.md", "b.md", "c.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, dir)
	var refuse atomic.Value // the id that the API does not know; "all" for each
	refuse.Store("")
	target, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids := strings.Split(r.URL.Query().Get("source_ids"), ",")
		if id := refuse.Load().(string); ids[0] != "" && (id == "all" || slices.Contains(ids, id)) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"ok":false,"code":"SOURCE_NOT_FOUND","message":"no such source","status":404}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(api.Close)
	kbsync := func(args ...string) (code int, stdout, stderr string) {
		var out, log strings.Builder
		code = run(t.Context(), append(args, "--state", f.state, "--api-url", api.URL, "--rate", "off"),
			[]string{"REPLYCX_TOKEN=" + f.emulator.Token(51), "HOME=" + f.dir}, strings.NewReader(""), &out, &log)
		return code, out.String(), log.String()
	}
	if code, _, stderr := kbsync("sync", dir, "--knowledge-base", "876", "--settle", "0s", "--poll-min", "10ms"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	_, stdout, _ := kbsync("sources", "--json")
	var sources []struct{ ID json.Number }
	if err := json.Unmarshal([]byte(stdout), &sources); err != nil || len(sources) != 3 {
		t.Fatalf("%v in %s", err, stdout)
	}
	unknown := sources[1].ID.String()
	refuse.Store(unknown)
	code, stdout, stderr := kbsync("verify")
	if code != exitFailed || strings.Count(stdout, "missing") != 1 || !strings.Contains(stdout, unknown) || !strings.Contains(stdout, "SOURCE_NOT_FOUND") {
		t.Errorf("verify: exit %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = kbsync("api", "status", sources[0].ID.String(), unknown, sources[2].ID.String())
	if code != exitOther || strings.Count(stdout, "completed") != 2 || !strings.Contains(stderr, unknown) {
		t.Errorf("api status: exit %d: %s%s", code, stdout, stderr)
	}
	// A 404 for each request says nothing about the sources.
	refuse.Store("all")
	if code, stdout, stderr := kbsync("verify"); code == exitDone || code == exitFailed || strings.Contains(stdout, "missing") {
		t.Errorf("verify without a usable answer: exit %d: %s%s", code, stdout, stderr)
	}
}
