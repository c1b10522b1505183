package preflight

import (
	"bufio"
	"bytes"
	"errors"
	"html"
	"io"
	"net/url"
	"slices"
	"strings"
)

// maxTag is the most bytes of one tag. Pictures of older formats are in attributes.
const maxTag = 4 << 20

// An xmlScanner copies XML, in memory that does not grow with it, and edits its tags.
type xmlScanner struct {
	out io.Writer
	// tag returns what is copied of a tag, without its brackets; nil for nothing. hide hides what follows up to the next tag, which may
	// only be numbers. The copy ends if ok is false.
	tag func(tag []byte) (kept []byte, hide, ok bool)
	// seen, if not nil, sees the texts between tags, in pieces. The copy ends if it returns false.
	seen func(text []byte) bool

	in   *bufio.Reader
	hide bool
	any  bool // a tag was read
}

var errNotCertain = errors.New("not certain")

// copy returns false if the XML is in another encoding than UTF-8, or has declarations, or if tag refused a tag.
func (s *xmlScanner) copy(r io.Reader) bool {
	s.in = bufio.NewReaderSize(r, 32<<10)
	for {
		text, err := s.in.ReadSlice('<')
		if found := err == nil; found {
			text = text[:len(text)-1]
		}
		if !s.text(text) {
			return false
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return s.any && !s.hide
		case err != nil:
			return false
		}
		if s.markup() != nil {
			return false
		}
		s.any = true
	}
}

// text copies what is between two tags. Before the first tag, only the mark of UTF-8 may be.
func (s *xmlScanner) text(text []byte) bool {
	if !s.any && len(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) > 0 || bytes.IndexByte(text, 0) >= 0 {
		return false
	}
	if s.hide {
		return run(text, "0123456789- \t\r\n") == len(text)
	}
	if s.seen != nil && !s.seen(text) {
		return false
	}
	_, err := s.out.Write(text)
	return err == nil
}

// markup copies one tag, comment or instruction, after its first bracket.
func (s *xmlScanner) markup() error {
	start, _ := s.in.Peek(8)
	switch {
	case s.hide && len(start) > 0 && (start[0] == '!' || start[0] == '?'):
		return errNotCertain
	case bytes.HasPrefix(start, []byte("!--")):
		return s.until("-->", nil)
	case bytes.HasPrefix(start, []byte("![CDATA[")):
		return s.until("]]>", nil)
	case bytes.HasPrefix(start, []byte("?")):
		return s.until("?>", isUTF8Declaration)
	case bytes.HasPrefix(start, []byte("!")):
		return errNotCertain
	}
	tag, err := s.readTag()
	if err != nil {
		return err
	}
	kept, hide, ok := s.tag(tag)
	if !ok {
		return errNotCertain
	}
	if s.hide = hide; kept == nil {
		return nil
	}
	return s.write("<", string(kept), ">")
}

// readTag reads a tag to its second bracket.
func (s *xmlScanner) readTag() ([]byte, error) {
	var tag []byte
	quote := byte(0)
	for {
		c, err := s.in.ReadByte()
		switch {
		case err != nil:
			return nil, errNotCertain
		case len(tag) == maxTag, c == '<', c == 0:
			return nil, errNotCertain
		case quote == 0 && c == '>':
			return tag, nil
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		}
		tag = append(tag, c)
	}
}

// until copies everything to the end, if check allows it.
func (s *xmlScanner) until(end string, check func([]byte) bool) error {
	var seen []byte
	for {
		c, err := s.in.ReadByte()
		if err != nil || len(seen) == maxTag {
			return errNotCertain
		}
		if seen = append(seen, c); c == '>' && bytes.HasSuffix(seen, []byte(end)) && len(seen) >= 2*len(end)-1 {
			break
		}
	}
	if check != nil && !check(seen) {
		return errNotCertain
	}
	if text, ok := bytes.CutPrefix(seen, []byte("![CDATA[")); ok && s.seen != nil && !s.seen(bytes.TrimSuffix(text, []byte(end))) {
		return errNotCertain
	}
	return s.write("<", string(seen), "")
}

func (s *xmlScanner) write(parts ...string) error {
	for _, p := range parts {
		if _, err := io.WriteString(s.out, p); err != nil {
			return err
		}
	}
	return nil
}

// isUTF8Declaration reports whether an instruction names no other encoding.
func isUTF8Declaration(instruction []byte) bool {
	text := strings.ToLower(string(instruction))
	return !strings.Contains(text, "encoding") || strings.Contains(text, `encoding="utf-8"`) || strings.Contains(text, `encoding='utf-8'`)
}

