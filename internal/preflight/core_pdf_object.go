package preflight

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The values of a PDF. A value that is none of these is nil, the null of a PDF.
type (
	pdfName        string
	pdfText        string
	pdfNumberToken string // as it is written
	pdfBool        bool
	pdfArray       []any
	pdfDict        map[string]any
	pdfRef         struct{ number, generation int }
	pdfStream      struct {
		dict    pdfDict
		content []byte
	}
)

// maxPDFDepth is how deep a value may be nested.
const maxPDFDepth = 100

// integer returns the number, if it is an integer of at most nine digits and not negative.
func (n pdfNumberToken) integer() (int, bool) {
	if len(n) == 0 || len(n) > 10 || strings.Trim(string(n), "0123456789") != "" {
		return 0, false
	}
	number, err := strconv.Atoi(string(n))
	return number, err == nil && number <= 1<<30
}

// integer returns the number at a position, as that of pdfNumberToken does.
func (a pdfArray) integer(i int) (int, bool) {
	n, _ := a[i].(pdfNumberToken)
	return n.integer()
}

// A pdfParser reads values.
type pdfParser struct {
	data []byte
	at   int
}

const pdfDelimiters = "()<>[]{}/%"

// space skips white space and comments.
func (p *pdfParser) space() {
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case strings.IndexByte(pdfSpace, c) >= 0:
			p.at++
		case c == '%':
			if end := bytes.IndexAny(p.data[p.at:], "\r\n"); end >= 0 {
				p.at += end
			} else {
				p.at = len(p.data)
			}
		default:
			return
		}
	}
}

// word returns the regular characters that follow.
func (p *pdfParser) word() []byte {
	start := p.at
	for p.at < len(p.data) && strings.IndexByte(pdfSpace+pdfDelimiters, p.data[p.at]) < 0 {
		p.at++
	}
	return p.data[start:p.at]
}

// keyword skips a word, if it follows.
func (p *pdfParser) keyword(word string) bool {
	q := *p
	q.space()
	if string(q.word()) != word {
		return false
	}
	*p = q
	return true
}

// integer reads a number that is an integer.
func (p *pdfParser) integer() (int, bool) {
	p.space()
	return pdfNumberToken(p.word()).integer()
}

// value reads a value.
func (p *pdfParser) value(depth int) (value any, ok bool) {
	p.space()
	rest := p.data[p.at:]
	switch {
	case len(rest) == 0 || depth > maxPDFDepth:
		return nil, false
	case rest[0] == '/':
		return p.name()
	case rest[0] == '(':
		return p.literal()
	case bytes.HasPrefix(rest, []byte("<<")):
		return p.dict(depth)
	case rest[0] == '<':
		return p.hexadecimal()
	case rest[0] == '[':
		return p.array(depth)
	}
	switch word := p.word(); string(word) {
	case "true", "false":
		return pdfBool(word[0] == 't'), true
	case "null":
		return nil, true
	default:
		if len(word) == 0 || run(word, "+-.0123456789") != len(word) {
			return nil, false
		}
		return p.reference(pdfNumberToken(word)), true
	}
}

// reference reads the rest of a reference, if the number begins one.
func (p *pdfParser) reference(number pdfNumberToken) any {
	n, ok := number.integer()
	q := *p
	generation, ok2 := q.integer()
	if !ok || !ok2 || !q.keyword("R") {
		return number
	}
	*p = q
	return pdfRef{n, generation}
}

func (p *pdfParser) name() (value any, ok bool) {
	p.at++
	word := p.word()
	if bytes.IndexByte(word, '#') < 0 {
		return pdfName(word), true
	}
	var name []byte
	for len(word) > 0 {
		c := word[0]
		if word = word[1:]; c == '#' {
			if len(word) < 2 {
				return nil, false
			}
			code, err := strconv.ParseUint(string(word[:2]), 16, 8)
			if err != nil || code == 0 {
				return nil, false
			}
			c, word = byte(code), word[2:]
		}
		name = append(name, c)
	}
	return pdfName(name), true
}

// literal reads a string in parentheses.
func (p *pdfParser) literal() (value any, ok bool) {
	var out []byte
	depth := 0
	for p.at < len(p.data) {
		c := p.data[p.at]
		p.at++
		switch c {
		case '(':
			if depth++; depth == 1 {
				continue
			}
		case ')':
			if depth--; depth == 0 {
				return pdfText(out), true
			}
		case '\r':
			if p.at < len(p.data) && p.data[p.at] == '\n' {
				p.at++
			}
			c = '\n'
		case '\\':
			out = p.escape(out)
			continue
		}
		out = append(out, c)
	}
	return nil, false
}

