package watcher

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// exclusionsPage is the page of the documentation that lists the default exclusions.
const exclusionsPage = "../docs/exclusions.md"

// The page lists exactly the default exclusions. To write it again: KBSYNC_WRITE_DOCS=1 go test ./watcher -run TestExclusionsPage
func TestExclusionsPage(t *testing.T) {
	page, err := os.ReadFile(exclusionsPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- begin of the generated list -->\n", "<!-- end of the generated list -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the page has no marks of its generated list")
	}
	var list strings.Builder
	for _, x := range DefaultExclusions() {
		fmt.Fprintf(&list, "\n### %s%s\n\n%s\n", strings.ToUpper(x.Kind[:1]), x.Kind[1:], x.Why)
		writePatterns(&list, "Files", x.Files)
		writePatterns(&list, "Folders", x.Directories)
	}
	want := before + begin + list.String() + "\n" + end + after
	if want == string(page) {
		return
	}
	if os.Getenv("KBSYNC_WRITE_DOCS") == "" {
		t.Fatal(exclusionsPage + " does not list the default exclusions; write it again with KBSYNC_WRITE_DOCS=1 go test ./watcher -run TestExclusionsPage")
	}
	if err := os.WriteFile(exclusionsPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writePatterns(b *strings.Builder, title string, patterns []string) {
	if len(patterns) > 0 {
		fmt.Fprintf(b, "\n%s: `%s`\n", title, strings.Join(patterns, "`, `"))
	}
}
