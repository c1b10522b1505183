package watcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put creates files below dir; a key that ends in a slash is a directory.
func put(t testing.TB, dir string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		path := filepath.Join(dir, filepath.FromSlash(key))
		if strings.HasSuffix(key, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, path, "content of "+key)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func filter(t testing.TB, opts FilterOptions) *Filter {
	t.Helper()
	f, err := NewFilter(opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// everything is a filter with only the default exclusions, without that of hidden names.
func everything(t testing.TB) *Filter {
	return filter(t, FilterOptions{Include: []string{"**", ".*", ".*/**"}})
}

// listing returns the keys and the errors of a listing.
func listing(t testing.TB, root Root, prefix string) (keys []string, errs []error) {
	t.Helper()
	for e, err := range root.List(t.Context(), prefix) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, e.Key)
	}
	return keys, errs
}

func wantKeys(t testing.TB, root Root, prefix string, want ...string) {
	t.Helper()
	keys, errs := listing(t, root, prefix)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if !slices.Equal(keys, want) {
		t.Errorf("below %q: got  %q\nwant %q", prefix, keys, want)
	}
}

// A directory lists its keys in the order of a bucket.
func TestDirectoryListsInByteOrderOfTheKey(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a/b", "a/x", "a.txt", "a-b", "a0", "b/c-d", "b/c/d", "b/c.e", "b/c0", "é", "\xff\xfe", "A")
	want := []string{"A", "a-b", "a.txt", "a/b", "a/x", "a0", "b/c-d", "b/c.e", "b/c/d", "b/c0", "é", "\xff\xfe"}
	if !slices.IsSorted(want) {
		t.Fatal("the expected keys are not sorted")
	}
	d := NewDirectory(dir, DirectoryOptions{Filter: everything(t)})
	wantKeys(t, d, "", want...)
	wantKeys(t, d, "b/", "b/c-d", "b/c.e", "b/c/d", "b/c0")
	wantKeys(t, d, "b/c/", "b/c/d")
	wantKeys(t, d, "b/c/d", "b/c/d")
	wantKeys(t, d, "a", []string(nil)...)
	wantKeys(t, d, "none/such/")
	wantKeys(t, d, "../"+filepath.Base(dir)+"/")
	wantKeys(t, d, "a.txt/")
}

func TestListIsSortedForAnyTree(t *testing.T) {
	for seed := range 30 {
		rng := rand.New(rand.NewPCG(1, uint64(seed)))
		dir := t.TempDir()
		var want []string
		parts := []string{"a", "a-", "a.", "a0", "A", "b", "b!", "b}", "-", ".x"}
		for range 60 {
			key := parts[rng.IntN(len(parts))]
			for range rng.IntN(4) {
				key += "/" + parts[rng.IntN(len(parts))]
			}
			path := filepath.Join(dir, filepath.FromSlash(key))
			if os.MkdirAll(filepath.Dir(path), 0o700) == nil && os.WriteFile(path, []byte("x"), 0o600) == nil {
				want = append(want, key)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		d := NewDirectory(dir, DirectoryOptions{Filter: everything(t)})
		wantKeys(t, d, "", want...)
		for _, key := range want {
			wantKeys(t, d, key, key)
			for i := range key {
				if key[i] == '/' {
					prefix := key[:i+1]
					wantKeys(t, d, prefix, slices.Collect(func(yield func(string) bool) {
						for _, k := range want {
							if strings.HasPrefix(k, prefix) && !yield(k) {
								return
							}
						}
					})...)
				}
			}
		}
	}
}

func TestNamesOfAnyBytesAreListedAndRead(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a\nb.md", "\"q\".md", "-rf.md", "\xff\xfe.md", "emoji 🎉.md", "tab\t.md", "r\u202eevil.md", "CON", "a:b.md", strings.Repeat("n", 255), `back\slash.md`}
	put(t, dir, names...)
	slices.Sort(names)
	d := NewDirectory(dir, DirectoryOptions{Filter: everything(t)})
	wantKeys(t, d, "", names...)
	for e, err := range d.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, d, e); got != "content of "+e.Key {
			t.Errorf("%q: read %q", e.Key, got)
		}
	}
}

