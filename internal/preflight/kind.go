package preflight

import (
	"bytes"
	"path"
	"strings"
)

// A family is a group of formats that one detector knows.
type family uint8

const (
	familyOther family = iota // no detector knows it
	familyText
	familyMarkup // a text with tags
	familyPDF
	familyOffice       // a ZIP of Office Open XML
	familyOpenDocument // a ZIP of OpenDocument
	familyZIP          // any other ZIP
	familyLegacy       // Word, Excel and PowerPoint up to 2003
	familyRTF
)

// A kind is what a document's ending says of it.
type kind struct {
	family family
	name   string // with its article
	folder string // of the main part of an Office Open XML document
}

// kindOf returns the kind of a document by the ending of its name.
func kindOf(name string) kind {
	switch strings.ToLower(path.Ext(name)) {
	case ".pdf":
		return kind{familyPDF, "a PDF", ""}
	case ".docx", ".docm", ".dotx", ".dotm":
		return kind{familyOffice, "a Word document", "word/"}
	case ".xlsx", ".xlsm", ".xltx", ".xltm", ".xlsb":
		return kind{familyOffice, "an Excel workbook", "xl/"}
	case ".pptx", ".pptm", ".potx", ".ppsx", ".ppsm":
		return kind{familyOffice, "a PowerPoint presentation", "ppt/"}
	case ".odt", ".ods", ".odp", ".odg", ".ott", ".ots", ".otp":
		return kind{familyOpenDocument, "an OpenDocument file", ""}
	case ".epub":
		return kind{familyZIP, "an EPUB", ""}
	case ".zip":
		return kind{familyZIP, "a ZIP", ""}
	case ".doc", ".dot":
		return kind{familyLegacy, "a Word document", ""}
	case ".xls", ".xlt":
		return kind{familyLegacy, "an Excel workbook", ""}
	case ".ppt", ".pps":
		return kind{familyLegacy, "a PowerPoint presentation", ""}
	case ".rtf":
		return kind{familyRTF, "an RTF document", ""}
	case ".html", ".htm", ".xhtml", ".xml", ".svg":
		return kind{familyMarkup, "a text", ""}
	case ".txt", ".text", ".md", ".markdown", ".mdown", ".mkd", ".mdx", ".rst", ".adoc", ".asciidoc", ".org", ".tex", ".csv", ".tsv",
		".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".toml", ".ini", ".log", ".srt", ".vtt":
		return kind{familyText, "a text", ""}
	}
	return kind{}
}

// The beginnings of formats.
const (
	magicPDF = "%PDF-"
	magicZIP = "PK\x03\x04"
	magicOLE = "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" // the container of Office up to 2003, and of encrypted Office Open XML
	magicRTF = `{\rtf`
)

// magics are the formats that a content's first bytes name without doubt. None of them is a text.
var magics = []struct{ start, name string }{
	{magicPDF, "a PDF"},
	{magicZIP, "a ZIP"},
	{"PK\x05\x06", "an empty ZIP"},
	{magicOLE, "an Office document from before 2007"},
	{"\x89PNG\r\n\x1a\n", "a PNG picture"},
	{"\xff\xd8\xff", "a JPEG picture"},
	{"GIF87a", "a GIF picture"},
	{"GIF89a", "a GIF picture"},
	{"II*\x00", "a TIFF picture"},
	{"MM\x00*", "a TIFF picture"},
	{"\x1f\x8b\x08", "a gzip archive"},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
	{"Rar!\x1a\x07", "a RAR archive"},
	{"\xfd7zXZ\x00", "an xz archive"},
	{"\x28\xb5\x2f\xfd", "a zstd archive"},
	{"\x7fELF", "a program"},
	{"SQLite format 3\x00", "a SQLite database"},
	{"bplist00", "a binary property list"},
}

// magic returns the format that the first bytes name; empty if they name none.
func (s *sample) magic() string {
	for _, m := range magics {
		if bytes.HasPrefix(s.head, []byte(m.start)) {
			return m.name
		}
	}
	return ""
}

// htmlStarts are the first words of a web page.
var htmlStarts = []string{"<!doctype html", "<html", "<head>", "<head ", "<body>", "<body ", "<title>"}

// isHTML reports whether the content begins as a web page does.
func (s *sample) isHTML() bool {
	start := bytes.TrimLeft(bytes.TrimPrefix(s.head[:min(len(s.head), 1<<10)], []byte("\xef\xbb\xbf")), " \t\r\n")
	for _, word := range htmlStarts {
		if len(start) >= len(word) && strings.EqualFold(string(start[:len(word)]), word) {
			return true
		}
	}
	return false
}

// format compares the content with what the ending says.
func (s *sample) format(r *Report) {
	k := kindOf(s.name)
	switch k.family {
	case familyPDF:
		s.pdf(r)
	case familyOffice, familyOpenDocument, familyZIP:
		s.zip(k, r)
	case familyLegacy:
		s.legacy(k, r)
	case familyRTF:
		s.rtf(k, r)
	case familyText, familyMarkup:
		s.text(k, r)
	}
}

// other reports a content that is not of the kind that its ending says, in the words for what it is.
func (s *sample) other(k kind, r *Report) {
	name := s.magic()
	if s.isHTML() {
		name = "a web page (HTML)"
	}
	if name == "" {
		r.block("is not %s, although its name says so", k.name)
		return
	}
	r.block("is %s, not %s", name, k.name)
}

// rtf looks at a document whose name says that it is RTF. Word writes other formats under that name without asking, and opens
// them.
func (s *sample) rtf(k kind, r *Report) {
	start := bytes.TrimLeft(bytes.TrimPrefix(s.head, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case bytes.HasPrefix(start, []byte(magicRTF)):
	case bytes.HasPrefix(s.head, []byte(magicOLE)), bytes.HasPrefix(s.head, []byte(magicZIP)):
		r.warn("is %s, not %s", s.magic(), k.name)
	case s.magic() != "" || s.isHTML() || s.isBinary():
		s.other(k, r)
	default:
		r.warn("is plain text, not %s", k.name)
	}
}
