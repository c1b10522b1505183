package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/internal/engine"
)

// Every class has an exit code of its own.
func TestExitCodeOfEveryClass(t *testing.T) {
	t.Parallel()
	for class, want := range map[engine.Class]int{
		engine.ClassNone: 0, engine.ClassOther: 1, engine.ClassUsage: 2, engine.ClassRootMissing: 3, engine.ClassTemporary: 5,
		engine.ClassDocumentsFailed: 6, engine.ClassFatal: 7, engine.ClassBudget: 8, engine.ClassTrainingDeadline: 10,
		engine.ClassGuard: 11, engine.ClassInterrupted: 130,
	} {
		if got := codeOf(class); got != want {
			t.Errorf("class %v has exit code %d, want %d", class, got, want)
		}
		if class == engine.ClassNone {
			continue
		}
		if got := exitCode(engine.WithClass(class, errors.New("wrong"))); got != want {
			t.Errorf("an error of class %v has exit code %d, want %d", class, got, want)
		}
	}
	if got := exitCode(nil); got != exitDone {
		t.Errorf("no error has exit code %d", got)
	}
}

// TestRunLeavesNoGoroutine runs commands that end with different codes.
func TestRunLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	docs := filepath.Join(dir, "docs")
	if err := os.Mkdir(docs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "a.md"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"KBSYNC_SETTLE=0s", "KBSYNC_POLL_MIN=20ms", "KBSYNC_STATE=" + filepath.Join(dir, "kbsync.db")}
	for _, c := range []struct {
		args string
		want int
	}{
		{"version", exitDone},
		{"nonsense", exitUsage},
		{"sync " + docs + " --knowledge-base 876 --emulator", exitDone},
		{"sync " + docs + "x --knowledge-base 876 --emulator", exitNoRoot},
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), strings.Fields(c.args), env, strings.NewReader(""), &stdout, &stderr); got != c.want {
			t.Errorf("%s: exit code %d, want %d\n%s%s", c.args, got, c.want, &stdout, &stderr)
		}
	}
}
