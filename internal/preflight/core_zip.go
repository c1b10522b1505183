package preflight

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// zipParts are what the core of one kind of ZIP document has of its members. Names are in lower case.
type zipParts interface {
	// isMetadata reports whether a member holds only metadata. ok is false if that is not certain.
	isMetadata(name string) (metadata, ok bool)
	// write writes what counts of a member to the hash. kept are the names of all members that are not metadata.
	write(h coreHash, name string, kept map[string]bool, content io.Reader) bool
	// isComplete reports whether the members are those of such a document.
	isComplete(names map[string]bool) bool
}

// zipCore writes the names and contents of the members to the hash, in the order of the names. It returns false if programs may
// disagree on the members.
func zipCore(data []byte, h coreHash, parts zipParts) bool {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(z.File) > maxCoreMembers || !isGapless(data, z.File) {
		return false
	}
	all, kept := map[string]bool{}, map[string]bool{}
	var files []*zip.File
	for _, f := range z.File {
		name := strings.ToLower(f.Name)
		if all[name] || !isPlainMember(f) {
			return false
		}
		all[name] = true
		if strings.HasSuffix(name, "/") {
			if f.UncompressedSize64 > 0 {
				return false
			}
			continue
		}
		metadata, ok := parts.isMetadata(name)
		if !ok {
			return false
		}
		if !metadata {
			files = append(files, f)
			kept[name] = true
		}
	}
	if !parts.isComplete(all) {
		return false
	}
	slices.SortFunc(files, func(a, b *zip.File) int { return cmp.Compare(a.Name, b.Name) })
	left := int64(maxCoreBytes)
	for _, f := range files {
		member := coreHash{sha256.New()}
		if !writeMember(f, &left, func(r io.Reader) bool { return parts.write(member, strings.ToLower(f.Name), kept, r) }) {
			return false
		}
		h.text(f.Name)
		h.bytes(member.Sum(nil))
	}
	return true
}

// writeMember calls write with the content of a member, and reports whether all of it was read without an error. left is how many
// bytes may still be read.
func writeMember(f *zip.File, left *int64, write func(io.Reader) bool) bool {
	r, err := f.Open()
	if err != nil {
		return false
	}
	defer r.Close()
	limited := &io.LimitedReader{R: r, N: *left}
	if !write(limited) || limited.N <= 0 {
		return false
	}
	*left = limited.N
	// The end of the content checks its CRC.
	n, err := r.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}

// isPlainMember reports whether all programs see the same name and the same content of a member.
func isPlainMember(f *zip.File) bool {
	return f.Flags&1 == 0 && // encrypted
		(f.Method == zip.Store || f.Method == zip.Deflate) &&
		utf8.ValidString(f.Name) && !f.NonUTF8 &&
		f.Name != "" && !strings.HasPrefix(f.Name, "/") && !strings.ContainsAny(f.Name, "\\\x00") &&
		!slices.Contains(strings.Split(f.Name, "/"), "..")
}

// isGapless reports whether the members that the directory names fill the ZIP from its first byte to the directory. Some programs
// read the members in their order in the file, and not by the directory; both must see the same ones.
func isGapless(data []byte, files []*zip.File) bool {
	type member struct {
		*zip.File
		at int64
	}
	members := make([]member, len(files))
	for i, f := range files {
		at, err := f.DataOffset()
		if err != nil {
			return false
		}
		members[i] = member{f, at}
	}
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.at, b.at) })
	var at int64
	for _, m := range members {
		if m.at > int64(len(data)) || m.at-at < 30+int64(len(m.Name)) {
			return false
		}
		head := data[at:m.at]
		name, extra := int64(binary.LittleEndian.Uint16(head[26:])), int64(binary.LittleEndian.Uint16(head[28:]))
		described := m.Flags&8 != 0
		if !described && (uint64(binary.LittleEndian.Uint32(head[18:])) != m.CompressedSize64 || binary.LittleEndian.Uint32(head[14:]) != m.CRC32) {
			return false
		}
		if !bytes.HasPrefix(head, []byte(magicZIP)) || int64(len(head)) != 30+name+extra || string(head[30:30+name]) != m.Name ||
			binary.LittleEndian.Uint16(head[8:]) != m.Method || (binary.LittleEndian.Uint16(head[6:])^m.Flags)&9 != 0 {
			return false
		}
		if m.CompressedSize64 > uint64(len(data)) || m.at+int64(m.CompressedSize64) > int64(len(data)) {
			return false
		}
		var ok bool
		if at, ok = afterMember(data, m.at+int64(m.CompressedSize64), described); !ok {
			return false
		}
	}
	// A second record of an end, in the comment, may name another directory.
	return bytes.HasPrefix(data[at:], []byte("PK\x01\x02")) && bytes.Count(data[at:], []byte("PK\x05\x06")) == 1
}

// afterMember returns where the next record of a ZIP begins, after a member that may have a descriptor.
func afterMember(data []byte, at int64, described bool) (next int64, ok bool) {
	lengths := []int64{0}
	if described {
		lengths = []int64{12, 16, 20, 24}
	}
	for _, n := range lengths {
		if at+n > int64(len(data)) {
			break
		}
		if rest := data[at+n:]; bytes.HasPrefix(rest, []byte(magicZIP)) || bytes.HasPrefix(rest, []byte("PK\x01\x02")) {
			return at + n, true
		}
	}
	return 0, false
}
