package watcher

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leases returns why a directory gives no leases on files.
func leases(t *testing.T, dir string) error {
	t.Helper()
	path := filepath.Join(dir, "lease.tmp")
	write(t, path, "x")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err
}

// A process has the file open and stalls for longer than the settle time.
func TestFileThatIsOpenForWritingHasNotSettled(t *testing.T) {
	f := newServerFixture(t, false, nil)
	path := filepath.Join(f.dir, "a.md")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	if err := leases(t, f.dir); err != nil {
		t.Skipf("THIS FILE SYSTEM GIVES NO LEASES, so no program can ask who writes: %v", err)
	}
	put(t, f.dir, "b.md")
	f.want(f.at(5*time.Second), "b.md")
	f.want(f.at(9*time.Minute), "")
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	f.want(f.at(9*time.Minute), "a.md")
	// Some programs keep their files open: an old file is taken, and so is one that was seen for long.
	f.write("c.md", "c")
	if writer, err = os.OpenFile(filepath.Join(f.dir, "c.md"), os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f.restart()
	f.want(f.at(20*time.Minute), "c.md")
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	put(t, f.dir, "sub/d.md")
	link(t, "../c.md", filepath.Join(f.dir, "sub", "link.md"))
	hasWriter, end := f.root.Writers()
	defer end()
	for key, want := range map[string]bool{
		"a.md": false, "none.md": false, "../a.md": false, "none/none.md": false, "sub/d.md": false, "c.md": true, "sub/link.md": true,
	} {
		if hasWriter(t.Context(), key) != want {
			t.Errorf("%s: it has a writer: %t", key, !want)
		}
	}
}
