package preflight

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wlynxg/chardet"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

const (
	// minBinary is the fewest bytes of a content that counts as binary for its control characters.
	minBinary = 64
	// maxDetect is how many bytes the detector of encodings gets.
	maxDetect = 64 << 10
	// minConfidence is the lowest confidence of a guess that is better than windows-1252.
	minConfidence = 0.5
)

// text looks at a document whose name says that it is a text.
func (s *sample) text(k kind, r *Report) {
	if name := s.magic(); name != "" {
		r.block("is %s, not %s", name, k.name)
		return
	}
	charset := s.charset(k)
	if charset == "" && bytes.IndexByte(s.head, 0) >= 0 {
		if s.isBinary() {
			r.block("is binary data, not %s", k.name)
			return
		}
		r.warn("has a zero byte in it")
	}
	if k.family == familyText && s.isHTML() {
		r.warn("is a web page (HTML), although its name does not say so")
	}
	if bytes.HasPrefix(s.head, []byte(magicRTF)) {
		r.warn("is an RTF document, although its name does not say so")
	}
	if charset == "" || k.family == familyMarkup && s.declaredCharset() != "" {
		return
	}
	r.Charset = charset
	if text, err := Decode(charset, s.head); s.whole && err == nil && len(bytes.TrimSpace(text)) == 0 {
		r.block("has only white space")
		return
	}
	r.add(Warn, Charset, "is in the encoding %s, not in UTF-8", charset)
}

// isBinary reports whether the content certainly is no text: it has a zero byte, and a twentieth of it are control characters that
// no text has.
func (s *sample) isBinary() bool {
	if s.size < minBinary || bytes.IndexByte(s.head, 0) < 0 || s.charsetByZeros() != "" {
		return false
	}
	odd := 0
	for _, c := range s.head {
		if c < ' ' && (c < '\b' || c > '\r') && c != '\x1b' || c == 0x7f {
			odd++
		}
	}
	return odd*20 >= len(s.head)
}

// charset returns the encoding of a text; empty if it is UTF-8, or no text.
func (s *sample) charset(k kind) string {
	if name := s.charsetByZeros(); name != "" {
		return name
	}
	if s.isUTF8() || bytes.IndexByte(s.head, 0) >= 0 {
		return ""
	}
	if declared := s.declaredCharset(); k.family == familyMarkup && declared != "" {
		return declared
	}
	return detectCharset(s.head)
}

// charsetByZeros returns the encoding of a text of two or four bytes a character, by its byte order mark or by the places of its
// zero bytes.
func (s *sample) charsetByZeros() string {
	h := s.head
	switch {
	case bytes.HasPrefix(h, []byte("\xff\xfe\x00\x00")):
		return "utf-32le"
	case bytes.HasPrefix(h, []byte("\x00\x00\xfe\xff")):
		return "utf-32be"
	case bytes.HasPrefix(h, []byte("\xff\xfe")):
		return "utf-16le"
	case bytes.HasPrefix(h, []byte("\xfe\xff")):
		return "utf-16be"
	case s.size < 4 || s.size%2 != 0 || bytes.IndexByte(h, 0) < 0:
		return ""
	}
	var zeros [2]int
	for i, c := range h {
		if c == 0 {
			zeros[i%2]++
		}
	}
	units := len(h) / 2
	switch {
	case zeros[0]*20 <= units && zeros[1]*5 >= units*2:
		return "utf-16le"
	case zeros[1]*20 <= units && zeros[0]*5 >= units*2:
		return "utf-16be"
	}
	return ""
}

