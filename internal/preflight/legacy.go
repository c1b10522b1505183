package preflight

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
)

// legacy looks at a document whose name says that it was written by Office before 2007. Office itself writes RTF and web pages
// under these names, and opens its newer formats under them.
func (s *sample) legacy(k kind, r *Report) {
	switch {
	case bytes.HasPrefix(s.head, []byte(magicOLE)):
		if s.legacyEncrypted() {
			r.block("is protected by a password")
		}
	case bytes.HasPrefix(s.head, []byte(magicRTF)):
	case bytes.HasPrefix(s.head, []byte(magicZIP)):
		r.warn("is in a newer format than its ending says")
	case s.magic() == "" && !s.isHTML() && !s.isBinary():
		r.warn("is plain text, not %s", k.name)
	default:
		s.other(k, r)
	}
}

// legacyEncrypted reports whether an OLE container is encrypted. Each program marks that in its own way: PowerPoint by a stream,
// Word in the header of its stream, Excel by a record after the first one. The two streams usually are the first sector.
func (s *sample) legacyEncrypted() bool {
	if s.oleHas("EncryptedPackage") || s.oleHas("EncryptedSummary") {
		return true
	}
	first := s.content.part(512, 64)
	if len(first) < 64 {
		return false
	}
	switch binary.LittleEndian.Uint16(first) {
	case 0xa5ec: // Word's header; bit 8 of its flags
		return binary.LittleEndian.Uint16(first[10:])&0x0100 != 0
	case 0x0809: // Excel's first record, with its length
		next := 4 + int(binary.LittleEndian.Uint16(first[2:]))
		return next+2 <= len(first) && binary.LittleEndian.Uint16(first[next:]) == 0x002f
	}
	return false
}

// oleHas reports whether the directory of an OLE container seems to have a stream of that name.
func (s *sample) oleHas(stream string) bool {
	var name []byte
	for _, unit := range utf16.Encode([]rune(stream)) {
		name = binary.LittleEndian.AppendUint16(name, unit)
	}
	if bytes.Contains(s.head, name) || bytes.Contains(s.tail, name) {
		return true
	}
	if len(s.head) < 52 {
		return false
	}
	shift := binary.LittleEndian.Uint16(s.head[30:])
	if shift != 9 && shift != 12 {
		return false
	}
	sector := int64(binary.LittleEndian.Uint32(s.head[48:]))
	return bytes.Contains(s.content.part((sector+1)<<shift, 4<<10), name)
}
