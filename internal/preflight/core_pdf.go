package preflight

import (
	"bytes"
	"compress/zlib"
	"io"
	"slices"
)

const (
	// maxPDFObjects is the most entries of the cross-reference tables of a PDF.
	maxPDFObjects = 500_000
	// maxPDFSections is the most saves that a PDF keeps.
	maxPDFSections = 1000
)

// maxPDFInflate is the most bytes that the compressed objects of a PDF may have.
func maxPDFInflate(size int) int64 { return min(MaxCore, int64(size)*16+1<<20) }

// pdfCore writes the objects that a reader reaches from the catalog to the hash, numbered in the order in which they are reached, so
// that neither their numbers nor their places count. The contents of streams are compared as they are stored. It returns false for
// whatever readers repair, or read in different ways.
func pdfCore(data []byte, h coreHash) bool {
	f := pdfFile{data: data, inflate: maxPDFInflate(len(data)), entries: map[int]pdfEntry{}, containers: map[int]*pdfContainer{}}
	if !bytes.HasPrefix(data, []byte(magicPDF)) || !f.readTables() {
		return false
	}
	w := pdfWriter{pdfFile: &f, out: h, numbers: map[int]int{}}
	if !w.ref(f.root) {
		return false
	}
	for i := 0; i < len(w.queue); i++ {
		object, ok := f.object(w.queue[i])
		if !ok || !w.object(object) {
			return false
		}
	}
	return true
}

// A pdfEntry is the place of an object.
type pdfEntry struct {
	kind       byte // 0 free, 1 in the file, 2 in a stream of objects
	at         int  // the offset; of kind 2, the number of the stream
	generation int  // of kind 2, the position in the stream
}

// A pdfFile resolves the objects of a PDF.
type pdfFile struct {
	data       []byte
	entries    map[int]pdfEntry
	root       pdfRef
	size       int   // one more than the highest number of an object
	inflate    int64 // how many bytes may still be inflated
	containers map[int]*pdfContainer
}

// A pdfContainer is a stream of objects.
type pdfContainer struct {
	data    []byte
	numbers []int
	offsets []int
}

// readTables reads the cross-reference tables, from the last save back to the first.
func (f *pdfFile) readTables() bool {
	end := bytes.TrimRight(f.data, pdfSpace)
	at := bytes.LastIndex(end, []byte("startxref"))
	if at < 0 || !bytes.HasSuffix(end, []byte("%%EOF")) {
		return false
	}
	p := pdfParser{data: end, at: at + len("startxref")}
	next, ok := p.integer()
	p.space()
	if !ok || p.at != len(end) { // the end mark is a comment
		return false
	}
	seen := map[int]bool{}
	for first := true; next >= 0; first = false {
		if seen[next] || len(seen) == maxPDFSections {
			return false
		}
		seen[next] = true
		trailer, ok := f.readTable(next)
		if !ok || trailer["Encrypt"] != nil || trailer["XRefStm"] != nil {
			return false
		}
		total, _ := trailer["Size"].(pdfNumberToken)
		size, ok := total.integer()
		if !ok {
			return false
		}
		if first {
			f.root, ok = trailer["Root"].(pdfRef)
			if f.size = size; !ok {
				return false
			}
		}
		next = -1
		if previous := trailer["Prev"]; previous != nil {
			number, _ := previous.(pdfNumberToken)
			if next, ok = number.integer(); !ok {
				return false
			}
		}
	}
	for number := range f.entries {
		if number >= f.size {
			return false
		}
	}
	return true
}

// add adds an entry. A later save has come before.
func (f *pdfFile) add(number int, e pdfEntry) bool {
	if _, known := f.entries[number]; !known {
		f.entries[number] = e
	}
	return len(f.entries) <= maxPDFObjects
}

// readTable reads one table, or a stream with one, and returns its trailer.
func (f *pdfFile) readTable(at int) (trailer pdfDict, ok bool) {
	if at > len(f.data) {
		return nil, false
	}
	p := pdfParser{data: f.data, at: at}
	if !p.keyword("xref") {
		return f.readTableStream(at)
	}
	own := map[int]bool{}
	for !p.keyword("trailer") {
		first, ok1 := p.integer()
		count, ok2 := p.integer()
		if !ok1 || !ok2 || count > maxPDFObjects || first > maxPDFObjects {
			return nil, false
		}
		for i := range count {
			offset, ok1 := p.integer()
			generation, ok2 := p.integer()
			free := p.keyword("f")
			if !ok1 || !ok2 || !free && !p.keyword("n") || own[first+i] {
				return nil, false
			}
			own[first+i] = true
			e := pdfEntry{kind: 1, at: offset, generation: generation}
			if free {
				e = pdfEntry{}
			}
			if !f.add(first+i, e) {
				return nil, false
			}
		}
	}
	value, ok := p.value(0)
	trailer, isDict := value.(pdfDict)
	return trailer, ok && isDict
}