// isUTF8 reports whether the seen parts of the content are UTF-8. A part may begin and end within a character.
func (s *sample) isUTF8() bool {
	if s.whole {
		return utf8.Valid(s.head)
	}
	head, tail := s.head, s.tail
	for n := 1; n < min(utf8.UTFMax, len(head)+1); n++ {
		if at := len(head) - n; utf8.RuneStart(head[at]) {
			if !utf8.FullRune(head[at:]) {
				head = head[:at]
			}
			break
		}
	}
	for n := 0; n < utf8.UTFMax-1 && len(tail) > 0 && !utf8.RuneStart(tail[0]); n++ {
		tail = tail[1:]
	}
	return utf8.Valid(head) && utf8.Valid(tail)
}

// declaredCharset returns the encoding that a text with tags names in its first lines; empty for none, for UTF-8 and for an
// unknown one.
func (s *sample) declaredCharset() string {
	start := bytes.ToLower(s.head[:min(len(s.head), 2<<10)])
	for _, word := range []string{"charset=", "encoding="} {
		at := bytes.Index(start, []byte(word))
		if at < 0 {
			continue
		}
		value := strings.TrimLeft(string(start[at+len(word):]), `"' `)
		if end := strings.IndexAny(value, "\"' ;>?/\r\n"); end >= 0 {
			value = value[:end]
		}
		e, err := htmlindex.Get(value)
		if err != nil {
			continue
		}
		if name, err := htmlindex.Name(e); err == nil && name != "utf-8" {
			return name
		}
	}
	return ""
}

// detectCharset guesses the encoding of a text with bytes outside ASCII that is not UTF-8. It returns an encoding that can decode
// the text: windows-1252 if no guess can.
func detectCharset(data []byte) string {
	// The detector looks at bytes beyond the length of a slice, if there are some: without the clip, at those of an earlier document.
	data = slices.Clip(data[:min(len(data), maxDetect)])
	for _, guess := range chardet.DetectAll(data) {
		e, err := htmlindex.Get(guess.Encoding)
		if err != nil || guess.Confidence < minConfidence {
			continue
		}
		name, err := htmlindex.Name(e)
		if err != nil || name == "utf-8" || name == "replacement" {
			continue
		}
		if name == "windows-1254" && !slices.ContainsFunc(data, isTurkish) {
			return "windows-1252"
		}
		if _, err := Decode(name, trimPartial(data)); err == nil {
			return name
		}
	}
	return "windows-1252"
}

// isTurkish reports whether a byte is one of the six letters by which windows-1254 differs from windows-1252.
func isTurkish(c byte) bool { return strings.IndexByte("\xd0\xdd\xde\xf0\xfd\xfe", c) >= 0 }

// trimPartial cuts the last character, which may be half of one.
func trimPartial(data []byte) []byte {
	if len(data) < maxDetect {
		return data
	}
	for n := 1; n < 8; n++ {
		if data[len(data)-n] < utf8.RuneSelf {
			return data[:len(data)-n]
		}
	}
	return data
}

// Decode returns the text as UTF-8, without a byte order mark. It fails if a byte has no meaning in the encoding, one that a
// [Report] names: such a text is in another encoding.
func Decode(charset string, text []byte) ([]byte, error) {
	var e encoding.Encoding
	switch charset {
	case "utf-16le":
		e = unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
		if !bytes.HasPrefix(text, []byte("\xff\xfe")) {
			e = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
		}
	case "utf-16be":
		e = unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
		if !bytes.HasPrefix(text, []byte("\xfe\xff")) {
			e = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
		}
	case "utf-32le":
		e = utf32.UTF32(utf32.LittleEndian, utf32.UseBOM)
	case "utf-32be":
		e = utf32.UTF32(utf32.BigEndian, utf32.UseBOM)
	default:
		var err error
		if e, err = htmlindex.Get(charset); err != nil {
			return nil, fmt.Errorf("decode %s: %w", charset, err)
		}
	}
	out, err := e.NewDecoder().Bytes(text)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", charset, err)
	}
	if bytes.ContainsRune(out, utf8.RuneError) {
		return nil, fmt.Errorf("decode %s: a byte has no meaning in it", charset)
	}
	return out, nil
}
