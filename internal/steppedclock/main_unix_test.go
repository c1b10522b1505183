//go:build unix

package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const program = `package main

import (
	"fmt"
	"time"
)

func main() {
	begun := time.Now()
	fmt.Println(begun.Unix(), time.Since(begun) < time.Minute)
}
`

// A program that is built with the overlay of the installed Go has a stepped wall clock, and the monotonic clock as it is.
func TestProgramObeysTheStep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, binaryFile, clock := filepath.Join(dir, "main.go"), filepath.Join(dir, "program"), filepath.Join(dir, "clock")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := write(filepath.Join(dir, "overlay"), filepath.Join(strings.TrimSpace(string(root)), "src", "time"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", binaryFile, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, step := range []int64{0, 3600, -7200} {
		if err := os.WriteFile(clock, binary.NativeEndian.AppendUint64(nil, uint64(step)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binaryFile)
		cmd.Env = []string{"CLOCK_STEP=" + clock}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		seconds, monotonic, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		at, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if ahead := at - time.Now().Unix(); ahead < step-60 || ahead > step || monotonic != "true" {
			t.Errorf("the clock is ahead by %d s, want %d; the monotonic clock goes on: %s", ahead, step, monotonic)
		}
	}
}
