package watcher

import (
	"fmt"
	"strings"
)

// A PatternError describes an invalid pattern and the remedy.
type PatternError struct {
	Place   string // such as "include" or "filters.txt:3"
	Pattern string
	Problem string
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("%s: the pattern %q %s", e.Place, e.Pattern, e.Problem)
}

// patternProblem returns why a pattern of any kind cannot mean what its author wrote; empty if nothing is known.
func patternProblem(text string) string {
	switch {
	case hasWindowsPath(text):
		return `has a backslash in a name, as paths of Windows have, and so it matches nothing; write / between folders, as in drafts/**, ` +
			`and [*] for the character *`
	case isList(text):
		return "is a list in one text, which matches nothing; write each pattern by itself"
	}
	return ""
}

// hasWindowsPath reports whether a pattern has a backslash where only a path of Windows has one: in a name, before a letter, a digit
// or a star, none of which needs an escape there.
func hasWindowsPath(text string) bool {
	inName, inSet := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			next := text[i+1]
			if inName && !inSet && (letter(next) || digit(next) || next == '*') {
				return true
			}
			inName = true
			i++
		case c == '[' && !inSet:
			inSet = strings.Contains(text[i:], "]")
			inName = true
		case c == ']':
			inSet = false
		default:
			inName = c != '/'
		}
	}
	return false
}

// isList reports whether a pattern consists of several that commas, semicolons or blanks separate.
func isList(text string) bool {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(",; ", r) })
	if len(parts) < 2 || strings.ContainsAny(text, `{[\`) {
		return false
	}
	for _, part := range parts {
		if !strings.HasPrefix(part, "*.") && !strings.HasPrefix(part, "**/*.") && !strings.HasSuffix(part, "/**") {
			return false
		}
	}
	return true
}

// partProblem returns why a part of a pattern matches no part of a key.
func partProblem(part string) string {
	if part == "" || part == "." || part == ".." {
		return fmt.Sprintf("has the part %q, which no key has, so that it matches nothing; write the path below the root as it is listed", part)
	}
	return ""
}
