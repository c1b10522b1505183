package preflight

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5"
	"crypto/rc4"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"strconv"
)

// A pdfEncryption is what a PDF's encryption means for a program without its password.
type pdfEncryption uint8

const (
	pdfPlain   pdfEncryption = iota // not encrypted
	pdfOpen                         // encrypted with an empty password: anyone can read it
	pdfLocked                       // it cannot be read without the password or the certificate
	pdfUnknown                      // the encryption could not be read
)

// pdfEncryption finds out whether a PDF can be read without a password. Many PDFs are encrypted only to forbid printing or
// editing: their user password is empty.
func (s *sample) pdfEncryption() pdfEncryption {
	for _, trailer := range s.pdfTrailers() {
		value := pdfValue(trailer, "/Encrypt")
		if value == nil {
			continue
		}
		dict := value
		if !bytes.HasPrefix(value, []byte("<<")) {
			if dict = s.pdfObject(value); dict == nil {
				if s.whole {
					return pdfLocked // it is not there, so that no program can decrypt the PDF
				}
				return pdfUnknown
			}
		}
		return opensWithout(dict, pdfID(trailer))
	}
	return pdfPlain
}

// pdfTrailers returns the parts of the content that may have the trailer: from the last table of references that the end names,
// and the end.
func (s *sample) pdfTrailers() [][]byte {
	var parts [][]byte
	if at := bytes.LastIndex(s.tail, []byte("startxref")); at >= 0 {
		rest := bytes.TrimLeft(s.tail[at+len("startxref"):], pdfSpace)
		offset, err := strconv.ParseInt(string(rest[:run(rest, "0123456789")]), 10, 64)
		if err == nil && offset > 0 {
			table := s.content.part(offset, edge)
			// What follows the trailer are other objects.
			if end := bytes.Index(table, []byte("startxref")); end >= 0 {
				table = table[:end]
			}
			if stream := bytes.Index(table, []byte("stream")); stream >= 0 && !bytes.HasPrefix(table, []byte("xref")) {
				table = table[:stream]
			}
			parts = append(parts, table)
		}
	}
	if at := bytes.LastIndex(s.tail, []byte("trailer")); at >= 0 {
		parts = append(parts, s.tail[at:])
	}
	return parts
}

// pdfObject returns the seen bytes of the object that a reference such as "9 0 R" names, from its dictionary on; nil if it is
// elsewhere. An encryption is never in a compressed object.
func (s *sample) pdfObject(reference []byte) []byte {
	number := reference[:run(reference, "0123456789")]
	rest := bytes.TrimLeft(reference[len(number):], pdfSpace)
	generation := rest[:run(rest, "0123456789")]
	if len(number) == 0 || len(generation) == 0 {
		return nil
	}
	name := append(append(append(bytes.Clone(number), ' '), generation...), " obj"...)
	for _, data := range s.parts() {
		for from := 0; ; {
			at := bytes.Index(data[from:], name)
			if at < 0 {
				break
			}
			at += from
			from = at + len(name)
			if at > 0 && run(data[at-1:at], "0123456789") > 0 {
				continue // 19 0 obj
			}
			if object := bytes.TrimLeft(data[from:], pdfSpace); bytes.HasPrefix(object, []byte("<<")) {
				return object
			}
		}
	}
	return nil
}

// pdfID returns the first part of the file's identifier, which is a part of the key.
func pdfID(trailer []byte) []byte {
	value := bytes.TrimLeft(bytes.TrimPrefix(pdfValue(trailer, "/ID"), []byte("[")), pdfSpace)
	id, _ := pdfString(value)
	return id
}

// pdfString reads a string in parentheses or in angle brackets. ok is false if there is none.
func pdfString(data []byte) (value []byte, ok bool) {
	switch {
	case len(data) == 0:
		return nil, false
	case data[0] == '<':
		return pdfHexString(data[1:])
	case data[0] != '(':
		return nil, false
	}
	depth := 1
	for i := 1; i < len(data); i++ {
		c := data[i]
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return value, true
			}
		case '\\':
			c, i = pdfEscape(data, i+1)
			if c == '\n' && data[i] == '\n' {
				continue // a line that goes on
			}
		}
		value = append(value, c)
	}
	return nil, false
}

// pdfEscape returns the character that the escape at i stands for, and the position of its last byte.
func pdfEscape(data []byte, i int) (c byte, last int) {
	if i >= len(data) {
		return '\\', len(data) - 1
	}
	if at := bytes.IndexByte([]byte("nrtbf"), data[i]); at >= 0 {
		return "\n\r\t\b\f"[at], i
	}
	n := run(data[i:min(len(data), i+3)], "01234567")
	if n == 0 {
		return data[i], i
	}
	code, _ := strconv.ParseUint(string(data[i:i+n]), 8, 16) // octal digits only
	return byte(code), i + n - 1
}

