package preflight

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// coreOf returns the core of a content; empty if it has none.
func coreOf(name string, content []byte) string {
	core, ok := Core(name, content)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x", core)
}

// What LibreOffice and qpdf saved again with another title keeps its core, and what has another text does not.
func TestCoreOfRealPrograms(t *testing.T) {
	for _, ending := range []string{"docx", "xlsx", "odt", "ods", "odp", "pdf"} {
		first, title := fixture(t, "resaved/first."+ending), fixture(t, "resaved/title."+ending)
		core := coreOf("a."+ending, first)
		if core == "" || core != coreOf("a."+ending, title) || bytes.Equal(first, title) {
			t.Errorf("%s: %q, and with another title %q", ending, core, coreOf("a."+ending, title))
		}
		text, err := os.ReadFile(filepath.Join("testdata", "resaved", "text."+ending))
		if ending != "pdf" && (err != nil || coreOf("a."+ending, text) == "" || coreOf("a."+ending, text) == core) {
			t.Errorf("%s: another text has the core %q, %v", ending, coreOf("a."+ending, text), err)
		}
	}
	same := [][]string{
		{"writer.docx", "7z.docx", "comment.docx"},
		{"ghostscript.pdf", "objects.pdf", "web.pdf"},
	}
	seen := map[string]string{}
	for _, names := range same {
		core := coreOf(names[0], fixture(t, names[0]))
		for _, name := range names {
			if got := coreOf(name, fixture(t, name)); got != core || core == "" {
				t.Errorf("%s has the core %q, and %s %q", names[0], core, name, got)
			}
		}
		if seen[core] != "" {
			t.Errorf("%s and %s have the same core", seen[core], names[0])
		}
		seen[core] = names[0]
	}
	for _, name := range []string{
		"locked.docx", "locked.odt", "locked-aes-256.pdf", "open-rc4-40.pdf", "cut.pdf", "cut.docx", "notoffice.docx", "lfs.pdf", "writer.doc", "pandoc.epub",
	} {
		if core := coreOf(name, fixture(t, name)); core != "" {
			t.Errorf("%s has the core %s", name, core)
		}
	}
}

// A container is a made-up office document.
type container struct {
	names   []string
	members map[string]string
	method  uint16
	time    time.Time
}

const (
	wordHead  = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>`
	wordTail  = `</w:body></w:document>`
	relsHead  = `<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">`
	relOffice = `<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>`
	relCore   = `<Relationship Id="rId2" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/core-properties" Target="docProps/core.xml"/>`
	relsTail  = `</Relationships>`
	typesHead = `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" ContentType="application/xml"/>`
	typeMain  = `<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>`
	typeCore  = `<Override PartName="/docProps/core.xml" ContentType="application/vnd.openxmlformats-package.core-properties+xml"/>`
	odfLinks  = `<office:document-content xmlns:office="o" xmlns:xlink="x"><text>Hello</text>`
)

func word() *container {
	return &container{
		names: []string{"[Content_Types].xml", "_rels/.rels", "word/document.xml", "word/settings.xml", "docProps/core.xml"},
		members: map[string]string{
			"[Content_Types].xml": typesHead + typeMain + typeCore + `</Types>`,
			"_rels/.rels":         relsHead + relOffice + relCore + relsTail,
			"word/document.xml":   wordHead + `<w:p w:rsidR="00A1B2C3" w:rsidRDefault="00A1B2C3"><w:r><w:t>Hello</w:t></w:r></w:p>` + wordTail,
			"word/settings.xml":   `<w:settings xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:rsids><w:rsidRoot w:val="00A1B2C3"/></w:rsids></w:settings>`,
			"docProps/core.xml":   `<cp>first</cp>`,
		},
		method: zip.Deflate, time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC),
	}
}

func odf() *container {
	return &container{
		names: []string{"mimetype", "content.xml", "meta.xml", "Thumbnails/thumbnail.png", "META-INF/manifest.xml"},
		members: map[string]string{
			"mimetype":                 "application/vnd.oasis.opendocument.text",
			"content.xml":              odfLinks + `</office:document-content>`,
			"meta.xml":                 "<meta/>",
			"Thumbnails/thumbnail.png": "PNG",
			"META-INF/manifest.xml":    `<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:file-entry m:full-path="/" m:media-type="t"/><m:file-entry m:full-path="meta.xml" m:media-type="text/xml"/></m:manifest>`,
		},
		method: zip.Store, time: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC),
	}
}

