//go:build unix

package process

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A child of the command keeps a named pipe open for as long as it lives.
func TestEndOfTheContextEndsTheChildrenOfTheCommand(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		f, err := os.Open(pipe) // waits for the child
		close(opened)
		if err == nil {
			_, _ = io.Copy(io.Discard, f)
			_ = f.Close()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := Command(ctx, []string{"sh", "-c", `sleep 60 >"$0" & wait`, pipe})
	result := make(chan error, 1)
	go func() { result <- Run(cmd) }()
	<-opened
	cancel()
	if err := <-result; err == nil {
		t.Error("the command succeeded")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the child of the command lives on")
	}
}

func TestCommandThatLeavesAProcessBehindHasSucceeded(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]bool{"sleep 3 &": true, "sleep 3 & exit 1": false} {
		cmd := Command(t.Context(), []string{"sh", "-c", script})
		var output bytes.Buffer
		cmd.Stdout = &output // the process has it, too
		if err := Run(cmd); (err == nil) != want {
			t.Errorf("%s: %v", script, err)
		}
	}
}
