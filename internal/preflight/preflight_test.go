package preflight

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// verdict is the report in one line.
func verdict(r Report) string {
	var parts []string
	for _, f := range r.Findings {
		parts = append(parts, map[Level]string{Warn: "warn: ", Block: "block: "}[f.Level]+f.Text)
	}
	return strings.Join(parts, "; ")
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDocumentsOfRealPrograms(t *testing.T) {
	want := map[string]string{
		"writer.docx": "", "writer.odt": "", "writer.doc": "", "writer.rtf": "", "writer.pdf": "", "calc.xlsx": "", "calc.xls": "", "calc.ods": "",
		"pandoc.docx": "", "pandoc.epub": "", "7z.docx": "", "comment.docx": "", "ghostscript.pdf": "", "objects.pdf": "", "web.pdf": "",
		"open-rc4-40.pdf": "", "open-rc4-128.pdf": "", "open-aes-128.pdf": "", "open-aes-256.pdf": "", "open-aes-256-r5.pdf": "", "open-web.pdf": "",
		"locked-rc4-40.pdf":     "block: is protected by a password",
		"locked-rc4-128.pdf":    "block: is protected by a password",
		"locked-aes-128.pdf":    "block: is protected by a password",
		"locked-aes-256.pdf":    "block: is protected by a password",
		"locked-aes-256-r5.pdf": "block: is protected by a password",
		"locked-web.pdf":        "block: is protected by a password",
		"locked.docx":           "block: is protected by a password",
		"locked.xlsx":           "block: is protected by a password",
		"locked.odt":            "block: is protected by a password",
		"notoffice.docx":        "block: is a ZIP, but not a Word document: it has none of its parts",
		"word-named.xlsx":       "warn: is a Word document, not an Excel workbook",
		"cut.docx":              "block: is cut off or damaged: the end of its ZIP container is missing",
		"cut.pdf":               "block: is cut off: the end of the PDF is missing",
		"cut-web.pdf":           "block: is cut off: the end of the PDF is missing",
		"scan.pdf":              "warn: seems to have no text, like a scan without text recognition",
		"lfs.pdf":               "block: is a Git LFS pointer; run git lfs pull",
		"annex.pdf":             "block: is a git-annex pointer; run git annex get",
	}
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".txt") || name == "README.md" {
			continue
		}
		expected, ok := want[name]
		if !ok {
			t.Errorf("%s has no verdict in the table", name)
		}
		if got := verdict(LookWhole(name, fixture(t, name))); got != expected {
			t.Errorf("%s: %q, want %q", name, got, expected)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("testdata has no %s", name)
	}
}

func TestPointersUnderEveryEnding(t *testing.T) {
	for _, name := range []string{"a.md", "a.csv", "a.docx", "a.json", "a", "a.bin"} {
		if got := verdict(LookWhole(name, fixture(t, "lfs.pdf"))); !strings.HasPrefix(got, "block: is a Git LFS pointer") {
			t.Errorf("%s: %q", name, got)
		}
		if got := verdict(LookWhole(name, fixture(t, "annex.pdf"))); !strings.HasPrefix(got, "block: is a git-annex pointer") {
			t.Errorf("%s: %q", name, got)
		}
	}
	about := "version https://git-lfs.github.com/spec/v1 is the first line of a pointer.\n"
	if got := verdict(LookWhole("lfs.md", []byte(about))); got != "" {
		t.Errorf("a text about pointers: %q", got)
	}
}

func ole(parts ...string) []byte {
	data := make([]byte, 512)
	copy(data, magicOLE)
	data[30] = 9
	return append(data, strings.Join(parts, "")...)
}

