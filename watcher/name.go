package watcher

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fold returns the form of a name or pattern in which rules that leave out documents compare: without the difference between
// upper and lower case (simple case folding), and composed (NFC). Two names that a person reads as equal have one form. A name
// of ASCII characters without upper case is its own form, and costs no allocation. Bytes that are not UTF-8 become U+FFFD.
func fold(s string) string {
	upper := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			if !utf8.ValidString(s) {
				s = string([]rune(s)) // norm would leave the characters after a wrong byte as they are
			}
			return norm.NFC.String(strings.Map(foldRune, norm.NFD.String(s)))
		case 'A' <= c && c <= 'Z':
			upper = true
		}
	}
	if upper {
		return strings.ToLower(s)
	}
	return s
}

// foldRune returns the same character for all characters that differ only in case.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		return least + 'a' - 'A'
	}
	return least
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// baseName returns the last part of a key.
func baseName(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// foldEnding returns the form of a key in which includes compare: composed, and with its ending in lower case.
func foldEnding(key string) string {
	if !isASCII(key) {
		key = norm.NFC.String(key)
	}
	dot := strings.LastIndexByte(key, '.')
	if dot <= strings.LastIndexByte(key, '/') {
		return key
	}
	if ending := strings.ToLower(key[dot:]); ending != key[dot:] {
		return key[:dot] + ending
	}
	return key
}

// foldEndings is foldEnding for a glob. The endings of "*.{PDF,md}" are all of its alternatives.
func foldEndings(glob string) string {
	b := []byte(norm.NFC.String(glob))
	end, depth := len(b), 0 // of the ending that is being read; -1 if its dot was read
	for i := len(b) - 1; i >= 0 && b[i] != '/'; i-- {
		switch c := b[i]; {
		case c == '}':
			depth++
		case c == '{':
			depth--
		case c == ',' && depth > 0 && end < 0:
			end = i
		case c == '.' && end >= 0:
			copy(b[i:end], strings.ToLower(string(b[i:end])))
			end = -1
		}
	}
	return string(b)
}