func (c *container) set(name, content string) {
	if _, ok := c.members[name]; !ok {
		c.names = append(c.names, name)
	}
	c.members[name] = content
}

func (c *container) replace(name, old, with string) {
	if !strings.Contains(c.members[name], old) {
		panic(name + " has no " + old)
	}
	c.members[name] = strings.Replace(c.members[name], old, with, 1)
}

func (c *container) bytes(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range c.names {
		m, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: c.method, Modified: c.time})
		if err == nil {
			_, err = io.WriteString(m, c.members[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The verdicts of a change on a core.
const (
	same    = "same"
	another = "another"
	none    = "none"
)

func TestCoreOfZIP(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*container)
	}{
		{"word: time", same, func(c *container) { c.time = c.time.AddDate(1, 0, 0) }},
		{"word: compression", same, func(c *container) { c.method = zip.Store }},
		{"word: order", same, func(c *container) { c.names[0], c.names[3] = c.names[3], c.names[0] }},
		{"word: title", same, func(c *container) { c.set("docProps/core.xml", "<cp>second</cp>") }},
		{"word: first properties of its own", same, func(c *container) {
			c.set("docProps/custom.xml", "<p/>")
			c.replace("_rels/.rels", relsTail, `<Relationship Id="rId9" Type="http://x/custom-properties" Target="docProps/custom.xml"/>`+relsTail)
			c.replace("[Content_Types].xml", typeMain, `<Override PartName="/docProps/custom.xml" ContentType="application/vnd.openxmlformats-officedocument.custom-properties+xml"/>`+typeMain)
		}},
		{"word: revision ids", same, func(c *container) {
			c.replace("word/document.xml", `w:rsidR="00A1B2C3" w:rsidRDefault="00A1B2C3"`, `w:rsidR="00DDDDDD" w:rsidRDefault="00A1B2C3"  w:rsidP="00EEEEEE"`)
			c.replace("word/settings.xml", `<w:rsidRoot w:val="00A1B2C3"/>`, `<w:rsidRoot w:val="00A1B2C3"/> <w:rsid w:val="00DDDDDD"/>`)
		}},
		{"word: no list of revision ids", same, func(c *container) {
			c.replace("word/settings.xml", `<w:rsids><w:rsidRoot w:val="00A1B2C3"/></w:rsids>`, ``)
		}},
		{"word: text", another, func(c *container) { c.replace("word/document.xml", "Hello", "Hallo") }},
		{"word: text like a revision id", another, func(c *container) { c.replace("word/document.xml", "Hello", `Hello w:rsidR="00DDDDDD"`) }},
		{"word: CDATA like a tag", another, func(c *container) {
			c.replace("word/document.xml", "Hello", `<![CDATA[<a w:rsidR="00DDDDDD">]]>`)
		}},
		{"word: an attribute", another, func(c *container) { c.replace("word/document.xml", "<w:r>", `<w:r w:val="00DDDDDD">`) }},
		{"word: a longer revision id", another, func(c *container) { c.replace("word/document.xml", "<w:r>", `<w:r w:rsidX="00DDDDDDD">`) }},
		{"word: picture", another, func(c *container) { c.set("word/media/a.png", "PNG") }},
		{"word: a part renamed", another, func(c *container) {
			c.names[3] = "word/other.xml"
			c.members["word/other.xml"] = c.members["word/settings.xml"]
		}},
		{"word: type of a part", another, func(c *container) { c.replace("[Content_Types].xml", "document.main", "template.main") }},
		{"word: target of the main part", another, func(c *container) { c.replace("_rels/.rels", "word/document.xml", "word/settings.xml") }},
		{"word: main part among the metadata", none, func(c *container) { c.replace("_rels/.rels", "word/document.xml", "docProps/core.xml") }},
		{"word: main part among the metadata, escaped", none, func(c *container) { c.replace("_rels/.rels", "word/document.xml", "doc%50rops/&#99;ore.xml") }},
		{"word: header among the metadata", none, func(c *container) {
			c.set("word/_rels/document.xml.rels", relsHead+`<Relationship Id="rId1" Type="http://x/header" Target="../docProps/core.xml"/>`+relsTail)
		}},
		{"word: a part of another kind among the metadata", none, func(c *container) { c.set("docProps/document.xml", "<a/>") }},
		{"word: main type of a part of the metadata", none, func(c *container) { c.replace("[Content_Types].xml", "core-properties+xml", "document.main+xml") }},
		{"word: twins in names", none, func(c *container) { c.set("word/Document.xml", "<a/>") }},
		{"word: UTF-16", none, func(c *container) { c.set("word/document.xml", "\xff\xfe<\x00a\x00/\x00>\x00") }},
		{"word: another encoding", none, func(c *container) { c.replace("word/document.xml", "UTF-8", "UTF-7") }},
		{"word: DOCTYPE", none, func(c *container) {
			c.replace("word/document.xml", "<w:body>", `<!DOCTYPE a [<!ENTITY b "c">]><w:body>`)
		}},
		{"word: another namespace", none, func(c *container) { c.replace("word/document.xml", "wordprocessingml/2006/main", "other") }},
		{"word: a field that shows a page", another, func(c *container) {
			c.replace("word/document.xml", "Hello", `Hello</w:t><w:instrText> PAGE </w:instrText><w:t>`)
		}},
		{"word: a field that shows metadata", none, func(c *container) {
			c.replace("word/document.xml", "Hello", `Hello</w:t><w:instrText> DOCPRO</w:instrText></w:r><w:r><w:instrText>PERTY Number </w:instrText><w:t>`)
		}},
		{"word: a field that shows metadata, escaped", none, func(c *container) {
			c.replace("word/document.xml", "Hello", `Hello</w:t><w:instrText><![CDATA[ TIT]]>&#76;E </w:instrText><w:t>`)
		}},
		{"word: a simple field that shows metadata", none, func(c *container) {
			c.replace("word/document.xml", "<w:r>", `<w:fldSimple w:instr=" Title "/><w:r>`)
		}},
		{"word: a text bound to metadata", none, func(c *container) {
			c.replace("word/document.xml", "<w:r>", `<w:dataBinding w:prefixMappings="xmlns:a='http://schemas.openxmlformats.org/package/2006/metadata/core-properties'"/><w:r>`)
		}},
		{"word: a second prefix", none, func(c *container) {
			c.replace("word/document.xml", "<w:r>", `<w:r xmlns:x="http://schemas.openxmlformats.org/wordprocessingml/2006/main">`)
		}},
		{"word: cut XML", none, func(c *container) { c.replace("word/document.xml", "</w:document>", `<w:r w:val="`) }},
		{"word: no types", none, func(c *container) { c.names = c.names[1:] }},
		{"odf: title and picture of the first page", same, func(c *container) {
			c.set("meta.xml", "<meta>new</meta>")
			c.set("Thumbnails/thumbnail.png", "other")
		}},
		{"odf: no metadata", same, func(c *container) {
			c.names = []string{"mimetype", "content.xml", "META-INF/manifest.xml"}
			c.replace("META-INF/manifest.xml", `<m:file-entry m:full-path="meta.xml" m:media-type="text/xml"/>`, "")
		}},
		{"odf: text", another, func(c *container) { c.replace("content.xml", "Hello", "Hallo") }},
		{"odf: picture in the text", none, func(c *container) {
			c.replace("content.xml", "<text>", `<image xlink:href="./Thumb&#110;%61ils/thumbnail.png"/><text>`)
		}},
		{"odf: a field that shows metadata", none, func(c *container) { c.replace("content.xml", "<text>", `<text:title/><text>`) }},
		{"odf: a field under another prefix", none, func(c *container) {
			c.replace("content.xml", "<text>", `<t:title xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"/><text>`)
		}},
		{"odf: encrypted", none, func(c *container) {
			c.replace("META-INF/manifest.xml", `m:media-type="t"/>`, `m:media-type="t"><m:encryption-data/></m:file-entry>`)
		}},
	} {
		make := map[bool]func() *container{true: word, false: odf}[strings.HasPrefix(c.name, "word")]
		ending := map[bool]string{true: "a.docx", false: "a.odt"}[strings.HasPrefix(c.name, "word")]
		changed := make()
		c.change(changed)
		wantCore(t, c.name, c.want, coreOf(ending, make().bytes(t)), coreOf(ending, changed.bytes(t)))
	}
}

func wantCore(t *testing.T, name, want, before, after string) {
	t.Helper()
	if before == "" {
		t.Fatalf("%s: the document has no core", name)
	}
	got := map[bool]string{true: same, false: another}[before == after]
	if after == "" {
		got = none
	}
	if got != want {
		t.Errorf("%s: %s core, want %s", name, got, want)
	}
}

// Programs that read the members in their order, and not by the directory, must see the same ones.
func TestCoreOfZIPThatProgramsReadDifferently(t *testing.T) {
	good := word().bytes(t)
	hidden := word()
	hidden.names = append(hidden.names[:2:2], append([]string{"word/hidden.xml"}, hidden.names[2:]...)...)
	hidden.members["word/hidden.xml"] = "<hidden/>"
	data := hidden.bytes(t)
	directory := bytes.Index(data, []byte("PK\x01\x02"))
	at := directory + bytes.LastIndex(data[directory:], []byte("word/hidden.xml")) - 46
	end := bytes.LastIndex(data, []byte("PK\x05\x06"))
	length := 46 + len("word/hidden.xml") + int(data[at+30]) + int(data[at+31])<<8
	cut := append(bytes.Clone(data[:at]), data[at+length:]...)
	end -= length
	cut[end+8]--
	cut[end+10]--
	size := end - directory
	cut[end+12], cut[end+13] = byte(size), byte(size>>8)
	if _, err := zip.NewReader(bytes.NewReader(cut), int64(len(cut))); err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(good, []byte("word/document.xml"), []byte("word/dOcument.xml"), 1)
	for name, data := range map[string][]byte{
		"a member that the directory does not have": cut,
		"bytes before the first member":             append([]byte("prefix"), good...),
		"another name in the member":                renamed,
	} {
		if core := coreOf("a.docx", data); core != "" {
			t.Errorf("%s: the core %s", name, core)
		}
	}
}

// A ZIP of some kilobytes may have more than the bytes that Core reads.
func TestCoreOfZIPBomb(t *testing.T) {
	var part, b bytes.Buffer
	deflate, _ := flate.NewWriter(&part, flate.BestSpeed)
	_, _ = deflate.Write(make([]byte, 1<<20))
	_ = deflate.Flush()
	bomb := bytes.Repeat(part.Bytes(), maxCoreBytes>>20+1)
	w := zip.NewWriter(&b)
	for _, name := range word().names {
		m, err := w.Create(name)
		if err == nil {
			_, err = io.WriteString(m, word().members[name])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := w.CreateRaw(&zip.FileHeader{
		Name: "word/a.bin", Method: zip.Deflate, CompressedSize64: uint64(len(bomb)), UncompressedSize64: 1 << 40,
	})
	if err == nil {
		_, err = m.Write(bomb)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if core := coreOf("a.docx", b.Bytes()); core != "" {
		t.Errorf("the core %s", core)
	}
}

// FuzzCore holds that no content makes Core fail.
func FuzzCore(f *testing.F) {
	f.Add("a.docx", word().bytes(f))
	f.Add("a.odt", odf().bytes(f))
	f.Add("a.pdf", pdf(pdfObjects()))
	for _, name := range []string{"objects.pdf", "resaved/title.pdf", "resaved/title.docx"} {
		f.Add(filepath.Base(name), fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		core := coreOf(name, content)
		if core != coreOf(name, bytes.Clone(content)) {
			t.Error("two cores of one content")
		}
		if core != "" && !HasCore(name, int64(len(content))) {
			t.Error("a core of another format")
		}
	})
}
