package cloudtest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/replycx/emulator"
)

// run runs the program with these arguments, and returns its outputs.
func (s *syncFixture) run(args ...string) (stdout, stderr string) {
	s.Helper()
	path, err := kbsync()
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.CommandContext(s.Context(), path, append(args, "--state", s.state)...)
	cmd.Env = append(os.Environ(), append(s.cloud.env(s.proxy.addr), "REPLYCX_TOKEN="+s.api.Token(emulator.DefaultFixture().Accounts[0].ID), "HOME="+s.TempDir())...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.Fatalf("kbsync %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// A snapshot in a bucket replaces a state that was lost, and costs no upload.
func TestSnapshotInABucketRestoresTheInventory(t *testing.T) {
	eachCloud(t, func(t *testing.T, c *cloud) {
		s := newSyncFixture(t, c)
		for _, name := range []string{"a.md", "b.md", "c.md"} {
			s.put(folder+name, "content of "+name)
		}
		if r := s.sync(0).Syncs[0]; r.Uploaded != 3 {
			t.Fatalf("%+v", r)
		}
		backups := withPrefix(c.url(s.proxy.addr, s.bucket), "backups/")
		s.put("backups/kbsync-20240101T000000Z.jsonl.gz", "an older snapshot")
		if out, _ := s.run("state", "snapshot", backups, "--keep", "1"); !strings.Contains(out, "removed 1 older") {
			t.Errorf("the snapshot: %s", out)
		}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(s.state + suffix); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		if _, errs := s.run("state", "import", backups); !strings.Contains(errs, "reading ") {
			t.Errorf("the import: %s", errs)
		}
		if r := s.sync(0).Syncs[0]; r.Uploaded != 0 || r.Unchanged != 3 {
			t.Errorf("the sync after the import: %+v", r)
		}
		if n := len(s.accepted()); n != 3 {
			t.Errorf("%d contents accepted", n)
		}
	})
}
