package watcher

import (
	"bytes"
	"fmt"
	"strings"
)

// ignoreName is the name of the files with patterns in gitignore syntax, for their directory and everything below it.
const ignoreName = ".kbsyncignore"

// An ignoreFile is one such file, linked to the ignore file of the next directory above.
type ignoreFile struct {
	dir    string // the key of its directory, with a slash at its end; "" for the root
	rules  []ignoreRule
	parent *ignoreFile
}

type ignoreRule struct {
	text    string
	line    int
	negated bool // a matching key is not ignored
	dirOnly bool
	byName  bool // matched against the last part of the key, at any depth
	exact   bool // the pattern is plain text
	plain   string
	tokens  []token
}

// parseIgnore reads an ignore file. A pattern that can match nothing is an error, because its author expects that it leaves
// documents out; git ignores such a pattern silently.
func parseIgnore(data []byte, dir string, parent *ignoreFile) (*ignoreFile, error) {
	f := &ignoreFile{dir: dir, parent: parent}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	line := 0
	for text := range bytes.Lines(data) {
		line++
		pattern := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		if strings.HasPrefix(pattern, "#") {
			continue
		}
		pattern = trimSpaces(pattern)
		rule := ignoreRule{text: pattern, line: line}
		pattern, rule.negated = strings.CutPrefix(pattern, "!")
		pattern, rule.dirOnly = strings.CutSuffix(pattern, "/")
		rule.byName = !strings.Contains(pattern, "/")
		// git splits a pattern at its first wildcard: a ** there counts as following a slash.
		wildcard := strings.IndexAny(pattern, `*?[\`)
		if wildcard > 0 && !rule.byName {
			wildcard -= len(pattern) - len(strings.TrimPrefix(pattern, "/"))
		}
		if !rule.byName {
			pattern = strings.TrimPrefix(pattern, "/")
		}
		if pattern == "" {
			continue // an empty pattern
		}
		if wildcard < 0 {
			rule.exact, rule.plain = true, pattern
		} else {
			tokens, problem := parseWildcards(pattern, wildcard, rule.byName)
			if problem != "" {
				return nil, &PatternError{Place: fmt.Sprintf("%s%s:%d", dir, ignoreName, line), Pattern: rule.text, Problem: problem}
			}
			rule.tokens = tokens
		}
		f.rules = append(f.rules, rule)
	}
	return f, nil
}

// trimSpaces cuts the spaces at the end of a line, except after a backslash.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(s))
	}
	return s[:end]
}

// An ignored is the rule that decides on a key.
type ignored struct {
	file *ignoreFile
	rule *ignoreRule
}

func (i ignored) place() string { return fmt.Sprintf("%s%s:%d", i.file.dir, ignoreName, i.rule.line) }

// match returns the rule that decides on the key, which has no slash at its end; false if there is none. The last matching rule
// of the deepest file decides.
func (f *ignoreFile) match(key string, isDir bool) (ignored, bool) {
	if f == nil {
		return ignored{}, false
	}
	name := key[strings.LastIndexByte(key, '/')+1:]
	for ; f != nil; f = f.parent {
		for i := len(f.rules) - 1; i >= 0; i-- {
			r := &f.rules[i]
			if r.dirOnly && !isDir {
				continue
			}
			subject := name
			if !r.byName {
				subject = key[len(f.dir):]
			}
			if r.exact && r.plain == subject || !r.exact && matchWildcards(r.tokens, subject) {
				return ignored{f, r}, true
			}
		}
	}
	return ignored{}, false
}
