package emulator

import (
	"bytes"
	"encoding/binary"
	"path"
	"strings"
	"unicode/utf8"
)

// inspection checks a streamed content for a format that training can read. It keeps
// only the beginning and the end of the content.
type inspection struct {
	ext   string
	head  []byte // the first bytes, at most headSize
	tail  []byte // the last bytes: at least tailSize, or the whole content
	zeros bool   // whether the content has a NUL byte
	size  int64
}

const (
	headSize = 4 << 10
	tailSize = 4 << 10
)

func (in *inspection) reset(name string) {
	*in = inspection{ext: strings.ToLower(path.Ext(name)), head: in.head[:0], tail: in.tail[:0]}
}

func (in *inspection) add(chunk []byte) {
	in.size += int64(len(chunk))
	if room := headSize - len(in.head); room > 0 {
		in.head = append(in.head, chunk[:min(room, len(chunk))]...)
	}
	if !in.zeros {
		in.zeros = bytes.IndexByte(chunk, 0) >= 0
	}
	if len(chunk) >= tailSize {
		in.tail = append(in.tail[:0], chunk[len(chunk)-tailSize:]...)
		return
	}
	in.tail = append(in.tail, chunk...)
	if len(in.tail) > 8*tailSize {
		in.tail = append(in.tail[:0], in.tail[len(in.tail)-tailSize:]...)
	}
}

// failure returns the reason why training cannot read the content, empty if it can.
func (in *inspection) failure(size int64) string {
	if size == 0 {
		return "The file is empty"
	}
	switch in.ext {
	case ".pdf":
		if !bytes.Contains(in.head[:min(len(in.head), 1024)], []byte("%PDF-")) {
			return "The file is not a PDF"
		}
		if !bytes.Contains(in.tail, []byte("%%EOF")) {
			return "The PDF is invalid or incomplete"
		}
	case ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".zip":
		if !bytes.HasPrefix(in.head, []byte("PK\x03\x04")) || !in.zipEnds() {
			return "The file is not a " + in.ext[1:] + " or is incomplete"
		}
	case ".doc", ".xls", ".ppt":
		if !bytes.HasPrefix(in.head, []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")) && !bytes.HasPrefix(in.head, []byte(`{\rtf`)) {
			return "The file is not a " + in.ext[1:]
		}
	case ".rtf":
		if !bytes.HasPrefix(in.head, []byte(`{\rtf`)) {
			return "The file is not an RTF"
		}
	default:
		if !in.isText() {
			return "The file is not text"
		}
		if size <= headSize && len(bytes.TrimSpace(in.head)) == 0 {
			return "The file has no text"
		}
	}
	return ""
}

// zipEnds reports whether the content has an end of central directory whose offsets
// match its position.
func (in *inspection) zipEnds() bool {
	at := bytes.LastIndex(in.tail, []byte("PK\x05\x06"))
	if at < 0 || len(in.tail)-at < 22 {
		return false
	}
	end := in.tail[at:]
	length, offset := int64(binary.LittleEndian.Uint32(end[12:])), int64(binary.LittleEndian.Uint32(end[16:]))
	position := in.size - int64(len(in.tail)) + int64(at)
	return offset == 0xffffffff || length+offset <= position
}

// textControls are the control characters that are usual in text.
var textControls = [' ']bool{'\t': true, '\n': true, '\v': true, '\f': true, '\r': true, '\b': true, '\x1b': true}

// isText reports whether the content is text: UTF-8, an older encoding, or UTF-16 with
// a byte order mark.
func (in *inspection) isText() bool {
	if bytes.HasPrefix(in.head, []byte("\xff\xfe")) || bytes.HasPrefix(in.head, []byte("\xfe\xff")) {
		return true
	}
	if in.zeros {
		return false
	}
	odd := 0
	for i := 0; i < len(in.head); {
		c := in.head[i]
		if c < utf8.RuneSelf {
			if c < ' ' && !textControls[c] {
				odd++
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(in.head[i:])
		cut := len(in.head) == headSize && len(in.head)-i < utf8.UTFMax // the head may end within the character
		if r == utf8.RuneError && n == 1 && !cut {
			odd++
		}
		i += n
	}
	return odd*4 <= len(in.head)
}

// finder searches a stream for the contents of refusals, including contents that span
// two chunks.
type finder struct {
	rules []Refusal
	found []bool
	last  []byte // the end of the previous chunks, at most keep bytes
	keep  int
}

func newFinder(rules []Refusal) *finder {
	f := &finder{rules: rules, found: make([]bool, len(rules))}
	for _, r := range rules {
		f.keep = max(f.keep, len(r.Contains)-1)
	}
	f.last = make([]byte, 0, 2*max(f.keep, 0))
	return f
}

func (f *finder) add(chunk []byte) {
	if f.keep <= 0 || len(chunk) == 0 {
		return
	}
	border := append(f.last, chunk[:min(len(chunk), f.keep)]...) // in place
	for i, r := range f.rules {
		if r.Contains != "" && !f.found[i] {
			f.found[i] = bytes.Contains(chunk, []byte(r.Contains)) || bytes.Contains(border, []byte(r.Contains))
		}
	}
	if len(chunk) >= f.keep {
		f.last = append(f.last[:0], chunk[len(chunk)-f.keep:]...)
		return
	}
	f.last = append(f.last[:0], border[max(0, len(border)-f.keep):]...)
}