func utf16le(s string) string {
	var b []byte
	for _, r := range s {
		b = binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	return string(b)
}

func TestNameAgainstContent(t *testing.T) {
	page := "\r\n\r\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Session expired</body></html>\n"
	noise := make([]byte, 4000)
	for i := range noise {
		noise[i] = byte(i * 7919 >> 3)
	}
	for _, c := range []struct{ name, content, want string }{
		{"a.pdf", page, "block: is a web page (HTML), not a PDF"},
		{"a.PDF", page, "block: is a web page (HTML), not a PDF"},
		{"a.docx", page, "block: is a web page (HTML), not a Word document"},
		{"a.xlsx", page, "block: is a web page (HTML), not an Excel workbook"},
		{"a.doc", page, "block: is a web page (HTML), not a Word document"},
		{"a.rtf", page, "block: is a web page (HTML), not an RTF document"},
		{"a.html", page, ""},
		{"a.xml", page, ""},
		{"a.md", page, "warn: is a web page (HTML), although its name does not say so"},
		{"a.pdf", "Not a PDF at all, but a text.", "block: is not a PDF, although its name says so"},
		{"a.pdf", "PK\x03\x04", "block: is a ZIP, not a PDF"},
		{"a.pdf", "%PDF-1.6\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer\n<</Root 1 0 R/Encrypt 9 0 R>>\nstartxref\n0\n%%EOF\n", "block: is protected by a password"},
		{"a.pdf", "%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "block: is cut off: the end of the PDF is missing"},
		{"a.pdf", "%PDF-1.4\n1 0 obj\n<</Type/Font>>\nendobj\nstartxref\n0\n%%EOF\n" + strings.Repeat("junk ", 500), ""},
		{"a.docx", string(ole(utf16le("EncryptedPackage"))), "block: is protected by a password"},
		{"a.docx", string(ole(utf16le("WordDocument"))), "block: is an Office document from before 2007, not a Word document"},
		{"a.doc", string(ole(utf16le("WordDocument"))), ""},
		{"a.doc", string(ole("\xec\xa5\xc1\x00\x00\x00\x00\x00\x00\x00\x00\x13", strings.Repeat("\x00", 60))), "block: is protected by a password"},
		{"a.xls", string(ole("\x09\x08\x10\x00", strings.Repeat("\x06", 16), "\x2f\x00", strings.Repeat("\x00", 60))), "block: is protected by a password"},
		{"a.ppt", string(ole(utf16le("EncryptedSummary"))), "block: is protected by a password"},
		{"a.doc", `{\rtf1 text}`, ""},
		{"a.doc", "plain text of an old program", "warn: is plain text, not a Word document"},
		{"a.doc", string(fixture(t, "writer.docx")), "warn: is in a newer format than its ending says"},
		{"a.rtf", "plain text", "warn: is plain text, not an RTF document"},
		{"a.md", string(noise), "block: is binary data, not a text"},
		{"a.csv", "a\x00b", "warn: has a zero byte in it"},
		{"a.txt", "%PDF-1.4 and so on", "block: is a PDF, not a text"},
		{"a.md", "\x89PNG\r\n\x1a\n", "block: is a PNG picture, not a text"},
		{"a.md", "\n \t\n", "block: has only white space"},
		{"a.md", "\xef\xbb\xbf\r\n", "block: has only white space"},
		{"a.md", "\xff\xfe\r\x00\n\x00", "block: has only white space"},
		{"a.xlsx", strings.Repeat("\x00", 4000), "block: has only zero bytes"},
		{"a.bin", strings.Repeat("\x00", 4000), "block: has only zero bytes"},
		{"a.bin", string(noise), ""},
		{"a.md", "# Title\n\ntext with \x1b[1mcolours\x1b[0m\n", ""},
		{"c1.md.nextcloud", " ", "block: is a placeholder of Nextcloud; make the document available on this machine"},
		{"dir/.c1.md.icloud", "bplist00", "block: is a placeholder of iCloud; make the document available on this machine"},
	} {
		if got := verdict(LookWhole(c.name, []byte(c.content))); got != c.want {
			t.Errorf("%s %.30q: %q, want %q", c.name, c.content, got, c.want)
		}
	}
}

func TestEncodings(t *testing.T) {
	for name, want := range map[string]string{
		"de-windows-1252": "windows-1252", "zh-gbk": "gbk", "zh-gb18030": "gbk", "ja-shift-jis": "shift_jis", "ja-euc-jp": "euc-jp",
		"ko-euc-kr": "euc-kr", "zt-big5": "big5", "ru-windows-1251": "windows-1251", "ru-koi8-r": "koi8-r", "de-utf-16": "utf-16le",
		"de-utf-16le": "utf-16le", "de-utf-16be": "utf-16be", "de-utf-32": "utf-32le",
	} {
		data := fixture(t, name+".txt")
		r := LookWhole("a.txt", data)
		language, _, _ := strings.Cut(name, "-")
		text, err := Decode(r.Charset, data)
		if err != nil || !bytes.Equal(text, fixture(t, language+"-utf8.txt")) {
			t.Errorf("%s, taken for %q, is decoded as %q (%v)", name, r.Charset, text, err)
		}
		if r.Charset != want && !(want == "gbk" && r.Charset == "gb18030") {
			t.Errorf("%s is taken for %q", name, r.Charset)
		}
		if got := verdict(r); !strings.HasPrefix(got, "warn: is in the encoding ") {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, text := range []string{"plain ASCII", "Größe", "\xef\xbb\xbfGröße", "日本語"} {
		if r := LookWhole("a.md", []byte(text)); r.Charset != "" || len(r.Findings) > 0 {
			t.Errorf("%q: %+v", text, r)
		}
	}
	page := []byte("<html><head><meta charset=\"iso-8859-1\"></head>Gr\xf6\xdfe</html>")
	if r := LookWhole("a.html", page); r.Charset != "" || len(r.Findings) > 0 {
		t.Errorf("a page that names its encoding: %+v", r)
	}
	if _, err := Decode("utf-16le", []byte("odd")); err == nil {
		t.Error("half a character was decoded")
	}
}

func TestSecrets(t *testing.T) {
	key := "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAxSyntheticSyntheticSynthetic\n-----END RSA PRIVATE KEY-----\n"
	inJSON := `{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"}`
	for _, c := range []struct{ name, content, want string }{
		{"a.md", "our key\n" + key, "warn: has a private key in it"},
		{"a.json", inJSON, "block: is a credential: JSON with a private key in it"},
		{"a.md", "A key begins with -----BEGIN RSA PRIVATE KEY----- and then its lines.", ""},
		{"a.md", "id AKIAIOSFODNN7EXAMPLE here", "warn: has an AWS access key in it"},
		{"a.md", "AKIA is a prefix, XAKIAIOSFODNN7EXAMPLE is not", ""},
		{"a.yaml", "token: ghp_" + strings.Repeat("a1B2", 9), "warn: has a GitHub token in it"},
		{"a.md", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2\n", "warn: has a private key in it"},
		{"a.pdf", "%PDF-1.4 /Font AKIAIOSFODNN7EXAMPLE startxref", ""},
	} {
		if got := verdict(LookWhole(c.name, []byte(c.content))); got != c.want {
			t.Errorf("%s %.40q: %q, want %q", c.name, c.content, got, c.want)
		}
	}
}

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	bytes int
}

func (c *counted) ReadAt(p []byte, offset int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, offset)
	c.bytes += n
	return n, err
}

// sparse is a content of zeros with parts.
type sparse struct {
	size  int64
	parts map[int64]string
}

func (s sparse) ReadAt(p []byte, offset int64) (int, error) {
	clear(p)
	for at, text := range s.parts {
		if from := at - offset; from < int64(len(p)) && from+int64(len(text)) > 0 {
			copy(p[max(from, 0):], text[max(-from, 0):])
		}
	}
	if left := s.size - offset; left < int64(len(p)) {
		return int(left), io.EOF
	}
	return len(p), nil
}

func TestLargeDocumentsAreNotReadWhole(t *testing.T) {
	docx := fixture(t, "writer.docx")
	end := int64(3 << 30)
	locked := string(fixture(t, "locked-aes-256.pdf"))
	for _, c := range []struct {
		name, want string
		content    sparse
	}{
		{"a.pdf", "", sparse{end, map[int64]string{0: "%PDF-1.7\n", end - 30: "startxref\n0\n%%EOF\n"}}},
		{"a.pdf", "block: is cut off: the end of the PDF is missing", sparse{end, map[int64]string{0: "%PDF-1.7\n"}}},
		{"a.pdf", "block: is protected by a password", sparse{end, map[int64]string{0: "%PDF-1.7\n", end - int64(len(locked)): locked}}},
		{"a.docx", "", sparse{end, map[int64]string{end - int64(len(docx)): string(docx)}}},
		{"a.docx", "block: is cut off or damaged: the end of its ZIP container is missing", sparse{end, map[int64]string{0: magicZIP}}},
		{"a.md", "block: has only zero bytes at its beginning and its end", sparse{end, nil}},
		{"a.bin", "", sparse{end, nil}},
	} {
		content := &counted{ReaderAt: c.content}
		r, err := Look(c.name, c.content.size, content)
		if got := verdict(r); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
		if content.bytes > 1<<20 {
			t.Errorf("%s: %d bytes were read", c.name, content.bytes)
		}
	}
}

func TestReadErrorIsReturned(t *testing.T) {
	for _, size := range []int64{100, 2 << 20} {
		if _, err := Look("a.pdf", size, bytes.NewReader(nil)); err == nil {
			t.Errorf("a content of %d bytes that cannot be read gives no error", size)
		}
	}
}

func TestPolicy(t *testing.T) {
	cut := LookWhole("a.pdf", []byte("%PDF-1.4"))
	latin := LookWhole("a.md", []byte("Gr\xf6\xdfe und mehr Text, der deutsch ist"))
	token := LookWhole("a.md", []byte("id AKIAIOSFODNN7EXAMPLE"))
	credential := LookWhole("a.json", []byte(`"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC`))
	for _, c := range []struct {
		name     string
		policy   Policy
		report   Report
		blocked  bool
		warnings int
	}{
		{"off", Policy{}, cut, false, 0},
		{"warn", Policy{Documents: WarnOnly}, cut, false, 1},
		{"block", Policy{Documents: BlockSure}, cut, true, 0},
		{"an encoding only warns", Policy{Documents: BlockSure}, latin, false, 1},
		{"a transcoded text", Policy{Documents: BlockSure, Transcoded: true}, latin, false, 0},
		{"secrets off", Policy{Documents: BlockSure}, token, false, 0},
		{"secrets warn", Policy{Secrets: BlockSure}, token, false, 1},
		{"secrets block", Policy{Secrets: BlockAll}, token, true, 0},
		{"a credential", Policy{Secrets: BlockSure}, credential, true, 0},
	} {
		blocked, warnings := c.policy.Judge(c.report)
		if (blocked != "") != c.blocked || len(warnings) != c.warnings {
			t.Errorf("%s: %q %q", c.name, blocked, warnings)
		}
	}
}

func FuzzLook(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(filepath.Base(file), fixture(f, filepath.Base(file)))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		whole := LookWhole(name, data)
		again, err := Look(name, int64(len(data)), bytes.NewReader(data))
		if err != nil || verdict(again) != verdict(whole) {
			t.Fatalf("%q and %q (%v)", verdict(whole), verdict(again), err)
		}
		// The beginning and the end alone must not panic, and must not read outside.
		s := sample{name: name, size: int64(len(data)) + 2, head: data, tail: data}
		s.content = &window{sample: &s, content: bytes.NewReader(data)}
		if len(data) > 0 {
			s.look()
		}
		if whole.Charset != "" {
			_, _ = Decode(whole.Charset, data)
		}
	})
}

// A large PDF in memory is cut if its end is missing, whatever an earlier save of it ends in.
func TestLargePDFInMemory(t *testing.T) {
	scan := fixture(t, "scan.pdf")
	filler := bytes.Repeat([]byte("% filler\n"), Whole/8)
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{slices.Concat(scan, filler), "block: is cut off: the end of the PDF is missing"},
		{slices.Concat(scan, filler, []byte("startxref\n0\n%%EOF\n")), "warn: seems to have no text, like a scan without text recognition"},
		{slices.Concat(scan, filler, []byte("<</Type/Font>>\nstartxref\n0\n%%EOF\n")), ""},
	} {
		if got := verdict(LookWhole("a.pdf", c.content)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
