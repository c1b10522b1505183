package preflight

import (
	"bytes"
	"compress/zlib"
	"io"
	"strconv"
)

const (
	// pdfStart is where the header of a PDF may be: readers skip what is before it.
	pdfStart = 1 << 10
	// maxInflate is the most bytes that pdfHasText takes from compressed objects.
	maxInflate = 4 << 20
)

// pdf looks at a document whose name says that it is a PDF. Readers repair much damage, so only a PDF without any end counts as
// cut off.
func (s *sample) pdf(r *Report) {
	at := bytes.Index(s.head[:min(len(s.head), pdfStart)], []byte(magicPDF))
	switch {
	case at < 0:
		s.other(kindOf(s.name), r)
		return
	case s.pdfCut(at):
		r.block("is cut off: the end of the PDF is missing")
		return
	}
	encryption := s.pdfEncryption()
	switch encryption {
	case pdfLocked:
		r.block("is protected by a password")
	case pdfUnknown:
		r.warn("may be protected by a password")
	case pdfPlain:
		if s.whole && !pdfHasText(s.head) {
			r.warn("seems to have no text, like a scan without text recognition")
		}
	}
}

// pdfCut reports whether the end of a PDF is missing. A PDF made for the web has the end mark of its first page near its
// beginning, and its length there.
func (s *sample) pdfCut(start int) bool {
	if length, ok := linearizedLength(s.head[start:min(len(s.head), start+pdfStart)]); ok && s.size-int64(start) < length {
		return true
	}
	return !bytes.Contains(s.tail, []byte("%%EOF")) && !bytes.Contains(s.tail, []byte("startxref"))
}

// linearizedLength returns the length that the first object of a PDF made for the web names.
func linearizedLength(head []byte) (int64, bool) {
	at := bytes.Index(head, []byte("/Linearized"))
	if at < 0 {
		return 0, false
	}
	dict := head[at:]
	if end := bytes.Index(dict, []byte(">>")); end >= 0 {
		dict = dict[:end]
	}
	return pdfNumber(dict, "/L")
}

// pdfNumber returns the number after a key in a dictionary.
func pdfNumber(dict []byte, key string) (int64, bool) {
	value := pdfValue(dict, key)
	n := run(value, "-0123456789")
	number, err := strconv.ParseInt(string(value[:n]), 10, 64)
	return number, err == nil
}

// pdfValue returns the bytes that follow a key in a dictionary, without white space; nil if it does not have the key.
func pdfValue(dict []byte, key string) []byte {
	for {
		at := bytes.Index(dict, []byte(key))
		if at < 0 {
			return nil
		}
		dict = dict[at+len(key):]
		if len(dict) == 0 || run(dict[:1], alnum+"-_.") == 0 { // another key may begin alike
			return bytes.TrimLeft(dict, pdfSpace)
		}
	}
}

const pdfSpace = " \t\r\n\f\x00"

// pdfHasText reports whether a PDF has a font, in an object or in a compressed one. A page without a font has no text.
func pdfHasText(data []byte) bool {
	if bytes.Contains(data, []byte("/Font")) {
		return true
	}
	left := int64(maxInflate)
	for left > 0 {
		at := bytes.Index(data, []byte("/ObjStm"))
		if at < 0 {
			return false
		}
		data = data[at:]
		begin := bytes.Index(data, []byte("stream"))
		if begin < 0 {
			return false
		}
		data = bytes.TrimLeft(data[begin+len("stream"):], "\r\n")
		z, err := zlib.NewReader(bytes.NewReader(data))
		if err != nil {
			return true // compressed in another way
		}
		objects, err := io.ReadAll(io.LimitReader(z, left))
		if len(objects) == 0 && err != nil || bytes.Contains(objects, []byte("/Font")) {
			return true
		}
		left -= int64(len(objects))
	}
	return true
}
