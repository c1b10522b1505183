package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.md", "b.md", "c.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := newFixture(t, dir)
	kbsync := func(args ...string) (code int, stdout, stderr string) {
		var out, log strings.Builder
		code = run(t.Context(), append(args, "--state", filepath.Join(k.dir, "kbsync.db"), "--api-url", k.url, "--rate", "off"),
			[]string{"REPLYCX_TOKEN=" + k.emulator.Token(51), "HOME=" + k.dir}, strings.NewReader(""), &out, &log)
		return code, out.String(), log.String()
	}
	if code, _, stderr := kbsync("sync", dir, "--knowledge-base", "876", "--settle", "0s", "--poll-min", "10ms"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	always := func(f emulator.Fault) *emulator.Faults {
		f.Operation = emulator.OpStatus
		return &emulator.Faults{Rules: []emulator.Fault{f}}
	}
	for _, c := range []struct {
		name   string
		faults *emulator.Faults
		exit   int
		drifts map[string]int
	}{
		{"all is well", nil, exitDone, nil},
		{"an answer lacks one by mistake", always(emulator.Fault{DropSources: 1, Count: 1}), exitDone, nil},
		{"one is gone", always(emulator.Fault{DropSources: 1}), exitFailed, map[string]int{"missing": 1}},
		{"all are gone", always(emulator.Fault{DropSources: 3}), exitFailed, map[string]int{"missing": 3}},
		{"training failed after all", always(emulator.Fault{Word: "failed"}), exitFailed, map[string]int{"status": 3}},
		{"the API is away", always(emulator.Fault{Status: 503}), exitTemporary, nil},
		{"the token is refused", always(emulator.Fault{Status: 401, Code: "JWT_SIGNATURE_EXCEPTION"}), exitFatal, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := k.emulator.SetFaults(c.faults); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := kbsync("verify", "--json")
			if code != c.exit {
				t.Fatalf("exit %d, not %d: %s%s", code, c.exit, stdout, stderr)
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
	if err := k.emulator.SetFaults(always(emulator.Fault{DropSources: 1})); err != nil {
		t.Fatal(err)
	}
	_, stdout, stderr := kbsync("verify")
	if !strings.Contains(stdout, "missing: not in the API's answer, known as completed") || !strings.Contains(stdout, "3 live sources verified, 1 not as the state has them") ||
		!strings.Contains(stderr, "kbsync sources ack") {
		t.Errorf("%s%s", stdout, stderr)
	}
	if code, _, stderr := kbsync("verify", "nobody"); code != exitUsage || !strings.Contains(stderr, "nobody") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