// escape reads an escape after its backslash.
func (p *pdfParser) escape(out []byte) []byte {
	if p.at == len(p.data) {
		return out
	}
	c := p.data[p.at]
	p.at++
	switch c {
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case '\n':
		return out
	case '\r':
		if p.at < len(p.data) && p.data[p.at] == '\n' {
			p.at++
		}
		return out
	case '0', '1', '2', '3', '4', '5', '6', '7':
		code := int(c - '0')
		for range 2 {
			if p.at == len(p.data) || p.data[p.at] < '0' || p.data[p.at] > '7' {
				break
			}
			code = code<<3 | int(p.data[p.at]-'0')
			p.at++
		}
		return append(out, byte(code))
	}
	return append(out, c)
}

func (p *pdfParser) hexadecimal() (value any, ok bool) {
	p.at++
	var out []byte
	digits, code := 0, 0
	for p.at < len(p.data) {
		c := p.data[p.at]
		p.at++
		switch digit := strings.IndexByte("0123456789abcdef", c|0x20); {
		case c == '>':
			if digits%2 == 1 {
				out = append(out, byte(code<<4))
			}
			return pdfText(out), true
		case strings.IndexByte(pdfSpace, c) >= 0:
		case digit < 0 || c < '0':
			return nil, false
		default:
			if digits++; digits%2 == 1 {
				code = digit
			} else {
				out = append(out, byte(code<<4|digit))
			}
		}
	}
	return nil, false
}

func (p *pdfParser) array(depth int) (value any, ok bool) {
	p.at++
	list := pdfArray{}
	for {
		p.space()
		if p.at < len(p.data) && p.data[p.at] == ']' {
			p.at++
			return list, true
		}
		item, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		list = append(list, item)
	}
}

// dict reads a dictionary. Readers disagree on one that has a key twice.
func (p *pdfParser) dict(depth int) (value any, ok bool) {
	p.at += 2
	dict := pdfDict{}
	for {
		p.space()
		if bytes.HasPrefix(p.data[p.at:], []byte(">>")) {
			p.at += 2
			return dict, true
		}
		if p.at == len(p.data) || p.data[p.at] != '/' {
			return nil, false
		}
		key, ok := p.name()
		if !ok {
			return nil, false
		}
		name := string(key.(pdfName))
		if _, twice := dict[name]; twice {
			return nil, false
		}
		if dict[name], ok = p.value(depth + 1); !ok {
			return nil, false
		}
	}
}

// A pdfWriter writes objects so that only what they are counts, and not how they are written.
type pdfWriter struct {
	*pdfFile
	out     coreHash
	queue   []pdfRef    // the objects that were reached, in their order
	numbers map[int]int // the positions in queue
}

// ref writes a reference to an object.
func (w *pdfWriter) ref(ref pdfRef) bool {
	if w.entries[ref.number].kind == 0 {
		w.out.text("null")
		return true
	}
	position, known := w.numbers[ref.number]
	if !known {
		position = len(w.queue)
		w.numbers[ref.number] = position
		w.queue = append(w.queue, ref)
	} else if w.queue[position] != ref {
		return false // another generation
	}
	w.out.text("ref")
	w.out.number(position)
	return true
}

func (w *pdfWriter) object(value any) bool {
	switch x := value.(type) {
	case nil:
		w.out.text("null")
	case pdfBool:
		w.out.text("bool" + strconv.FormatBool(bool(x)))
	case pdfName:
		w.out.text("name")
		w.out.text(string(x))
	case pdfText:
		w.out.text("string")
		w.out.text(string(x))
	case pdfNumberToken:
		w.out.text("number")
		w.out.text(string(x))
	case pdfRef:
		return w.ref(x)
	case pdfArray:
		w.out.text("array")
		w.out.number(len(x))
		for _, item := range x {
			if !w.object(item) {
				return false
			}
		}
	case pdfDict:
		return w.dict(x)
	case pdfStream:
		delete(x.dict, "Length")
		w.out.text("stream")
		w.out.bytes(x.content)
		return w.dict(x.dict)
	default:
		return false
	}
	return true
}

// dict writes a dictionary without the metadata of the object, and without the time of a page's last change.
func (w *pdfWriter) dict(dict pdfDict) bool {
	keys := slices.Sorted(maps.Keys(dict))
	keys = slices.DeleteFunc(keys, func(key string) bool {
		_, isString := dict[key].(pdfText)
		return dict[key] == nil || // the same as no entry
			key == "Metadata" && w.isMetadata(dict[key]) ||
			key == "LastModified" && isString && dict["Type"] == pdfName("Page")
	})
	w.out.text("dict")
	w.out.number(len(keys))
	for _, key := range keys {
		w.out.text(key)
		if !w.object(dict[key]) {
			return false
		}
	}
	return true
}

// isMetadata reports whether a value refers to a stream of XMP metadata. No reader shows such a stream as anything else.
func (w *pdfWriter) isMetadata(value any) bool {
	ref, ok := value.(pdfRef)
	if !ok {
		return false
	}
	object, ok := w.pdfFile.object(ref)
	stream, isStream := object.(pdfStream)
	return ok && isStream && stream.dict["Type"] == pdfName("Metadata") && stream.dict["Subtype"] == pdfName("XML")
}
