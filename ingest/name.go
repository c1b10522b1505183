package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A NameStyle is how a document's key becomes the name of its source.
type NameStyle uint8

// The styles of names.
const (
	Flat NameStyle = iota // the key with "__" for "/"
	Key                   // the key as it is
	Base                  // the part after the last "/"
)

// maxName is the most bytes of a source's name, and maxEnding of its ending with the dot.
const (
	maxName   = 200
	maxEnding = 100
)

// SourceName returns the name of the source of a document with this key. It is the same at every call: 1 to 200 bytes of
// valid UTF-8 without control characters, double quotes and backslashes, and no part of it is "." or "..". If the key had to be
// altered or shortened, the name has 8 hex digits of the key's hash before its ending, so that different keys have different names.
//
// The name always keeps the document's ending, by which ReplyCX tells formats apart: it ends in the extension of the key's last part,
// of up to 100 bytes, without the characters that no name may have.
func SourceName(key string, style NameStyle) string {
	name := key
	switch style {
	case Flat:
		name = strings.ReplaceAll(key, "/", "__")
	case Base:
		name = key[strings.LastIndexByte(key, '/')+1:]
	}
	ending := endingOf(key)
	stem, whole := strings.CutSuffix(name, ending)
	cleaned, cleanedEnding := cleanName(stem), cleanName(ending)
	if whole && cleaned == stem && cleanedEnding == ending && name != "" && len(name) <= maxName && name == strings.TrimSpace(name) {
		return name
	}
	sum := sha256.Sum256([]byte(key))
	digits := hex.EncodeToString(sum[:4])
	// A part can be "." or ".." only once the space before it is gone.
	cleaned = cutRunes(cleanName(strings.TrimSpace(stem)), maxName-len("-")-len(digits)-len(cleanedEnding))
	if cleaned != "" {
		cleaned += "-"
	}
	return cleaned + digits + strings.TrimRightFunc(cleanedEnding, unicode.IsSpace)
}

// endingOf returns the extension of the last part of a key, with the dot; empty if there is none.
func endingOf(key string) string {
	ending := path.Ext(key[strings.LastIndexByte(key, '/')+1:])
	if ending == "." || len(ending) > maxEnding {
		return ""
	}
	return ending
}

// cleanName replaces the characters that a name must not have by underscores, and its parts that would lead to another folder.
func cleanName(name string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, r == '"', r == '\\', r < ' ', r >= 0x7f && r < 0xa0:
			return '_'
		case r == 0x2028, r == 0x2029, r == 0xfeff, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '_' // line breaks, and marks that change the direction of the text
		}
		return r
	}, name)
	if !strings.Contains(mapped, ".") {
		return mapped
	}
	parts := strings.Split(mapped, "/")
	for i, part := range parts {
		if part == "." || part == ".." {
			parts[i] = strings.Repeat("_", len(part))
		}
	}
	return strings.Join(parts, "/")
}

// cutRunes returns at most limit bytes of s, in whole characters.
func cutRunes(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// textFormat reports whether a document may be sent as a text field. HTML, JSON and XML stay files: ReplyCX would train on
// the markup of a text field as if it were words.
func textFormat(key string) bool {
	switch strings.ToLower(path.Ext(key)) {
	case ".txt", ".text", ".log", ".md", ".markdown", ".rst", ".csv", ".tsv":
		return true
	}
	return false
}

// usableField reports whether a name can be the field of a text: it must differ from the keys of an answer and from the
// numbered fields of files.
func usableField(name string) bool {
	switch strings.ToLower(name) {
	case "ok", "knowledge_base_id", "error", "code", "message", "status":
		return false
	}
	return name[0] != 'd' || strings.Trim(name[1:], "0123456789") != ""
}
