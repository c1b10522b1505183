package replycx_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// serve starts an emulator and a client of account 51 for it.
func serve(t testing.TB, opts emulator.Options, copts replycx.Options) (*emulator.Emulator, *replycx.Client) {
	t.Helper()
	e, err := emulator.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	url, err := e.Start("")
	if err != nil {
		t.Fatal(err)
	}
	copts.BaseURL = url
	c, err := replycx.New(e.Token(51), copts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return e, c
}

// file is a part with a content in memory.
func file(field, name, content string) replycx.Part {
	p := replycx.TextPart(field, content)
	p.Filename = name
	return p
}

func TestUpload(t *testing.T) {
	e, c := serve(t, emulator.Options{Train: -1}, replycx.Options{})
	sealed := 0
	result, err := c.UploadSources(t.Context(), 876, []replycx.Part{
		file("f1", "a.md", "# Hello"),
		file("f2", "empty.md", ""),
		replycx.TextPart("f3", "Just text"),
	}, &replycx.UploadOptions{Seal: func(context.Context) error { sealed++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if sealed != 1 || result.KnowledgeBaseID != 876 || len(result.Sources) != 3 || len(result.Missing) != 0 {
		t.Errorf("sealed %d times, result %+v", sealed, result)
	}
	accepted := e.Accepted()
	for i, want := range []string{"# Hello", "", "Just text"} {
		if accepted[i].SHA256 != sha256.Sum256([]byte(want)) || accepted[i].Size != int64(len(want)) {
			t.Errorf("source %d is not %q: %+v", i, want, accepted[i])
		}
	}
	one := result.Sources["f1"][0]
	if one.Name != "a.md" || one.Type != "file" || !one.Status.Is(replycx.StatusInProgress) || one.Errors != "" {
		t.Errorf("first source %+v", one)
	}
	statuses, err := c.SourceStatus(t.Context(), []int64{one.ID, result.Sources["f2"][0].ID, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(statuses) != 2 || statuses[0].Status != replycx.StatusCompleted || statuses[1].Status != replycx.StatusFailed {
		t.Errorf("statuses %+v", statuses)
	}
}

func BenchmarkUploadSmallParts(b *testing.B) {
	_, c := serve(b, emulator.Options{}, replycx.Options{})
	content := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	const n = 100
	parts := make([]replycx.Part, n)
	for i := range parts {
		parts[i] = replycx.Part{
			Field: fmt.Sprintf("f%d", i), Filename: fmt.Sprintf("docs__page-%d.md", i), Size: int64(len(content)),
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UploadSources(b.Context(), 876, parts, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "parts/s")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func BenchmarkUploadLargePart(b *testing.B) {
	_, c := serve(b, emulator.Options{}, replycx.Options{})
	const size = 256 << 20
	parts := []replycx.Part{{Field: "f", Filename: "large.bin", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UploadSources(b.Context(), 876, parts, nil); err != nil {
			b.Fatal(err)
		}
	}
}
