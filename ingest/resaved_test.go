package ingest

import (
	"archive/zip"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// saved returns a document that a real program saved.
func saved(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../internal/preflight/testdata/resaved/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// repacked returns the members of a ZIP with another time and, if it is not nil, one more.
func repacked(t *testing.T, content string, more []byte) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	r, err := zip.NewReader(strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, r io.Reader) {
		m, err := w.CreateHeader(&zip.FileHeader{Name: name, Modified: time.UnixMilli(rand.Int64N(1 << 40))})
		if err == nil {
			_, err = io.Copy(m, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range r.File {
		m, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		add(f.Name, m)
	}
	if more != nil {
		add("word/media/picture.bin", bytes.NewReader(more))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDocumentSavedAgainIsNotSent(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Cores = true
	picture := make([]byte, 2<<20)
	for i := range picture {
		picture[i] = byte(rand.Uint32())
	}
	large := repacked(t, saved(t, "first.docx"), picture)
	fx.tree.put("a.docx", saved(t, "first.docx"))
	fx.tree.put("large.docx", large)
	fx.scan()
	if res := fx.mustRun(); res.Uploaded != 2 || res.Resaved != 0 {
		t.Fatalf("%+v", res)
	}
	posted := fx.service.posted()
	fx.wantCounts(map[state.DocumentState]int{state.Training: 2})

	fx.tree.put("a.docx", saved(t, "title.docx"))
	fx.tree.put("large.docx", repacked(t, large, nil))
	fx.scan()
	if res := fx.mustRun(); res.Uploaded != 0 || res.Shared != 0 || res.Resaved != 2 || res.Deferred != 0 || fx.service.posted() != posted {
		t.Fatalf("%+v in %d requests", res, fx.service.posted()-posted)
	}
	fx.wantCounts(map[state.DocumentState]int{state.Training: 2})
	opens := fx.tree.opens
	fx.scan()
	if res := fx.mustRun(); res.Resaved != 0 || fx.tree.opens != opens {
		t.Errorf("an unchanged document: %+v, %d opens", res, fx.tree.opens-opens)
	}

	picture[1<<20]++
	fx.tree.put("large.docx", repacked(t, saved(t, "first.docx"), picture))
	fx.tree.put("a.docx", saved(t, "text.docx"))
	fx.scan()
	if res := fx.mustRun(); res.Uploaded != 2 || res.Resaved != 0 {
		t.Fatalf("changed documents: %+v", res)
	}
	fx.tree.put("a.docx", repacked(t, saved(t, "text.docx"), nil))
	fx.opts.Sharing.UploadResaved = true
	fx.scan()
	if res := fx.mustRun(); res.Uploaded != 1 || res.Resaved != 0 {
		t.Fatalf("a document saved again, to be uploaded: %+v", res)
	}
	fx.wantOnce()
}