// attributes calls fn with each attribute of a tag, and with its place: from the space before it to the quote after it. It returns
// false if the tag is not well formed, or if fn did.
func attributes(tag []byte, fn func(start, end int, name, value []byte) bool) bool {
	const space = " \t\r\n"
	at := bytes.IndexAny(tag, space)
	for at >= 0 && at < len(tag) {
		start := at
		at += run(tag[at:], space)
		if rest := string(tag[at:]); rest == "" || rest == "/" {
			return true
		}
		equals := bytes.IndexByte(tag[at:], '=')
		if equals <= 0 || at == start {
			return false
		}
		name := bytes.TrimRight(tag[at:at+equals], space)
		at += equals + 1
		at += run(tag[at:], space)
		if at >= len(tag) || tag[at] != '"' && tag[at] != '\'' || bytes.ContainsAny(name, space+`"'<>&/`) {
			return false
		}
		length := bytes.IndexByte(tag[at+1:], tag[at])
		if length < 0 {
			return false
		}
		value := tag[at+1 : at+1+length]
		at += length + 2
		if !fn(start, at, name, value) {
			return false
		}
		if at < len(tag) && string(tag[at:]) == "/" {
			return true
		}
	}
	return true
}

// withoutPlaceOfWindow edits the settings of an OpenDocument file. LibreOffice keeps the random numbers of the editing sessions there, and
// where the window stood in the text.
func withoutPlaceOfWindow() func(tag []byte) (kept []byte, hide, ok bool) {
	inItem := false
	return func(tag []byte) (kept []byte, hide, ok bool) {
		if inItem {
			inItem = false
			return nil, false, string(tag) == "/config:config-item"
		}
		kept, _, ok = withoutLinksToMetadata(tag)
		if ok && bytes.HasPrefix(tag, []byte("config:config-item ")) && !bytes.HasSuffix(tag, []byte("/")) {
			ok = attributes(tag, func(_, _ int, name, value []byte) bool {
				inItem = inItem || string(name) == "config:name" && slices.Contains(windowSettings, string(value))
				return true
			})
		}
		if inItem {
			kept = nil
		}
		return kept, inItem, ok
	}
}

var windowSettings = []string{
	"Rsid", "RsidRoot", "ViewLeft", "ViewTop", "VisibleLeft", "VisibleTop", "VisibleRight", "VisibleBottom", "ZoomFactor",
}

const textNamespace = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"

// metadataFields are the beginnings of the names of fields that show metadata.
var metadataFields = []string{
	"title", "subject", "keywords", "description", "user-defined", "initial-creator", "creator", "creation-", "modification-", "print-",
	"printed-", "editing-", "template-name",
}

// tagName returns the name of a tag, without the slash at its end.
func tagName(tag []byte) string {
	n := bytes.IndexAny(tag, " \t\r\n")
	if n < 0 {
		n = len(tag)
	}
	return strings.TrimSuffix(string(tag[:n]), "/")
}

// withoutLinksToMetadata refuses a tag that may refer to a part that counts as metadata, such as a picture in the folder of the
// thumbnails, and a field that shows metadata.
func withoutLinksToMetadata(tag []byte) (kept []byte, hide, ok bool) {
	name := tagName(tag)
	if field, ok := strings.CutPrefix(name, "text:"); ok && slices.ContainsFunc(metadataFields, func(start string) bool { return strings.HasPrefix(field, start) }) {
		return nil, false, false
	}
	return tag, false, attributes(tag, func(_, _ int, name, value []byte) bool {
		if bytes.HasPrefix(name, []byte("xmlns")) && (string(name) == "xmlns:text") != (string(value) == textNamespace) {
			return false
		}
		if bytes.IndexByte(value, '&') >= 0 {
			value = []byte(html.UnescapeString(string(value)))
		}
		if bytes.IndexByte(value, '%') >= 0 {
			value = []byte(unescapePath(string(value)))
		}
		value = bytes.ToLower(value)
		return !bytes.Contains(value, []byte("thumbnails")) && !bytes.Contains(value, []byte("meta.xml"))
	})
}

// unescapePath decodes what is an escape in a path, and leaves the rest as it is.
func unescapePath(s string) string {
	var b strings.Builder
	for s != "" {
		if s[0] == '%' && len(s) >= 3 {
			if c, err := url.PathUnescape(s[:3]); err == nil {
				b.WriteString(c)
				s = s[3:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}
