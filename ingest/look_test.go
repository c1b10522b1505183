package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
)

func blockSure() preflight.Policy {
	return preflight.Policy{Documents: preflight.BlockSure, Secrets: preflight.BlockSure}
}

func TestDocumentThatCanNeverTrainIsNotSent(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Preflight = blockSure()
	fx.tree.put("a.pdf", "<html><body>Sign in</body></html>")
	fx.tree.put("b.md", "good")
	fx.tree.put("c.csv", "a\x00b")
	fx.scan()
	res := fx.mustRun()
	if res.Uploaded != 2 || res.Blocked != 1 || res.Warned != 1 || res.Deferred != 0 {
		t.Fatalf("%+v", res)
	}
	if fx.tree.opens != 3 {
		t.Errorf("3 small documents were opened %d times", fx.tree.opens)
	}
	if counts := fx.counts(); counts[state.Skipped] != 1 {
		t.Errorf("%v", counts)
	}
	// It is looked at again only when it changes.
	fx.scan()
	if res = fx.mustRun(); res.Blocked != 0 || fx.tree.opens != 3 {
		t.Errorf("%+v, %d opens", res, fx.tree.opens)
	}
	// The same content under a name that does not contradict it is sent.
	fx.tree.put("a.html", "<html><body>Sign in</body></html>")
	fx.scan()
	if res = fx.mustRun(); res.Uploaded != 1 {
		t.Errorf("%+v", res)
	}
}

// A randomAccess is a tree whose documents can be read at any offset.
type randomAccess struct {
	*tree
	read atomic.Int64 // bytes read at an offset
}

type readAtCloser struct {
	io.Reader
	root *randomAccess
	at   *bytes.Reader
}

func (r *readAtCloser) ReadAt(p []byte, offset int64) (int, error) {
	n, err := r.at.ReadAt(p, offset)
	r.root.read.Add(int64(n))
	return n, err
}

func (*readAtCloser) Close() error { return nil }

func (r *randomAccess) Open(ctx context.Context, key string, fp state.Fingerprint) (io.ReadCloser, error) {
	f, err := r.tree.Open(ctx, key, fp)
	return &readAtCloser{f, r, bytes.NewReader(r.files[key].content)}, err
}

func TestLargeDocumentIsLookedAtWithoutReadingIt(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Preflight = blockSure()
	root := &randomAccess{tree: fx.tree}
	fx.tree.put("cut.pdf", "%PDF-1.7\n"+strings.Repeat("x", 5<<20))
	fx.tree.put("good.pdf", "%PDF-1.7\n"+strings.Repeat("y", 6<<20)+"startxref\n0\n%%EOF\n")
	fx.scan()
	res, err := New(fx.store, fx.service, root, fx.sync, fx.opts).Run(t.Context())
	if err != nil || res.Blocked != 1 || res.Uploaded != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if n := root.read.Load(); n > 1<<20 {
		t.Errorf("%d bytes were read to look", n)
	}
}

const latin1 = "Die Werkstatt \xf6ffnet um neun Uhr, f\xfcr Ger\xe4te mit Garantie gen\xfcgt die Karte."

func TestTextFieldIsAlwaysUTF8(t *testing.T) {
	fx := newFixture(t)
	fx.opts.SendText = true
	api := &recorder{service: fx.service}
	fx.tree.put("a.md", latin1)
	fx.tree.put("b.txt", "\xff\xfe\x00\xd8") // half a character: no program can decode it
	fx.tree.put("c.md", "\xc3\xb6")
	fx.tree.put("d.md", strings.Repeat(latin1, 2000)) // too large to be kept in memory
	fx.tree.put("e.txt", strings.Repeat("text ", 400_000))
	fx.scan()
	if _, err := New(fx.store, api, fx.tree, fx.sync, fx.opts).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range api.parts {
		got = append(got, p.Field+"="+p.Filename)
	}
	slices.Sort(got)
	if want := []string{"a.md=", "c.md=", "d.md=", "d5=e.txt", "d2=b.txt"}; len(got) != 5 || !slices.Contains(got, "a.md=") || !slices.Contains(got, "d.md=") ||
		!slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "=b.txt") }) ||
		!slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "=e.txt") }) {
		t.Errorf("got %q, want like %q", got, want)
	}
	decoded, err := preflight.Decode("windows-1252", []byte(latin1))
	if err != nil || fx.service.count(string(decoded)) != 1 || fx.service.count(strings.Repeat(string(decoded), 2000)) != 1 || fx.service.count(latin1) != 0 {
		t.Errorf("the texts did not arrive as UTF-8 (%v)", err)
	}
	// The identity of the content is that of the file.
	for d, err := range fx.store.Documents.All(t.Context(), fx.sync.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Key == "a.md" && d.SHA256 != sha256.Sum256([]byte(latin1)) {
			t.Errorf("%s has the hash %x", d.Key, d.SHA256)
		}
	}
}

func TestTranscodeSendsFilesAsUTF8(t *testing.T) {
	decoded, err := preflight.Decode("windows-1252", []byte(latin1))
	if err != nil {
		t.Fatal(err)
	}
	for _, transcode := range []bool{false, true} {
		fx := newFixture(t)
		fx.opts.Preflight = blockSure()
		fx.opts.Transcode = transcode
		fx.tree.put("a.md", latin1)
		fx.scan()
		res := fx.mustRun()
		raw, converted := fx.service.count(latin1), fx.service.count(string(decoded))
		if transcode && (raw != 0 || converted != 1 || res.Warned != 0) || !transcode && (raw != 1 || converted != 0 || res.Warned != 1) {
			t.Errorf("transcode %v: sent raw %d times, as UTF-8 %d times, %d warnings", transcode, raw, converted, res.Warned)
		}
	}
}
