package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A watch tells systemd that it is ready, how it is, that it lives, that it reloads, and that it ends.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	k := newKilling(t, t.TempDir())
	if err := os.WriteFile(filepath.Join(k.root, "a.md"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The command that gives the token takes its time at the reload.
	config := filepath.Join(dir, "kbsync.yaml")
	text := fmt.Sprintf(`api: {token_command: [sh, -c, 'test -e started && sleep 1; touch started; echo "$GOOD"']}
syncs: [{name: docs, root: %q, knowledge_base: 876, settle: 0s, batch: {wait: 0s}}]
poll: {min: 20ms}`, k.root)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := k.command("watch", "--config", config)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+address, "WATCHDOG_USEC=200000", "REPLYCX_TOKEN=", "GOOD="+k.emulator.Token(51))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var received []string
	until := func(want string) {
		t.Helper()
		buffer := make([]byte, 4096)
		for {
			if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatalf("waited in vain for %s after %q: %v", want, received, err)
			}
			message := string(buffer[:n])
			received = append(received, message)
			if strings.HasPrefix(message, want) {
				return
			}
		}
	}
	until("READY=1")
	until("STATUS=1 sync, 0 documents waiting, 0 in training")
	until("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("RELOADING=1\nMONOTONIC_USEC=")
	received = nil
	until("READY=1")
	if !slices.Contains(received, "WATCHDOG=1") {
		t.Errorf("the watchdog starved during the reload: %q", received)
	}
	if slices.ContainsFunc(received, func(s string) bool { return strings.HasPrefix(s, "STOPPING") }) {
		t.Errorf("STOPPING was sent too early: %q", received)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000") // the grace of 20 s, and a margin
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
