package preflight

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func pdfObjects() []string {
	return []string{
		"<< /Type /Catalog /Pages 2 0 R /Metadata 5 0 R >>",
		"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /LastModified (D:20260101000000Z) >>",
		"<< /Length 21 >>\nstream\nBT (Hello) Tj ET % ab\nendstream",
		"<< /Type /Metadata /Subtype /XML /Length 5 >>\nstream\n<xmp>\nendstream",
		"<< /Title (first) /ModDate (D:20260101000000Z) >>",
	}
}

// pdf writes the objects, from number 1 on.
func pdf(objects []string) []byte { return pdfUpdate([]byte("%PDF-1.7\n"), objects, 1, -1, "") }

// pdfUpdate appends objects and their table to a PDF, as a program does that saves only the changes.
func pdfUpdate(data []byte, objects []string, first, previous int, trailer string) []byte {
	b := bytes.NewBuffer(bytes.Clone(data))
	var offsets []int
	for i, o := range objects {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(b, "%d 0 obj\n%s\nendobj\n", first+i, o)
	}
	table := b.Len()
	fmt.Fprintf(b, "xref\n%d %d\n", first, len(objects))
	for _, at := range offsets {
		fmt.Fprintf(b, "%010d 00000 n \n", at)
	}
	if previous >= 0 {
		trailer += fmt.Sprintf(" /Prev %d", previous)
	}
	fmt.Fprintf(b, "trailer\n<< /Size 20 /Root 1 0 R /Info 6 0 R /ID [<%032x> <%032x>] %s >>\nstartxref\n%d\n%%%%EOF\n", len(data), table, trailer, table)
	return b.Bytes()
}

// table returns the offset of a PDF's only table.
func table(data []byte) int { return bytes.Index(data, []byte("\nxref\n")) + 1 }

func deflated(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func TestCoreOfPDF(t *testing.T) {
	with := func(number int, object string) []byte {
		objects := pdfObjects()
		objects[number-1] = object
		return pdf(objects)
	}
	replaced := func(old, with string) []byte {
		data := pdf(pdfObjects())
		if !bytes.Contains(data, []byte(old)) {
			t.Fatalf("no %q", old)
		}
		return bytes.Replace(data, []byte(old), []byte(with), 1)
	}
	first := pdf(pdfObjects())
	again := func(number int, object, trailer string) []byte {
		return pdfUpdate(first, []string{object}, number, table(first), trailer)
	}
	container := func(stream, dict string) []byte {
		objects := append(pdfObjects(), fmt.Sprintf("<< /Type /ObjStm /N 1 /First 4 /Length %d %s >>\nstream\n%s\nendstream", len(stream), dict, stream))
		return pdfWithStreamTable(objects, 2)
	}
	compressed := deflated("2 0 " + pdfObjects()[1])
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"title", same, with(6, "<< /Title (second) >>")},
		{"XMP", same, with(5, "<< /Type /Metadata /Subtype /XML /Length 6 >>\nstream\n<xmp2>\nendstream")},
		{"time of a page", same, with(3, "<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>")},
		{"order of keys, white space, notation", same, with(3, "<< /Parent 2 0 R%c\n/Contents  4 0 R/#54ype/Page/LastModified <443A>>>")},
		{"title in a second save", same, again(6, "<< /Title (second) >>", "")},
		{"XMP in a second save", same, again(1, "<< /Type /Catalog /Pages 2 0 R >>", "")},
		{"the pages in a stream of objects", same, container(compressed, "/Filter /FlateDecode")},
		{"text", another, replaced("(Hello)", "(Hallo)")},
		{"text in a second save", another, again(4, "<< /Length 12 >>\nstream\n(Hallo) Tj E\nendstream", "")},
		{"metadata that is no metadata", another, with(5, "<< /Type /XObject /Subtype /XML /Length 5 >>\nstream\n<xmp>\nendstream")},
		{"a key of the page", another, with(3, "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Rotate 90 >>")},
		{"a page twice", another, with(2, "<< /Type /Pages /Kids [3 0 R 3 0 R] /Count 2 >>")},
		{"a missing object", another, with(2, "<< /Type /Pages /Kids [9 0 R] /Count 1 >>")},
		{"encryption", none, again(6, "<<>>", "/Encrypt 7 0 R")},
		{"a hybrid", none, again(6, "<<>>", "/XRefStm 9")},
		{"a table that is its own previous one", none, pdfUpdate(first, []string{"<<>>"}, 6, len(first)+len("6 0 obj\n<<>>\nendobj\n"), "")},
		{"another number at an offset", none, replaced("4 0 obj", "7 0 obj")},
		{"a shorter length", none, replaced("/Length 21", "/Length 19")},
		{"a longer length", none, replaced("/Length 21", "/Length 26")},
		{"a length that is too long", none, replaced("/Length 21", "/Length 99999999")},
		{"a key twice", none, with(3, "<< /Type /Page /Type /Page /Contents 4 0 R >>")},
		{"a file outside", none, with(4, "<< /F (a) /Length 0 >>\nstream\n\nendstream")},
		{"deep nesting", none, with(3, strings.Repeat("[", 5000)+strings.Repeat("]", 5000))},
		{"an object that ends early", none, with(3, "<< /Type /Page >> /Contents 4 0 R")},
		{"bytes before the header", none, append([]byte("x"), first...)},
		{"bytes after the end", none, append(bytes.Clone(first), "more"...)},
		{"another generation", none, with(1, "<< /Type /Catalog /Pages 2 1 R >>")},
		{"a damaged stream of objects", none, container(compressed[:len(compressed)-2]+"xx", "/Filter /FlateDecode")},
		{"a stream of objects in another filter", none, container(compressed, "/Filter /LZWDecode")},
		{"a bomb", none, container(deflated("2 0 "+strings.Repeat(" ", MaxCore+1)), "/Filter /FlateDecode")},
	} {
		wantCore(t, c.name, c.want, coreOf("a.pdf", first), coreOf("a.pdf", c.data))
	}
}

