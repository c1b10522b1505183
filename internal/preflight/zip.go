package preflight

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

const (
	// maxDirectory is the most bytes of a ZIP's directory that zip reads. A larger one stays unread.
	maxDirectory = 4 << 20
	// maxManifest is the most bytes of an OpenDocument manifest that zip reads.
	maxManifest = 1 << 20
)

// zip looks at a document whose name says that it is a ZIP with certain parts.
func (s *sample) zip(k kind, r *Report) {
	if bytes.HasPrefix(s.head, []byte(magicOLE)) {
		if k.family == familyOffice && s.oleHas("EncryptedPackage") {
			r.block("is protected by a password")
			return
		}
		s.other(k, r)
		return
	}
	length, ok := s.zipDirectory()
	switch {
	case !ok && bytes.HasPrefix(s.head, []byte(magicZIP)):
		r.block("is cut off or damaged: the end of its ZIP container is missing")
		return
	case !ok:
		s.other(k, r)
		return
	case length > maxDirectory:
		return
	}
	z, err := zip.NewReader(s.content, s.size)
	switch {
	case s.content.err != nil:
		return
	case err != nil && !errors.Is(err, zip.ErrInsecurePath):
		r.block("is damaged: the directory of its ZIP container cannot be read")
	case k.family == familyOffice:
		office(z, k, r)
	case k.family == familyOpenDocument:
		openDocument(z, r)
	}
}

// zipDirectory returns the length of the ZIP's directory, by the record at the content's end. ok is false if there is no such
// record, or if it names a place that the content does not have.
func (s *sample) zipDirectory() (length int64, ok bool) {
	for end := len(s.tail); end > 0; {
		at := bytes.LastIndex(s.tail[:end], []byte("PK\x05\x06"))
		if at < 0 {
			return 0, false
		}
		if record := s.tail[at:]; len(record) >= 22 {
			length, offset := int64(binary.LittleEndian.Uint32(record[12:])), int64(binary.LittleEndian.Uint32(record[16:]))
			position := s.size - int64(len(s.tail)) + int64(at)
			// All ones stand for the longer record of a ZIP64.
			if offset == 0xffffffff || length == 0xffffffff || length+offset <= position {
				return length & 0x7fffffff, true
			}
		}
		end = at
	}
	return 0, false
}

// officeFolders are the folders of the main parts of Office Open XML documents, with their names.
var officeFolders = []struct{ folder, name string }{
	{"word/", "a Word document"},
	{"xl/", "an Excel workbook"},
	{"ppt/", "a PowerPoint presentation"},
}

// office looks for the parts of an Office Open XML document. The names of the parts are up to the program that wrote it, but every
// one has a list of content types.
func office(z *zip.Reader, k kind, r *Report) {
	types, found := false, map[string]bool{}
	for _, f := range z.File {
		name := strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(f.Name, `\`, "/"), "/"))
		types = types || name == "[content_types].xml"
		for _, x := range officeFolders {
			if strings.HasPrefix(name, x.folder) {
				found[x.folder] = true
			}
		}
	}
	if found[k.folder] {
		return
	}
	for _, x := range officeFolders {
		if found[x.folder] {
			r.warn("is %s, not %s", x.name, k.name)
			return
		}
	}
	if types {
		r.warn("has the container of an Office document, but no parts of %s", k.name)
		return
	}
	r.block("is a ZIP, but not %s: it has none of its parts", k.name)
}

// openDocument looks for the parts of an OpenDocument file, and for its encryption.
func openDocument(z *zip.Reader, r *Report) {
	hasContent := false
	for _, f := range z.File {
		switch f.Name {
		case "encrypted-package":
			r.block("is protected by a password")
			return
		case "META-INF/manifest.xml":
			if bytes.Contains(readMember(f), []byte("encryption-data")) {
				r.block("is protected by a password")
				return
			}
		case "content.xml":
			hasContent = true
		}
	}
	if !hasContent {
		r.block("is a ZIP, but not an OpenDocument file: it has no content.xml")
	}
}

// readMember returns the beginning of a member; what can be read of it, if it is damaged.
func readMember(f *zip.File) []byte {
	m, err := f.Open()
	if err != nil {
		return nil
	}
	defer m.Close()
	data, _ := io.ReadAll(io.LimitReader(m, maxManifest)) // the rest of a damaged member says nothing
	return data
}
