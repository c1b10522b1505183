package watcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func listedNames(t *testing.T, dir, prefix string) string {
	t.Helper()
	var got []string
	for e, err := range NewDirectory(dir, DirectoryOptions{}).List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		text := e.Key
		if e.Placeholder {
			text += "(placeholder)"
		}
		got = append(got, text)
	}
	return strings.Join(got, " ")
}

func TestPlaceholderStandsForItsDocument(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.md.nextcloud", "a.md-x.md", "b.md.OwnCloud", ".c.md.icloud", "d.md", "d.md.nextcloud", "e.bin.nextcloud", "f.icloud"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(" "), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := "a.md(placeholder) a.md-x.md b.md(placeholder) c.md(placeholder) d.md"
	if got := listedNames(t, dir, ""); got != want {
		t.Errorf("listed %s, want %s", got, want)
	}
	// An event names one document.
	for key, want := range map[string]string{"a.md": "a.md(placeholder)", "c.md": "c.md(placeholder)", "d.md": "d.md", "z.md": "", "e.bin": ""} {
		if got := listedNames(t, dir, key); got != want {
			t.Errorf("listed %q below %s, want %q", got, key, want)
		}
	}
	x, err := NewDirectory(dir, DirectoryOptions{}).Explain(t.Context(), "a.md")
	if err != nil || x.Taken || !strings.Contains(x.Reason, "placeholder") {
		t.Errorf("%+v, %v", x, err)
	}
}