// readTableStream reads a table that is a stream.
func (f *pdfFile) readTableStream(at int) (trailer pdfDict, ok bool) {
	s, ok := f.objectAt(at, nil)
	stream, isStream := s.(pdfStream)
	if !ok || !isStream || stream.dict["Type"] != pdfName("XRef") {
		return nil, false
	}
	table, ok := f.decode(stream)
	widths, isArray := stream.dict["W"].(pdfArray)
	if !ok || !isArray || len(widths) != 3 {
		return nil, false
	}
	var w [3]int
	for i := range widths {
		if w[i], ok = widths.integer(i); !ok || w[i] > 7 {
			return nil, false
		}
	}
	index, isArray := stream.dict["Index"].(pdfArray)
	if !isArray {
		index = pdfArray{pdfNumberToken("0"), stream.dict["Size"]}
	}
	return stream.dict, f.addEntries(table, w, index)
}

// addEntries adds the entries of a table whose fields have these widths. index has the first number and the count of each part.
func (f *pdfFile) addEntries(table []byte, widths [3]int, index pdfArray) bool {
	own := map[int]bool{}
	width := widths[0] + widths[1] + widths[2]
	for i := 0; i+1 < len(index); i += 2 {
		first, ok1 := index.integer(i)
		n, ok2 := index.integer(i + 1)
		if !ok1 || !ok2 || first > maxPDFObjects || width == 0 || n > len(table)/width {
			return false
		}
		for number := first; number < first+n; number++ {
			e := tableEntry(table, widths)
			if table = table[width:]; own[number] || e.kind > 2 || e.at < 0 || !f.add(number, e) {
				return false
			}
			own[number] = true
		}
	}
	return len(table) == 0 && len(index)%2 == 0
}

// tableEntry reads the first entry of a stream of entries, whose fields have these widths.
func tableEntry(table []byte, widths [3]int) pdfEntry {
	fields := [3]int{1, 0, 0}
	for i, n := range widths {
		if n > 0 {
			fields[i] = 0
		}
		for range n {
			fields[i] = fields[i]<<8 | int(table[0])
			table = table[1:]
		}
	}
	e := pdfEntry{at: fields[1], generation: fields[2], kind: 3}
	switch fields[0] {
	case 0:
		e = pdfEntry{}
	case 1, 2:
		e.kind = byte(fields[0])
	}
	return e
}

// object returns an object; nil for one that the file does not have.
func (f *pdfFile) object(ref pdfRef) (object any, ok bool) {
	e := f.entries[ref.number]
	switch e.kind {
	case 1:
		if e.generation != ref.generation {
			return nil, false // readers disagree
		}
		return f.objectAt(e.at, &ref)
	case 2:
		if ref.generation != 0 {
			return nil, false
		}
		return f.contained(ref.number, e)
	}
	return nil, true
}

// objectAt reads the object at an offset. It must be ref, if that is not nil.
func (f *pdfFile) objectAt(at int, ref *pdfRef) (object any, ok bool) {
	if at >= len(f.data) {
		return nil, false
	}
	p := pdfParser{data: f.data, at: at}
	number, ok1 := p.integer()
	generation, ok2 := p.integer()
	if !ok1 || !ok2 || !p.keyword("obj") || ref != nil && *ref != (pdfRef{number, generation}) {
		return nil, false
	}
	value, ok := p.value(0)
	if !ok {
		return nil, false
	}
	dict, isDict := value.(pdfDict)
	if isDict && p.keyword("stream") {
		content, ok := f.streamContent(&p, dict)
		return pdfStream{dict, content}, ok
	}
	return value, p.keyword("endobj")
}

// streamContent reads the bytes of a stream, after its keyword.
func (f *pdfFile) streamContent(p *pdfParser, dict pdfDict) ([]byte, bool) {
	rest := p.data[p.at:]
	switch {
	case bytes.HasPrefix(rest, []byte("\r\n")):
		p.at += 2
	case bytes.HasPrefix(rest, []byte("\n")):
		p.at++
	default:
		return nil, false
	}
	length := dict["Length"]
	if ref, isRef := length.(pdfRef); isRef {
		var ok bool
		// The tables and the streams of objects are needed to find other objects.
		direct := f.entries[ref.number].kind == 1 && dict["Type"] != pdfName("XRef")
		if !direct && (dict["Type"] == pdfName("XRef") || dict["Type"] == pdfName("ObjStm")) || direct && !pdfIsNumber(f.data, f.entries[ref.number].at) {
			return nil, false
		}
		if length, ok = f.object(ref); !ok {
			return nil, false
		}
	}
	number, _ := length.(pdfNumberToken)
	n, ok := number.integer()
	if !ok || n > len(p.data)-p.at || dict["F"] != nil {
		return nil, false
	}
	content := p.data[p.at : p.at+n]
	p.at += n
	p.at += run(p.data[p.at:min(p.at+2, len(p.data))], "\r\n")
	return content, bytes.HasPrefix(p.data[p.at:], []byte("endstream")) && p.keyword("endstream") && p.keyword("endobj")
}