func pdfHexString(data []byte) (value []byte, ok bool) {
	half, digits := byte(0), 0
	for _, c := range data {
		switch {
		case c == '>':
			if digits%2 == 1 {
				value = append(value, half<<4)
			}
			return value, true
		case bytes.IndexByte([]byte(pdfSpace), c) >= 0:
			continue
		}
		digit, err := strconv.ParseUint(string(c), 16, 8)
		if err != nil {
			return nil, false
		}
		if digits++; digits%2 == 0 {
			value = append(value, half<<4|byte(digit))
		}
		half = byte(digit)
	}
	return nil, false
}

// padding fills a password to 32 bytes. It is the whole of an empty one.
const padding = "\x28\xBF\x4E\x5E\x4E\x75\x8A\x41\x64\x00\x4E\x56\xFF\xFA\x01\x08\x2E\x2E\x00\xB6\xD0\x68\x3E\x80\x2F\x0C\xA9\xFE\x64\x53\x69\x7A"

// opensWithout reports whether the empty user password opens a PDF with this encryption (ISO 32000-2, 7.6.4).
func opensWithout(dict, id []byte) pdfEncryption {
	if value := pdfValue(dict, "/Filter"); value != nil && !bytes.HasPrefix(value, []byte("/Standard")) {
		return pdfLocked // by a certificate, or by rights management
	}
	revision, ok := pdfNumber(dict, "/R")
	o, hasO := pdfString(pdfValue(dict, "/O"))
	u, hasU := pdfString(pdfValue(dict, "/U"))
	permissions, hasP := pdfNumber(dict, "/P")
	if !ok || !hasO || !hasU || !hasP || len(o) < 32 || len(u) < 32 {
		return pdfUnknown
	}
	opens := false
	switch revision {
	case 2, 3, 4:
		length, ok := pdfNumber(dict, "/Length")
		if !ok || length < 40 || length > 128 {
			length = 40
		}
		if version, _ := pdfNumber(dict, "/V"); version == 4 {
			length = 128
		}
		plainMetadata := bytes.HasPrefix(pdfValue(dict, "/EncryptMetadata"), []byte("false"))
		opens = opensByMD5(revision, o[:32], u, id, uint32(permissions), int(length)/8, plainMetadata)
	case 5, 6:
		if len(u) < 48 {
			return pdfUnknown
		}
		sum := sha256.Sum256(u[32:40])
		if revision == 6 {
			sum = hardenedHash(u[32:40])
		}
		opens = bytes.Equal(sum[:], u[:32])
	default:
		return pdfUnknown
	}
	if opens {
		return pdfOpen
	}
	return pdfLocked
}

// opensByMD5 checks the empty password of the revisions 2 to 4.
func opensByMD5(revision int64, o, u, id []byte, permissions uint32, length int, plainMetadata bool) bool {
	h := md5.New()
	h.Write([]byte(padding))
	h.Write(o)
	h.Write(binary.LittleEndian.AppendUint32(nil, permissions))
	h.Write(id)
	if revision == 4 && plainMetadata {
		h.Write([]byte("\xff\xff\xff\xff"))
	}
	key := h.Sum(nil)
	if revision == 2 {
		return bytes.Equal(encrypted(key[:5], []byte(padding)), u[:32])
	}
	for range 50 {
		sum := md5.Sum(key[:length])
		key = sum[:]
	}
	key = key[:length]
	sum := md5.Sum(append([]byte(padding), id...))
	check := encrypted(key, sum[:])
	for i := byte(1); i <= 19; i++ {
		other := make([]byte, len(key))
		for j := range key {
			other[j] = key[j] ^ i
		}
		check = encrypted(other, check)
	}
	return bytes.Equal(check, u[:16])
}

// encrypted returns text in RC4. key has 1 to 256 bytes.
func encrypted(key, text []byte) []byte {
	c, err := rc4.NewCipher(key)
	if err != nil {
		return nil
	}
	out := make([]byte, len(text))
	c.XORKeyStream(out, text)
	return out
}

// hardenedHash is the hash of revision 6 (ISO 32000-2, algorithm 2.B) of an empty password and a salt.
func hardenedHash(salt []byte) (sum [32]byte) {
	first := sha256.Sum256(salt)
	k := first[:]
	for round := 0; ; round++ {
		block, err := aes.NewCipher(k[:16])
		if err != nil {
			return sum
		}
		text := bytes.Repeat(k, 64)
		cipher.NewCBCEncrypter(block, k[16:32]).CryptBlocks(text, text)
		remainder := 0
		for _, c := range text[:16] {
			remainder += int(c)
		}
		switch remainder % 3 {
		case 0:
			h := sha256.Sum256(text)
			k = h[:]
		case 1:
			h := sha512.Sum384(text)
			k = h[:]
		default:
			h := sha512.Sum512(text)
			k = h[:]
		}
		if round >= 63 && int(text[len(text)-1]) <= round-31 {
			return [32]byte(k[:32])
		}
	}
}
