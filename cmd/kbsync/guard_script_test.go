package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdHolds compares the number of sources that the emulator has accepted.
func cmdHolds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: holds n")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	req, err := http.NewRequest(http.MethodGet, ts.Getenv("KBSYNC_API_URL")+"/_emulator/accepted", nil)
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+ts.Getenv("REPLYCX_TOKEN"))
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := bytes.Count(body, []byte("\n")); resp.StatusCode != http.StatusOK || got != want {
		ts.Fatalf("the emulator holds %d sources, want %d (status %d)", got, want, resp.StatusCode)
	}
}

// cmdTruncate empties every file in a directory, and cmdTouch gives every file another time of its last change.
func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	eachFile(ts, neg, args, func(path string) error { return os.Truncate(path, 0) })
}

func cmdTouch(ts *testscript.TestScript, neg bool, args []string) {
	eachFile(ts, neg, args, func(path string) error {
		at := time.Now().Add(-time.Hour)
		return os.Chtimes(path, at, at)
	})
}

func eachFile(ts *testscript.TestScript, neg bool, args []string, do func(path string) error) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: truncate dir, touch dir")
	}
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	for _, path := range files {
		ts.Check(do(path))
	}
}
