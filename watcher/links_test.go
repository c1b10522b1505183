package watcher

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// chain makes n links, each to the one before, and the first to the target. It returns the name of the last.
func chain(t *testing.T, dir, name, target string, n int) string {
	t.Helper()
	for i := range n {
		next := fmt.Sprint(i, name)
		link(t, target, filepath.Join(dir, next))
		target = next
	}
	return target
}

// os.Root follows eight links. Other programs follow forty, so a ninth link must not make a document look removed.
func TestManyLinksAreFollowed(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret.md")
	dir := t.TempDir()
	put(t, dir, "versions/1/doc.md", "docs/real.md")
	last := chain(t, filepath.Join(dir, "docs"), ".md", "../docs/real.md", 12)
	want := []string{"docs/real.md"}
	for i := range 12 {
		want = append(want, fmt.Sprint("docs/", i, ".md"))
	}
	// Each directory below has a link on its way, and the document has one more.
	at, key := dir, ""
	for i := range 12 {
		name := fmt.Sprint("v", i)
		put(t, dir, fmt.Sprint("below/", i, "/doc.md"))
		link(t, filepath.Join(strings.Repeat("../", min(i*2, 2)), "below", fmt.Sprint(i)), filepath.Join(at, name))
		at = filepath.Join(dir, "below", fmt.Sprint(i))
		key += name + "/"
	}
	link(t, "doc.md", filepath.Join(at, "alias.md"))
	d := NewDirectory(dir, DirectoryOptions{CopyLinks: true})
	keys, errs := listing(t, d, "")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, key := range append(want, key+"doc.md", key+"alias.md") {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is not listed", key)
			continue
		}
		if got := read(t, d, one(t, d, key)); !strings.HasPrefix(got, "content of ") {
			t.Errorf("%s: read %q", key, got)
		}
		x, err := d.Explain(t.Context(), key)
		if err != nil || !x.Taken {
			t.Errorf("%s: %+v, %v", key, x, err)
		}
	}
	if t.Failed() {
		t.Fatalf("from %s: %q", last, keys)
	}

	// Neither more than forty, nor a circle, nor a way out of the root at the end of many.
	chain(t, filepath.Join(dir, "docs"), "out.md", filepath.Join("..", "..", filepath.Base(outside), "secret.md"), 12)
	chain(t, filepath.Join(dir, "docs"), "abs.md", filepath.Join(outside, "secret.md"), 12)
	chain(t, filepath.Join(dir, "docs"), "long.md", "real.md", 42)
	link(t, "11back.md", filepath.Join(dir, "docs", "round.md"))
	chain(t, filepath.Join(dir, "docs"), "back.md", "round.md", 12)
	keys, errs = listing(t, d, "docs/")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, key := range keys {
		if strings.HasSuffix(key, "out.md") || strings.HasSuffix(key, "abs.md") || strings.HasSuffix(key, "back.md") || key == "docs/41long.md" || key == "docs/40long.md" {
			t.Errorf("%s is listed", key)
		}
	}
	if !slices.Contains(keys, "docs/39long.md") {
		t.Error("forty links are not followed")
	}
}
