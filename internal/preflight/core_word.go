package preflight

import (
	"bytes"
	"html"
	"io"
	"slices"
	"strings"
)

// A wordPart is a part of a Word document while it is copied.
type wordPart struct {
	inList       bool   // in the list of revision ids
	inField      bool   // in the instruction of a field
	instructions []byte // of all fields: Word may cut one into several
}

// maxInstructions is the most bytes of the instructions of the fields of a part.
const maxInstructions = 1 << 20

// copyWord copies a part of a Word document without its revision ids. It returns false if the part shows metadata: Word updates a field
// or a bound text without a change of the part.
func copyWord(w io.Writer, content io.Reader) bool {
	var p wordPart
	s := xmlScanner{out: w, tag: p.tag, seen: p.seen}
	if !s.copy(content) {
		return false
	}
	text := strings.ToUpper(html.UnescapeString(string(p.instructions)))
	return !slices.ContainsFunc(propertyFields, func(word string) bool { return strings.Contains(text, word) })
}

// propertyFields are words in the instructions of fields that show metadata.
var propertyFields = []string{
	"DOCPROPERTY", "TITLE", "AUTHOR", "SUBJECT", "KEYWORDS", "COMMENTS", "INFO", "LASTSAVEDBY", "SAVEDATE", "CREATEDATE", "PRINTDATE",
	"EDITTIME", "REVNUM", "NUMWORDS", "NUMCHARS", "TEMPLATE",
}

func (p *wordPart) seen(text []byte) bool {
	if p.inField {
		p.instructions = append(p.instructions, text...)
	}
	return len(p.instructions) <= maxInstructions
}

// tag edits a tag. Word gives a random number to each session in which a document is edited, writes it into the attributes of what was
// edited (w:rsidR and others), and lists all in the settings (w:rsids). No reader sees them.
func (p *wordPart) tag(tag []byte) (kept []byte, hide, ok bool) {
	name := tagName(tag)
	empty := bytes.HasSuffix(tag, []byte("/"))
	switch {
	case p.inList:
		p.inList = name != "/w:rsids"
		return nil, p.inList, !p.inList || empty && (name == "w:rsid" || name == "w:rsidRoot")
	case name == "w:rsids":
		p.inList = !empty
		return nil, p.inList, true
	case name == "w:instrText", name == "w:delInstrText":
		p.inField = !empty
	default:
		p.inField = false
	}
	kept = make([]byte, 0, len(tag)+1)
	done := 0
	ok = attributes(tag, func(start, end int, attribute, value []byte) bool {
		switch a := string(attribute); {
		case strings.HasPrefix(a, "xmlns"):
			return (a == "xmlns:w") == slices.Contains(wordNamespaces, string(value))
		case strings.HasPrefix(a, "w:rsid") && len(value) == 8 && run(value, "0123456789ABCDEFabcdef") == 8:
			kept = append(kept, tag[done:start]...)
			done = end
		case a == "w:instr":
			p.instructions = append(append(p.instructions, value...), ' ')
		case strings.HasSuffix(name, ":dataBinding"):
			return !bytes.Contains(value, []byte("&#")) && !bytes.Contains(value, []byte("-properties"))
		}
		return true
	})
	return append(kept, tag[done:]...), false, ok && len(p.instructions) <= maxInstructions
}

var wordNamespaces = []string{
	"http://schemas.openxmlformats.org/wordprocessingml/2006/main", "http://purl.oclc.org/ooxml/wordprocessingml/main",
}
