package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"unicode/utf8"
)

// A NameStyle says how a document's key becomes the name of its source.
type NameStyle uint8

// The styles of names.
const (
	Flat NameStyle = iota // the key with "__" for "/"
	Key                   // the key as it is
	Base                  // the part after the last "/"
)

// maxName is the most bytes of a source's name, maxExtension of what is kept of one as
// its extension, its dot among them.
const (
	maxName      = 200
	maxExtension = 20
)

// SourceName returns the name that the source of a document with this key gets: the
// same at every call, 1 to 200 bytes of valid UTF-8 without control characters,
// quotes, backslashes and "..". Where the key had to be altered or shortened the name
// keeps its extension and has 8 hex digits of the key's hash before it, so that two
// keys that differ only there have two names.
func SourceName(key string, style NameStyle) string {
	name := key
	switch style {
	case Flat:
		name = strings.ReplaceAll(key, "/", "__")
	case Base:
		name = key[strings.LastIndexByte(key, '/')+1:]
	}
	cleaned := cleanName(name)
	if cleaned == name && name != "" && len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(key))
	digits := hex.EncodeToString(sum[:4])
	extension := path.Ext(cleaned)
	if len(extension) > maxExtension || strings.Contains(extension, "/") || extension == "." {
		extension = ""
	}
	stem := cutRunes(cleaned[:len(cleaned)-len(extension)], maxName-len("-")-len(digits)-len(extension))
	if stem != "" {
		stem += "-"
	}
	return stem + digits + extension
}

// cleanName puts an underscore where a name must not have what it has.
func cleanName(name string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, r == '"', r == '\'', r == '\\', r < ' ', r >= 0x7f && r < 0xa0:
			return '_'
		case r == 0x2028, r == 0x2029, r == 0xfeff, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '_' // line breaks and marks that turn the direction of what is shown
		}
		return r
	}, name)
	mapped = strings.ReplaceAll(mapped, "..", "_")
	return strings.TrimSpace(mapped)
}

// cutRunes returns at most limit bytes of s, none of its characters cut in two.
func cutRunes(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// textFormat says whether a document may be sent as a text field. HTML, JSON and XML
// stay files: as bare text their markup would be taken for words.
func textFormat(key string) bool {
	switch strings.ToLower(path.Ext(key)) {
	case ".txt", ".text", ".log", ".md", ".markdown", ".rst", ".csv", ".tsv":
		return true
	}
	return false
}

// usableField says whether a name can be the field key of a text without being taken
// for a key that an answer has itself, or for one of the numbered fields of files.
func usableField(name string) bool {
	switch strings.ToLower(name) {
	case "ok", "knowledge_base_id", "error", "code", "message", "status":
		return false
	}
	return name[0] != 'd' || strings.Trim(name[1:], "0123456789") != ""
}