// pdfWithStreamTable writes objects whose table is a stream. The object with that number is in the last object.
func pdfWithStreamTable(objects []string, contained int) []byte {
	b := bytes.NewBufferString("%PDF-1.7\n")
	entries := []byte{0, 0, 0, 0}
	for i, o := range objects {
		if i+1 == contained {
			entries = append(entries, 2, 0, byte(len(objects)), 0)
			continue
		}
		entries = append(entries, 1, byte(b.Len()>>8), byte(b.Len()), 0)
		fmt.Fprintf(b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	at := b.Len()
	// Most programs store the difference from the row above.
	var rows []byte
	above := make([]byte, 4)
	for row := range slices.Chunk(entries, 4) {
		rows = append(rows, 2)
		for i := range row {
			rows = append(rows, row[i]-above[i])
		}
		above = row
	}
	table := deflated(string(rows))
	fmt.Fprintf(b, "%d 0 obj\n<< /Type /XRef /Size %d /Index [0 %d] /W [1 2 1] /Root 1 0 R /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 4 >> "+
		"/Length %d >>\nstream\n%s\nendstream\nendobj\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, len(objects)+2, len(objects)+1, len(table), table, at)
	return b.Bytes()
}

// Streams whose length is in a stream of objects of which the length is in the first end without a core, and not without an end.
func TestCoreOfPDFWithLoops(t *testing.T) {
	objects := pdfObjects()
	objects = append(objects, "<< /Type /ObjStm /N 1 /First 4 /Length 2 0 R >>\nstream\n2 0 40\nendstream")
	for _, typ := range []string{"/ObjStm", "/Other"} {
		objects[6] = "<< /Type " + typ + " /N 1 /First 4 /Length 2 0 R >>\nstream\n2 0 40\nendstream"
		if core := coreOf("a.pdf", pdfWithStreamTable(objects, 2)); core != "" {
			t.Errorf("%s: the core %s", typ, core)
		}
	}
}
