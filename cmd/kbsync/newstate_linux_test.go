package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A state in memory, or in a container's own layer, is lost with everything it knows, and what it knew is uploaded again.
func TestStateThatIsSoonLost(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "kbsync-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root := filepath.Join(dir, "docs")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "a.md"), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newKilling(t, root)
	sync := func(more ...string) (code int, stderr string) {
		var log strings.Builder
		code = run(t.Context(), append([]string{"sync", root, "--knowledge-base", "876", "--settle", "0s", "--max-duration", "2s", "--poll-min", "10ms"}, more...),
			[]string{"REPLYCX_TOKEN=" + k.emulator.Token(51), "HOME=" + dir}, strings.NewReader(""), &log, &log)
		return code, log.String()
	}
	lost := filepath.Join(dir, "kbsync.db")
	const elsewhere = "https://api.invalid"
	if code, log := sync("--state", lost, "--api-url", elsewhere); code != exitGuard || !strings.Contains(log, "--accept-new-state") || !strings.Contains(log, "tmpfs") {
		t.Errorf("exit %d: %s", code, log)
	}
	for name, args := range map[string][]string{
		"on purpose":                  {"--state", lost, "--api-url", elsewhere, "--accept-new-state"},
		"an API of this machine":      {"--state", filepath.Join(dir, "local.db"), "--api-url", k.url},
		"the emulator in the process": {"--state", filepath.Join(dir, "embedded.db"), "--emulator"},
	} {
		if code, log := sync(args...); code == exitGuard {
			t.Errorf("%s: exit %d: %s", name, code, log)
		}
	}
	// --accept-new-state is needed only for the first upload.
	if code, log := sync("--state", filepath.Join(dir, "local.db"), "--api-url", k.url); code != exitDone {
		t.Errorf("exit %d: %s", code, log)
	}
}