// pdfIsNumber reports whether the object at an offset is a number.
func pdfIsNumber(data []byte, at int) bool {
	if at >= len(data) {
		return false
	}
	p := pdfParser{data: data, at: at}
	_, ok1 := p.integer()
	_, ok2 := p.integer()
	if !ok1 || !ok2 || !p.keyword("obj") {
		return false
	}
	_, ok := p.integer()
	return ok
}

// contained reads an object in a stream of objects.
func (f *pdfFile) contained(number int, e pdfEntry) (object any, ok bool) {
	c, known := f.containers[e.at]
	if !known {
		f.containers[e.at] = nil // it cannot be in itself
		if c, ok = f.readContainer(e.at); !ok {
			return nil, false
		}
		f.containers[e.at] = c
	}
	if c == nil || e.generation >= len(c.numbers) || c.numbers[e.generation] != number {
		return nil, false
	}
	p := pdfParser{data: c.data, at: c.offsets[e.generation]}
	value, ok := p.value(0)
	if _, isRef := value.(pdfRef); isRef {
		return nil, false
	}
	return value, ok
}

func (f *pdfFile) readContainer(number int) (*pdfContainer, bool) {
	e := f.entries[number]
	if e.kind != 1 || e.generation != 0 {
		return nil, false
	}
	object, ok := f.objectAt(e.at, &pdfRef{number, 0})
	stream, isStream := object.(pdfStream)
	if !ok || !isStream || stream.dict["Type"] != pdfName("ObjStm") {
		return nil, false
	}
	data, ok := f.decode(stream)
	if !ok {
		return nil, false
	}
	count, _ := stream.dict["N"].(pdfNumberToken)
	first, _ := stream.dict["First"].(pdfNumberToken)
	n, ok1 := count.integer()
	begin, ok2 := first.integer()
	if !ok1 || !ok2 || begin > len(data) || n > begin {
		return nil, false
	}
	c := &pdfContainer{data: data}
	p := pdfParser{data: data[:begin]}
	own := map[int]bool{}
	for range n {
		number, ok1 := p.integer()
		offset, ok2 := p.integer()
		if !ok1 || !ok2 || offset >= len(data)-begin || own[number] {
			return nil, false
		}
		own[number] = true
		c.numbers, c.offsets = append(c.numbers, number), append(c.offsets, begin+offset)
	}
	return c, true
}

// decode returns the content of a stream of objects or entries.
func (f *pdfFile) decode(s pdfStream) ([]byte, bool) {
	filter := s.dict["Filter"]
	if list, isArray := filter.(pdfArray); isArray && len(list) == 1 {
		filter = list[0]
	}
	parameters := s.dict["DecodeParms"]
	if list, isArray := parameters.(pdfArray); isArray && len(list) == 1 {
		parameters = list[0]
	}
	switch {
	case filter == nil && parameters == nil:
		return s.content, true
	case filter != any(pdfName("FlateDecode")):
		return nil, false
	}
	z, err := zlib.NewReader(bytes.NewReader(s.content))
	if err != nil {
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(z, f.inflate+1))
	if f.inflate -= int64(len(data)); err != nil || f.inflate < 0 {
		return nil, false
	}
	if parameters == nil {
		return data, true
	}
	dict, ok := parameters.(pdfDict)
	if !ok {
		return nil, false
	}
	return unpredict(data, dict)
}

// unpredict undoes the prediction of a PNG, which the tables of most programs have.
func unpredict(data []byte, parameters pdfDict) ([]byte, bool) {
	number := func(key string, otherwise int) int {
		if parameters[key] == nil {
			return otherwise
		}
		token, _ := parameters[key].(pdfNumberToken)
		n, ok := token.integer()
		if !ok {
			return -1
		}
		return n
	}
	predictor, columns := number("Predictor", 1), number("Columns", 1)
	switch {
	case predictor == 1:
		return data, true
	case predictor < 10 || predictor > 15 || columns < 1 || columns > 100 || number("Colors", 1) != 1 || number("BitsPerComponent", 8) != 8 ||
		len(data)%(columns+1) != 0:
		return nil, false
	}
	out := make([]byte, 0, len(data))
	above := make([]byte, columns)
	for ; len(data) > 0; data = data[columns+1:] {
		row := slices.Clone(data[1 : columns+1])
		for i := range row {
			switch data[0] {
			case 0:
			case 1:
				if i > 0 {
					row[i] += row[i-1]
				}
			case 2:
				row[i] += above[i]
			default: // no known program uses them for tables
				return nil, false
			}
		}
		out = append(out, row...)
		above = row
	}
	return out, true
}