func read(t *testing.T, d *Directory, e Entry) string {
	t.Helper()
	r, err := d.Open(t.Context(), e.Key, e.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func one(t *testing.T, d *Directory, key string) Entry {
	t.Helper()
	for e, err := range d.List(t.Context(), key) {
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	t.Fatalf("%q is not listed", key)
	return Entry{}
}

// A missing root, and a file in its place, give other errors than an empty root.
func TestMissingRootDiffersFromAnEmptyOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	d := NewDirectory(dir, DirectoryOptions{})
	missing := func() {
		t.Helper()
		if _, err := d.Identity(t.Context()); !errors.Is(err, ErrRootMissing) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		keys, errs := listing(t, d, "")
		if len(keys) != 0 || len(errs) != 1 || !errors.Is(errs[0], ErrRootMissing) {
			t.Errorf("got %q, %v", keys, errs)
		}
		if _, err := d.Open(t.Context(), "a.md", state.Fingerprint{}); !errors.Is(err, ErrRootMissing) {
			t.Errorf("got %v", err)
		}
	}
	missing()
	put(t, dir, "a.md")
	wantKeys(t, d, "", "a.md")
	first, err := d.Identity(t.Context())
	if err != nil || !strings.Contains(first, ":") {
		t.Fatal(first, err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	missing()
	put(t, dir, "b.md")
	wantKeys(t, d, "", "b.md")
	if again, err := d.Identity(t.Context()); err != nil || again == first {
		t.Errorf("the new root has the identity %v of the first one; %v", again, err)
	}

	file := NewDirectory(filepath.Join(dir, "b.md"), DirectoryOptions{})
	_, errs := listing(t, file, "")
	if len(errs) != 1 || errors.Is(errs[0], ErrRootMissing) || !strings.Contains(errs[0].Error(), "is a file") {
		t.Errorf("got %v", errs)
	}
}

// The listing reports each unreadable part and continues after it.
func TestListingReportsUnreadableParts(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a/1.md", "b/1.md", "b/c/1.md", "d/1.md")
	d := NewDirectory(dir, DirectoryOptions{})
	d.fault = func(key string) error {
		if key == "b/" {
			return syscall.EACCES
		}
		return nil
	}
	keys, errs := listing(t, d, "")
	if !slices.Equal(keys, []string{"a/1.md", "d/1.md"}) {
		t.Errorf("got %q", keys)
	}
	if len(errs) != 1 {
		t.Fatal(errs)
	}
	partial, ok := errors.AsType[*ListError](errs[0])
	if !ok || partial.Path != "b/" || !errors.Is(partial, fs.ErrPermission) {
		t.Errorf("got %#v", errs[0])
	}
	d.fault = nil
	wantKeys(t, d, "", "a/1.md", "b/1.md", "b/c/1.md", "d/1.md")
	d.fault = func(key string) error {
		if key == "b/1.md" {
			return syscall.EIO
		}
		return nil
	}
	if keys, errs = listing(t, d, ""); len(keys) != 3 || len(errs) != 1 || !strings.Contains(errs[0].Error(), `"b/1.md"`) {
		t.Errorf("an unreadable file: got %q, %v", keys, errs)
	}
	d.fault = func(string) error { return syscall.EIO }
	keys, errs = listing(t, d, "")
	if _, ok := errors.AsType[*ListError](errs[0]); len(keys) != 0 || len(errs) != 1 || ok {
		t.Errorf("an unreadable root: got %q, %v", keys, errs)
	}
}

// Links are followed only with CopyLinks, never out of the root, and never in circles.
func TestLinksNeverLeadOutOfTheRoot(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret.md", "sub/secret.md")
	dir := t.TempDir()
	put(t, dir, "real.md", "sub/doc.md", "sub/deep/er.md")
	link(t, "real.md", filepath.Join(dir, "alias.md"))
	link(t, "sub", filepath.Join(dir, "also"))
	link(t, "..", filepath.Join(dir, "sub", "up"))
	link(t, ".", filepath.Join(dir, "self"))
	link(t, "loop2.md", filepath.Join(dir, "loop1.md"))
	link(t, "loop1.md", filepath.Join(dir, "loop2.md"))
	link(t, "nothing.md", filepath.Join(dir, "dangling.md"))
	link(t, filepath.Join(outside, "secret.md"), filepath.Join(dir, "abs.md"))
	link(t, filepath.Join("..", filepath.Base(outside), "secret.md"), filepath.Join(dir, "rel.md"))
	link(t, outside, filepath.Join(dir, "out"))

	d := NewDirectory(dir, DirectoryOptions{})
	wantKeys(t, d, "", "real.md", "sub/deep/er.md", "sub/doc.md")
	d = NewDirectory(dir, DirectoryOptions{CopyLinks: true})
	want := []string{"alias.md", "also/deep/er.md", "also/doc.md", "real.md", "sub/deep/er.md", "sub/doc.md"}
	wantKeys(t, d, "", want...)
	wantKeys(t, d, "also/deep/", "also/deep/er.md")
	wantKeys(t, d, "alias.md", "alias.md")
	for _, key := range want {
		if got := read(t, d, one(t, d, key)); !strings.HasPrefix(got, "content of ") || strings.Contains(got, "secret") {
			t.Errorf("%s: read %q", key, got)
		}
	}
	for _, key := range []string{"dangling.md", "loop1.md", "abs.md", "rel.md", "sub/up", "self", "out"} {
		if x, err := d.Explain(t.Context(), key); err != nil || x.Listed || !strings.Contains(x.Reason, "symbolic link") {
			t.Errorf("%s: %v, %v", key, x, err)
		}
	}
}

// The root may be a link, as with git-sync. Each listing follows it again.
func TestRootLinkIsFollowedAtEachListing(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "v1/same.md", "v1/old.md", "v2/same.md", "v2/new.md")
	link(t, "v1", filepath.Join(dir, "link"))
	d := NewDirectory(filepath.Join(dir, "link"), DirectoryOptions{})
	wantKeys(t, d, "", "old.md", "same.md")
	first, _ := d.Identity(t.Context())
	old := one(t, d, "old.md")
	link(t, "v2", filepath.Join(dir, "new"))
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// Open follows the link to its present target.
	if got := read(t, d, one(t, NewDirectory(filepath.Join(dir, "link"), DirectoryOptions{}), "same.md")); got != "content of v2/same.md" {
		t.Errorf("read %q", got)
	}
	wantKeys(t, d, "", "new.md", "same.md")
	if second, _ := d.Identity(t.Context()); second == first {
		t.Error("both worktrees have the same identity")
	}
	if _, err := d.Open(t.Context(), "old.md", old.Fingerprint); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrRootMissing) {
		t.Errorf("got %v", err)
	}
	read(t, d, one(t, d, "new.md"))
}

// configMap mounts files as Kubernetes does, at version n.
func configMap(t *testing.T, dir string, n int, files map[string]string) {
	t.Helper()
	name := fmt.Sprintf("..2026_11_24_%d", n)
	for key, content := range files {
		write(t, filepath.Join(dir, name, filepath.FromSlash(key)), content)
		top, _, _ := strings.Cut(key, "/")
		if err := os.Symlink(filepath.Join("..data", top), filepath.Join(dir, top)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	link(t, name, filepath.Join(dir, "..data_tmp"))
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			t.Fatal(err)
		}
	}
}

// The keys of a mounted ConfigMap do not change when Kubernetes replaces its directory.
func TestMountedConfigMapIsListedUnderItsOwnKeys(t *testing.T) {
	dir := t.TempDir()
	d := NewDirectory(dir, DirectoryOptions{})
	var last Entry
	for n := range 20 {
		content := fmt.Sprintf("version %d", n)
		configMap(t, dir, n, map[string]string{"doc.md": content, "sub/doc.md": content})
		link(t, "doc.md", filepath.Join(dir, fmt.Sprintf("other%d.md", n))) // not a link of the mount
		wantKeys(t, d, "", "doc.md", "sub/doc.md")
		wantKeys(t, d, "sub/", "sub/doc.md")
		e := one(t, d, "doc.md")
		if e.Fingerprint == last.Fingerprint {
			t.Error("the fingerprint did not change with the version")
		}
		if n > 0 {
			if _, err := d.Open(t.Context(), "doc.md", last.Fingerprint); !errors.Is(err, state.ErrChanged) {
				t.Errorf("got %v", err)
			}
		}
		if got := read(t, d, e); got != content {
			t.Errorf("read %q", got)
		}
		last = e
	}
	if x, err := d.Explain(t.Context(), "..data/doc.md"); err != nil || x.Listed {
		t.Error(x, err)
	}
	if x, err := d.Explain(t.Context(), "doc.md"); err != nil || !x.Taken {
		t.Error(x, err)
	}

	// A swap during the listing makes it incomplete.
	var errs []error
	swapped := false
	for _, err := range d.List(t.Context(), "") {
		if err != nil {
			errs = append(errs, err)
		}
		if !swapped {
			configMap(t, dir, 99, map[string]string{"doc.md": "x", "sub/doc.md": "x"})
			swapped = true
		}
	}
	if len(errs) != 1 || !errors.Is(errs[0], ErrRootChanged) {
		t.Errorf("got %v", errs)
	}
}

// A name with two dots is a document like any other where no ConfigMap is mounted.
func TestTwoDotsWithoutAMount(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "..doc.md", "..dir/doc.md")
	wantKeys(t, NewDirectory(dir, DirectoryOptions{Filter: everything(t)}), "", "..dir/doc.md", "..doc.md")
}

// Entries that are not regular files are ignored without opening them.
func TestSpecialFilesAreNotListed(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md")
	special(t, dir)
	huge, err := os.Create(filepath.Join(dir, "huge.md"))
	if err != nil {
		t.Fatal(err)
	}
	if err := huge.Truncate(1 << 40); err != nil {
		t.Log("no sparse file of 1 TiB here, a smaller one instead: ", err)
		if err := huge.Truncate(1 << 33); err != nil {
			t.Fatal(err)
		}
	}
	huge.Close()
	write(t, filepath.Join(dir, "empty.md"), "")
	d := NewDirectory(dir, DirectoryOptions{CopyLinks: true, Filter: filter(t, FilterOptions{MaxSize: 10 << 20})})
	wantKeys(t, d, "", "a.md", "empty.md", "huge.md")
	if e := one(t, d, "empty.md"); e.Skip != "empty" {
		t.Errorf("got %q", e.Skip)
	}
	if e := one(t, d, "huge.md"); e.Skip != "larger than --max-size 10MiB" {
		t.Errorf("got %q", e.Skip)
	}
	if e := one(t, d, "a.md"); e.Skip != "" {
		t.Errorf("got %q", e.Skip)
	}
	if x, err := d.Explain(t.Context(), "fifo.md"); err != nil || x.Reason != "it is not a regular file" {
		t.Error(x, err)
	}
	if _, err := d.Open(t.Context(), "fifo.md", one(t, d, "a.md").Fingerprint); !errors.Is(err, state.ErrChanged) {
		t.Errorf("got %v", err)
	}
	if x, err := d.Explain(t.Context(), "huge.md"); err != nil || x.Taken || !x.Listed {
		t.Error(x, err)
	}
}

// A file that changes between the listing and the end of its reading is never returned as the listed version.
func TestDocumentChangedWhileReadFails(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	for name, c := range map[string]struct {
		before, during func(path string) error
		gone           bool
	}{
		"unchanged":             {},
		"grown before":          {before: func(p string) error { return appendTo(p, "more") }},
		"grown during":          {during: func(p string) error { return appendTo(p, "more") }},
		"shrunk before":         {before: func(p string) error { return os.Truncate(p, 10) }},
		"shrunk during":         {during: func(p string) error { return os.Truncate(p, 10) }},
		"replaced before":       {before: func(p string) error { return replace(p, content) }},
		"same size before":      {before: func(p string) error { return rewrite(p, strings.Repeat("x", len(content))) }},
		"same size during":      {during: func(p string) error { return rewrite(p, strings.Repeat("x", len(content))) }},
		"mtime put back during": {during: func(p string) error { return rewriteQuietly(p, strings.Repeat("x", len(content))) }},
		"mtime put back before": {before: func(p string) error { return rewriteQuietly(p, strings.Repeat("x", len(content))) }},
		"deleted before":        {before: os.Remove, gone: true},
		"replaced by a link":    {before: func(p string) error { return linkOver(p, "other.md") }},
		"replaced by a secret":  {before: func(p string) error { return linkOver(p, "/etc/passwd") }},
		"replaced by a directory": {before: func(p string) error {
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o700))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "doc.md")
			write(t, path, content)
			write(t, filepath.Join(dir, "other.md"), content)
			d := NewDirectory(dir, DirectoryOptions{})
			e := one(t, d, "doc.md")
			// Within a tick of the clock two stamps are equal, which is why a scan does not record a younger file.
			waitForTick(t, path)
			if c.before != nil {
				if err := c.before(path); err != nil {
					t.Fatal(err)
				}
			}
			r, err := d.Open(t.Context(), e.Key, e.Fingerprint)
			switch {
			case c.gone:
				if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrRootMissing) {
					t.Errorf("got %v", err)
				}
				return
			case c.before != nil:
				if !errors.Is(err, state.ErrChanged) {
					t.Errorf("got %v", err)
				}
				return
			case err != nil:
				t.Fatal(err)
			}
			defer r.Close()
			half := make([]byte, len(content)/2)
			if _, err := io.ReadFull(r, half); err != nil {
				t.Fatal(err)
			}
			if c.during != nil {
				if err := c.during(path); err != nil {
					t.Fatal(err)
				}
			}
			rest := make([]byte, len(content)-len(half))
			_, err = io.ReadFull(r, rest)
			if c.during == nil {
				if err != nil || string(half)+string(rest) != content {
					t.Errorf("got %v", err)
				}
				if _, err := r.Read(rest); err != io.EOF {
					t.Errorf("at the end: got %v", err)
				}
				return
			}
			if !errors.Is(err, state.ErrChanged) {
				t.Errorf("got %v", err)
			}
			if _, err := r.Read(rest); !errors.Is(err, state.ErrChanged) {
				t.Errorf("at the next read: got %v", err)
			}
		})
	}
}

