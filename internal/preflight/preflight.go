// Package preflight looks at a document before it is sent: at its name, its beginning and its end. An upload is permanent, so a
// document that can never train, such as a cut PDF or a Git LFS pointer, must be found before its first byte leaves.
//
// The detectors are pure functions of the name and the content. A finding of the level [Block] is certain: no program can read
// the document as what its name says. Everything else is at most a [Warn], because a needless block hides a good document.
//
// Core is another look: it shows whether a document was only saved again, with nothing changed that a reader sees.
//
// A detector of [Look] reads documents of up to 1 MiB whole, and of a larger one only the beginning, the end and, for a ZIP or a PDF, the
// directory that the end names.
package preflight

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A Level is how certain a finding is.
type Level uint8

// The levels.
const (
	Warn  Level = iota // the document may train badly, or should perhaps not be sent
	Block              // the document can never train, or is a credential
)

// A Topic is what a finding is about. Options decide on each topic.
type Topic uint8

// The topics.
const (
	Format  Topic = iota // what the document is
	Charset              // the encoding of a text
	Secret               // a password, a token or a key in the content
)

// A Finding is one observation. Text goes on after the words "the document", such as "is a web page (HTML), not a PDF".
type Finding struct {
	Level Level
	Topic Topic
	Text  string
}

// A Report is what the detectors found.
type Report struct {
	Findings []Finding
	// Charset is the encoding of a text that is not UTF-8, for [Decode]; empty for UTF-8, for other formats, and for a page that
	// names its encoding. The encoding of a text of more than [Whole] bytes is a guess from its beginning and its end.
	Charset string
}

const (
	// Whole is the size in bytes up to which the detectors look at the whole content.
	Whole = 1 << 20
	// edge is how many bytes of the beginning and of the end they look at otherwise. The directory of a ZIP ends at most 65,557
	// bytes before the end.
	edge = 66 << 10
)

// Look reports on a content of size bytes. The name is the document's key. An error is one of reading.
func Look(name string, size int64, content io.ReaderAt) (Report, error) {
	if size <= Whole {
		data := make([]byte, size)
		if _, err := readAt(content, data, 0); err != nil {
			return Report{}, err
		}
		return LookWhole(name, data), nil
	}
	s := sample{name: name, size: size, head: make([]byte, edge), tail: make([]byte, edge)}
	if _, err := readAt(content, s.head, 0); err != nil {
		return Report{}, err
	}
	if _, err := readAt(content, s.tail, size-edge); err != nil {
		return Report{}, err
	}
	s.content = &window{sample: &s, content: content}
	report := s.look()
	return report, s.content.err
}

// LookWhole reports on a content that is in memory.
func LookWhole(name string, data []byte) Report {
	s := sample{name: name, size: int64(len(data)), head: data, tail: data, whole: true}
	if s.size > Whole {
		s.tail = data[s.size-edge:] // the end of a cut PDF must not be found in its middle
	}
	s.content = &window{sample: &s}
	return s.look()
}

// readAt fills p with the bytes at an offset.
func readAt(content io.ReaderAt, p []byte, offset int64) (int, error) {
	n, err := content.ReadAt(p, offset)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("look at the content: %w", err)
}

// A sample is the part of a document that the detectors see.
type sample struct {
	name       string
	size       int64
	head, tail []byte // head has the whole content if whole is set
	whole      bool
	content    *window
}

// A window reads a content, the cached parts of it from memory. It keeps the first error of the content.
type window struct {
	*sample
	content io.ReaderAt // nil if the sample is whole
	err     error
}

// ReadAt reads len(p) bytes at an offset.
func (w *window) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset >= w.size {
		return 0, io.EOF
	}
	end := offset + int64(len(p))
	switch {
	case end <= int64(len(w.head)):
		return copy(p, w.head[offset:]), nil
	case w.whole:
		return copy(p, w.head[offset:]), io.EOF
	case offset >= w.size-int64(len(w.tail)):
		n := copy(p, w.tail[offset-(w.size-int64(len(w.tail))):])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	case w.err != nil:
		return 0, w.err
	}
	n, err := w.content.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = fmt.Errorf("look at the content: %w", err)
	}
	return n, err
}

// part returns up to n bytes at an offset; fewer at the end of the content, or after an error of reading.
func (w *window) part(offset int64, n int) []byte {
	if offset < 0 || offset >= w.size {
		return nil
	}
	p := make([]byte, min(int64(n), w.size-offset))
	read, _ := w.ReadAt(p, offset) // ReadAt keeps the error
	return p[:read]
}

// look runs the detectors. The first certain finding ends it.
func (s *sample) look() Report {
	var r Report
	for _, detect := range []func(*sample, *Report){
		(*sample).placeholder,
		(*sample).blank,
		(*sample).pointer,
		(*sample).format,
		(*sample).secret,
	} {
		detect(s, &r)
		if n := len(r.Findings); n > 0 && r.Findings[n-1].Level == Block {
			return r
		}
	}
	return r
}

func (r *Report) add(level Level, topic Topic, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{level, topic, fmt.Sprintf(format, args...)})
}

func (r *Report) block(format string, args ...any) { r.add(Block, Format, format, args...) }
func (r *Report) warn(format string, args ...any)  { r.add(Warn, Format, format, args...) }

// blank finds documents of white space or zeros only.
func (s *sample) blank(r *Report) {
	data := bytes.TrimPrefix(s.head, []byte("\xef\xbb\xbf"))
	spaces, zeros := false, false
	for _, c := range data {
		switch c {
		case 0:
			zeros = true
		case ' ', '\t', '\n', '\r', '\v', '\f':
			spaces = true
		default:
			return
		}
	}
	switch {
	case s.whole && zeros && !spaces:
		r.block("has only zero bytes")
	case s.whole && zeros:
		r.block("has only white space and zero bytes")
	case s.whole && len(s.head) > 0:
		r.block("has only white space")
	case !s.whole && zeros && !spaces && bytes.Count(s.tail, []byte{0}) == len(s.tail):
		if kindOf(s.name).family != familyOther {
			r.block("has only zero bytes at its beginning and its end")
		}
	}
}
