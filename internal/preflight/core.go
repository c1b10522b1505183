package preflight

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

const (
	// MaxCore is the size in bytes up to which a document has a core.
	MaxCore = 32 << 20
	// maxCoreMembers and maxCoreBytes bound the ZIP of an office document: its members, and their bytes in all.
	maxCoreMembers = 10_000
	maxCoreBytes   = 100 << 20
)

// HasCore reports whether a document of this name and size can have a core.
func HasCore(name string, size int64) bool {
	if size > MaxCore {
		return false
	}
	switch kindOf(name).family {
	case familyPDF, familyOffice, familyOpenDocument:
		return true
	}
	return false
}

// Core returns the SHA-256 of what a reader sees of an office document or a PDF: two contents with the same core differ only in
// metadata, such as their author and the times of their saves, or in the way in which their container stores the same parts. ok is
// false for other formats, and for every content that Core cannot read with certainty: such a content has no core. docs/documents.md
// lists what does not count.
func Core(name string, content []byte) (core [sha256.Size]byte, ok bool) {
	if !HasCore(name, int64(len(content))) {
		return core, false
	}
	h := coreHash{sha256.New()}
	switch kindOf(name).family {
	case familyPDF:
		h.text("kbsync core of a PDF, 1")
		ok = pdfCore(content, h)
	case familyOffice:
		h.text("kbsync core of an Office document, 1")
		ok = zipCore(content, h, officeParts{})
	case familyOpenDocument:
		h.text("kbsync core of an OpenDocument file, 1")
		ok = zipCore(content, h, openDocumentParts{})
	}
	if ok {
		h.Sum(core[:0])
	}
	return core, ok
}

// A coreHash hashes parts so that no two lists of parts have the same bytes.
type coreHash struct{ hash.Hash }

func (h coreHash) number(n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	_, _ = h.Write(b[:]) // never fails
}

func (h coreHash) bytes(b []byte) {
	h.number(len(b))
	_, _ = h.Write(b)
}

func (h coreHash) text(s string) { h.bytes([]byte(s)) }