// waitForTick waits until a change of the file would give it another stamp.
func waitForTick(t *testing.T, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	temp := path + ".tick"
	for range 1000 {
		write(t, temp, "x")
		now, err := os.Stat(temp)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(temp); err != nil {
			t.Fatal(err)
		}
		if now.ModTime().After(fi.ModTime()) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the file system's clock stands still")
}

func appendTo(path, more string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(more)
	return errors.Join(err, f.Close())
}

func rewrite(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

func rewriteQuietly(path, content string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(rewrite(path, content), os.Chtimes(path, time.Time{}, fi.ModTime()))
}

func replace(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func linkOver(path, target string) error {
	return errors.Join(os.Remove(path), os.Symlink(target, path))
}

// A walk does not follow a link that replaces a directory during the walk.
func TestDirectorySwappedForALinkIsNotFollowed(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "secret.md")
	dir := t.TempDir()
	put(t, dir, "a.md", "sub/doc.md", "z.md")
	d := NewDirectory(dir, DirectoryOptions{})
	var keys []string
	for e, err := range d.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if keys = append(keys, e.Key); e.Key == "a.md" {
			if err := os.RemoveAll(filepath.Join(dir, "sub")); err != nil {
				t.Fatal(err)
			}
			link(t, outside, filepath.Join(dir, "sub"))
		}
	}
	if !slices.Equal(keys, []string{"a.md", "z.md"}) {
		t.Errorf("got %q", keys)
	}
	// Open does not follow it either.
	if _, err := d.Open(t.Context(), "sub/secret.md", state.Fingerprint{}); !errors.Is(err, state.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestListStops(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 {
		put(t, dir, fmt.Sprintf("%02d/a.md", i))
	}
	d := NewDirectory(dir, DirectoryOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got error
	n := 0
	for _, err := range d.List(ctx, "") {
		if n++; n == 3 {
			cancel()
		}
		got = err
	}
	if !errors.Is(got, context.Canceled) || n != 4 {
		t.Errorf("after %d: %v", n, got)
	}
	before := descriptors(t)
	for range 10 {
		for range d.List(t.Context(), "") {
			break
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Log("descriptors can't be counted here: ", err)
	}
	return len(entries)
}

func TestOpenFromSeveralGoroutines(t *testing.T) {
	dir := t.TempDir()
	var entries []Entry
	for i := range 40 {
		put(t, dir, fmt.Sprintf("%02d.md", i))
	}
	d := NewDirectory(dir, DirectoryOptions{})
	for e, err := range d.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	errs := make(chan error, len(entries))
	for _, e := range entries {
		go func() {
			r, err := d.Open(t.Context(), e.Key, e.Fingerprint)
			if err == nil {
				var data []byte
				data, err = io.ReadAll(r)
				if !bytes.Equal(data, []byte("content of "+e.Key)) {
					err = fmt.Errorf("read %q", data)
				}
				r.Close()
			}
			errs <- err
		}()
		if _, errs := listing(t, d, "01.md"); len(errs) > 0 {
			t.Error(errs)
		}
	}
	for range entries {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
