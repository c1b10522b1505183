package watcher

import (
	"errors"
	"fmt"
	"strings"
)

// ignoreName is the name of the files with patterns in gitignore syntax, for their directory and everything below it.
const ignoreName = ".kbsyncignore"

// maxIgnoreSize is the size in bytes above which an ignore file is not read.
const maxIgnoreSize = 1 << 20

// An ignoreFile is one such file, linked to the ignore file of the next directory above.
type ignoreFile struct {
	dir     string // the key of its directory, with a slash at its end; "" for the root
	folded  int    // the length of the folded dir
	rules   []ignoreRule
	parent  *ignoreFile
	matched []bool // by rule: it matched something; nil if nothing is counted
}

type ignoreRule struct {
	text    string
	line    int
	negated bool // a matching key is not ignored
	dirOnly bool
	byName  bool    // matched against the last part of the key, at any depth
	exact   pattern // compares as git does: bytes
	folded  pattern // compares folded names
	same    bool    // both patterns match the same folded ASCII names
}

// A pattern is plain text, or wildcards.
type pattern struct {
	plain  string
	tokens []token // nil for plain text
	units  units
}

func (p *pattern) match(s string) bool {
	if p.tokens == nil {
		return p.plain == s
	}
	return matchWildcards(p.tokens, s, p.units)
}

// parsePattern reads a pattern without its leading slash.
func parsePattern(text string, byName bool, u units) (p pattern, problem string) {
	// git splits a pattern at its first wildcard: a ** there counts as following a slash.
	wildcard := strings.IndexAny(text, `*?[\`)
	if wildcard < 0 {
		return pattern{plain: text}, ""
	}
	tokens, problem := parseWildcards(text, wildcard, byName, u)
	return pattern{tokens: tokens, units: u}, problem
}

// parseIgnore reads an ignore file in any encoding of decodeRules. A pattern that can match nothing is an error, because its author
// expects that it leaves documents out; git ignores such a pattern silently. Errors: *RuleFileError.
func parseIgnore(data []byte, dir string, parent *ignoreFile) (*ignoreFile, error) {
	f := &ignoreFile{dir: dir, folded: len(fold(dir)), parent: parent}
	lines, err := decodeRules(data)
	if err != nil {
		return nil, &RuleFileError{Path: dir + ignoreName, Err: err}
	}
	for i, text := range lines {
		if strings.HasPrefix(text, "#") || trimSpaces(text) == "" {
			continue
		}
		rule, problem := parseIgnoreRule(trimSpaces(text), i+1)
		if problem != "" {
			place := fmt.Sprintf("%s%s:%d", dir, ignoreName, i+1)
			return nil, &RuleFileError{Path: dir + ignoreName, Err: &PatternError{Place: place, Pattern: rule.text, Problem: problem}}
		}
		f.rules = append(f.rules, rule)
	}
	return f, nil
}

func parseIgnoreRule(text string, line int) (r ignoreRule, problem string) {
	r = ignoreRule{text: text, line: line}
	text, r.negated = strings.CutPrefix(text, "!")
	if problem := patternProblem(text); problem != "" {
		return r, problem
	}
	text, r.dirOnly = strings.CutSuffix(text, "/")
	r.byName = !strings.Contains(text, "/")
	if !r.byName {
		text = strings.TrimPrefix(text, "/")
	}
	if text == "" {
		return r, "is empty and matches nothing; remove it"
	}
	for part := range strings.SplitSeq(text, "/") {
		if problem := partProblem(part); problem != "" {
			return r, problem
		}
	}
	if r.exact, problem = parsePattern(text, r.byName, ofBytes); problem != "" {
		return r, problem
	}
	folded := fold(text)
	if r.folded, problem = parsePattern(folded, r.byName, ofRunes); problem != "" {
		return r, problem
	}
	r.same = folded == text && isASCII(text)
	return r, ""
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

// match reports whether the rule matches a name, or a key below its file.
//
// A rule that leaves out also matches a name that differs in case or in its Unicode form: the file systems of other systems do not
// distinguish them, nor do people, and a needless exclude costs nothing. A negated rule takes back what another rule left
// out, and so it matches exactly, as it does for git where names have case. If it matched more, it would publish a document
// that a rule was meant to hide.
func (r *ignoreRule) match(exact, folded string) bool {
	if r.exact.match(exact) {
		return true
	}
	if r.negated || r.same && len(exact) == len(folded) && exact == folded && isASCII(exact) {
		return false
	}
	return r.folded.match(folded)
}

// An ignored is the rule that decides on a key.
type ignored struct {
	file *ignoreFile
	rule *ignoreRule
}

func (i ignored) place() string { return i.file.place(i.rule) }

func (f *ignoreFile) place(r *ignoreRule) string {
	return fmt.Sprintf("%s%s:%d", f.dir, ignoreName, r.line)
}

// match returns the rule that decides on the key, which has no slash at its end; false if there is none. The last matching rule
// of the deepest file decides. Rules that nothing matched yet are tried also after the decision, if somebody counts.
func (f *ignoreFile) match(key string, isDir bool) (by ignored, ok bool) {
	if f == nil {
		return ignored{}, false
	}
	name, folded := baseName(key), fold(key)
	foldedName := baseName(folded)
	for ; f != nil; f = f.parent {
		for i := len(f.rules) - 1; i >= 0; i-- {
			r := &f.rules[i]
			if r.dirOnly && !isDir || ok && (f.matched == nil || f.matched[i]) {
				continue
			}
			exactSubject, foldedSubject := name, foldedName
			if !r.byName {
				exactSubject, foldedSubject = key[len(f.dir):], folded[f.folded:]
			}
			if !r.match(exactSubject, foldedSubject) {
				continue
			}
			if f.matched == nil && !ok {
				return ignored{f, r}, true
			}
			f.matched[i] = true
			if !ok {
				by, ok = ignored{f, r}, true
			}
		}
	}
	return by, ok
}

// out reports whether the ignore files leave out the key, and the verdict.
func (f *ignoreFile) out(key string, isDir bool) (verdict, bool) {
	by, ok := f.match(key, isDir)
	if !ok || by.rule.negated {
		return verdict{}, false
	}
	v := verdict{out: true, kind: leftByIgnoreFile, reason: "an ignore file leaves it out", rule: by.rule.text, place: by.place()}
	if isDir {
		v.reason = "an ignore file leaves out its directory"
	}
	return v, true
}

// count makes the file count the rules that match.
func (f *ignoreFile) count() {
	if f != nil && f.matched == nil {
		f.matched = make([]bool, len(f.rules))
	}
}

// endsListing reports whether an error is about a rule file that was not read or not understood.
func endsListing(err error) bool {
	if _, ok := errors.AsType[*RuleFileError](err); ok {
		return true
	}
	_, ok := errors.AsType[*UnavailableError](err)
	return ok
}
