// Command steppedclock prepares builds whose wall clock a test can step, while the monotonic clock goes on: it writes an overlay for the
// time package of the Go installation into bin/steppedclock, and prints its path for `go test -overlay`. A program that is built with it obeys
// the variable CLOCK_STEP, which step.go.txt explains. kbsync itself is not built with it.
package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed step.go.txt
var step []byte

const directory = "bin/steppedclock" // in the working directory

// Now reads the clocks in line, and step is added in the line after it.
const (
	line  = "\tsec, nsec, mono := runtimeNow()\n"
	added = "\tsec = stepped(sec)\n"
)

func main() {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err == nil {
		var overlay string
		if overlay, err = write(filepath.FromSlash(directory), filepath.Join(strings.TrimSpace(string(root)), "src", "time")); err == nil {
			fmt.Println(overlay)
			return
		}
	}
	fmt.Fprintln(os.Stderr, "steppedclock:", err)
	os.Exit(1)
}

// write writes the overlay for the time package in src into a directory.
func write(dir, src string) (overlay string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	original := filepath.Join(src, "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), line); n != 1 {
		return "", fmt.Errorf("%s reads the clock in %d lines, want 1: adapt this program to the version of Go", original, n)
	}
	// Files named .go would be a package of the module that has the directory.
	changed, more := filepath.Join(dir, "time.txt"), filepath.Join(dir, "step.txt")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed, filepath.Join(src, "step.go"): more}})
	if err = errors.Join(err, os.MkdirAll(dir, 0o700)); err != nil {
		return "", err
	}
	to, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	err = errors.Join(
		to.WriteFile("time.txt", []byte(strings.Replace(string(text), line, line+added, 1)), 0o600),
		to.WriteFile("step.txt", step, 0o600),
		to.WriteFile("overlay.json", replace, 0o600),
		to.Close())
	return filepath.Join(dir, "overlay.json"), err
}
