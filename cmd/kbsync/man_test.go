package main

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra/doc"
)

// manDir is where the man pages go: make man. They are written by a test, because their generator would add 0.7 MB to the program.
var manDir = flag.String("man", "", "write the man pages to this directory")

// TestManPages writes the man pages. Their date is SOURCE_DATE_EPOCH, so that two builds of one commit write equal pages.
func TestManPages(t *testing.T) {
	if *manDir == "" {
		t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	}
	dir := cmp.Or(*manDir, t.TempDir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	header := &doc.GenManHeader{Source: "kbsync " + strings.TrimPrefix(buildVersion(), "v"), Manual: "kbsync"}
	if err := doc.GenManTree(wholeProgram(), header, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kbsync", "kbsync-state-backup", "kbsync-api-webhook-listen"} {
		text := readText(t, filepath.Join(dir, name+".1"))
		if *manDir == "" && !strings.Contains(text, `"1" "Sep 2001" "kbsync `) || !strings.Contains(text, ".SH EXAMPLE") {
			t.Errorf("the man page of %s is\n%s", name, text)
		}
	}
}
