//go:build !nocloud && !windows

package snapshot

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestGenerations(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *Bucket {
		t.Helper()
		b, err := Open(t.Context(), "file://"+dir+"?prefix=backups/", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	}
	write := func(b *Bucket, at time.Time, text string, fail error) (string, error) {
		return b.Write(t.Context(), at, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return errors.Join(err, fail)
		})
	}
	b, other := open("kbsync"), open("kbsync-2")
	if _, _, err := b.Latest(t.Context()); !errors.Is(err, ErrNone) {
		t.Fatalf("got %v", err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for day, text := range []string{"first", "second", "third"} {
		if _, err := write(b, start.AddDate(0, 0, day), text, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write(other, start.AddDate(1, 0, 0), "other", nil); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the state cannot be read")
	if _, err := write(b, start.AddDate(0, 0, 9), strings.Repeat("half", 1<<20), broken); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if n, err := b.Prune(t.Context(), 2); err != nil || n != 1 {
		t.Fatalf("removed %d, %v", n, err)
	}
	key, r, err := b.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(text); err != nil || string(data) != "third" || key != "backups/kbsync-20260103T000000Z.jsonl.gz" {
		t.Errorf("%s has %q, %v", key, data, err)
	}
	files, err := os.ReadDir(dir + "/backups")
	if err != nil || len(files) != 3 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"s3://key:canary@bucket": "has credentials in it",
		"s3://bucket/folder":     "has a path",
		"ftp://bucket":           "scheme must be",
		"s3://bucket?colour=1":   "colour",
		"%":                      "is not a URL",
		"file://folder":          "three slashes",
	} {
		_, err := Open(t.Context(), address, "kbsync")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if _, err := Open(t.Context(), "file:///tmp", "a/b"); err == nil {
		t.Error("took a name with a slash")
	}
}
