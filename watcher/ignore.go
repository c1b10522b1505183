package watcher

import (
	"bytes"
	"fmt"
	"strings"
)

// ignoreName is the name of the files that hold patterns in gitignore syntax for their directory and everything below it.
const ignoreName = ".kbsyncignore"

// An ignoreFile is one such file, linked to the one that applies around it.
type ignoreFile struct {
	dir    string // the key of its directory, with a slash at its end; "" for the root
	rules  []ignoreRule
	parent *ignoreFile
}

type ignoreRule struct {
	text    string
	line    int
	negated bool // what it matches is not ignored
	dirOnly bool
	byName  bool // matched against the last part of the key, at any depth
	exact   bool // the pattern is plain text
	plain   string
	tokens  []token
}

// parseIgnore reads an ignore file. Patterns that can match nothing, which git passes over in silence, are errors: whoever
// wrote one believes that something is left out.
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
		// Where the first wildcard is, git forgets what came before it: a ** there counts as standing after a slash.
		wild := strings.IndexAny(pattern, `*?[\`)
		if wild > 0 && !rule.byName {
			wild -= len(pattern) - len(strings.TrimPrefix(pattern, "/"))
		}
		if !rule.byName {
			pattern = strings.TrimPrefix(pattern, "/")
		}
		if pattern == "" {
			continue // matches nothing, and nobody expects it to
		}
		if wild < 0 {
			rule.exact, rule.plain = true, pattern
		} else {
			tokens, problem := parseWild(pattern, wild, rule.byName)
			if problem != "" {
				return nil, &PatternError{Place: fmt.Sprintf("%s%s:%d", dir, ignoreName, line), Pattern: rule.text, Problem: problem}
			}
			rule.tokens = tokens
		}
		f.rules = append(f.rules, rule)
	}
	return f, nil
}

// trimSpaces cuts the spaces at the end of a line that no backslash keeps.
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

// An ignored says which rule decided on a key.
type ignored struct {
	file *ignoreFile
	rule *ignoreRule
}

func (i ignored) place() string { return fmt.Sprintf("%s%s:%d", i.file.dir, ignoreName, i.rule.line) }

// match returns the rule that decides on the key, which has no slash at its end; false if there is none. The last one of the
// deepest file wins.
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
			if r.exact && r.plain == subject || !r.exact && matchWild(r.tokens, subject) {
				return ignored{f, r}, true
			}
		}
	}
	return ignored{}, false
}

// A token is one element of a pattern with wildcards.
type token struct {
	kind tokenKind
	char byte
	set  *[256]bool
}

type tokenKind uint8

const (
	tokenChar   tokenKind = iota
	tokenOne              // any byte but a slash
	tokenSet              // any byte of set
	tokenStar             // any bytes but slashes
	tokenDeep             // any bytes
	tokenDirs             // nothing; or tokenInside, which always follows
	tokenInside           // any bytes that end in a slash
)

// parseWild reads a pattern. At the offset wild is its first wildcard. It returns what is wrong with it, if anything is.
func parseWild(pattern string, wild int, byName bool) (tokens []token, problem string) {
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; c {
		case '\\':
			if i+1 == len(pattern) {
				return nil, `ends in a backslash, so that it matches nothing; write \\ for a backslash`
			}
			tokens = append(tokens, token{kind: tokenChar, char: pattern[i+1]})
			i += 2
		case '?':
			tokens = append(tokens, token{kind: tokenOne})
			i++
		case '*':
			end := i
			for end < len(pattern) && pattern[end] == '*' {
				end++
			}
			rest := pattern[end:]
			opens := i == 0 || pattern[i-1] == '/' || i == wild
			closes := rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`)
			switch {
			case byName || end-i < 2 || !opens || !closes:
				tokens = append(tokens, token{kind: tokenStar})
			case rest != "" && rest[0] == '/':
				tokens = append(tokens, token{kind: tokenDirs}, token{kind: tokenInside})
				end++
			default:
				tokens = append(tokens, token{kind: tokenDeep})
			}
			i = end
		case '[':
			set, length, problem := parseSet(pattern[i:])
			if problem != "" {
				return nil, problem
			}
			tokens = append(tokens, token{kind: tokenSet, set: set})
			i += length
		default:
			tokens = append(tokens, token{kind: tokenChar, char: c})
			i++
		}
	}
	return tokens, ""
}

const unclosed = `has a [ without its ], so that it matches nothing; write \[ for the character`

// parseSet reads a bracket expression at the beginning of s.
func parseSet(s string) (set *[256]bool, length int, problem string) {
	set = new([256]bool)
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	low := -1 // what a range may begin with
	for first := true; ; first = false {
		if i >= len(s) {
			return nil, 0, unclosed
		}
		if s[i] == ']' && !first {
			break
		}
		if s[i] == '-' && low > 0 && i+1 < len(s) && s[i+1] != ']' {
			i++
			if s[i] == '\\' {
				if i++; i >= len(s) {
					return nil, 0, unclosed
				}
			}
			for c := low; c <= int(s[i]); c++ {
				set[c] = true
			}
			low = -1
			i++
			continue
		}
		if strings.HasPrefix(s[i:], "[:") {
			end := strings.IndexByte(s[i+2:], ']')
			if end < 0 {
				return nil, 0, unclosed
			}
			if name, ok := strings.CutSuffix(s[i+2:i+2+end], ":"); ok {
				class := classes[name]
				if class == nil {
					return nil, 0, fmt.Sprintf("has the unknown character class %q, so that it matches nothing; known are alnum, alpha, blank, cntrl, "+
						"digit, graph, lower, print, punct, space, upper and xdigit", name)
				}
				for c := range 128 {
					set[c] = set[c] || class(byte(c))
				}
				low = -1
				i += 2 + end + 1
				continue
			}
		}
		if s[i] == '\\' {
			if i++; i >= len(s) {
				return nil, 0, unclosed
			}
		}
		set[s[i]] = true
		low = int(s[i])
		i++
	}
	if negated {
		for c := range set {
			set[c] = !set[c]
		}
	}
	set['/'] = false
	return set, i + 1, ""
}

// classes are the POSIX character classes, in ASCII.
var classes = map[string]func(c byte) bool{
	"alnum":  func(c byte) bool { return letter(c) || digit(c) },
	"alpha":  letter,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 127 },
	"digit":  digit,
	"graph":  func(c byte) bool { return c > ' ' && c < 127 },
	"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
	"print":  func(c byte) bool { return c >= ' ' && c < 127 },
	"punct":  func(c byte) bool { return c > ' ' && c < 127 && !letter(c) && !digit(c) },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
	"xdigit": func(c byte) bool { return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' },
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

// matchWild says whether the tokens match all of s. It keeps the set of places in the pattern that can have been reached, so its time
// is at most the product of the lengths: patterns come with the documents, and no pattern may stall a scan.
func matchWild(tokens []token, s string) bool {
	var room [2][64]bool
	now, next := room[0][:], room[1][:]
	if len(tokens) >= len(now) {
		now, next = make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	}
	now, next = now[:len(tokens)+1], next[:len(tokens)+1]
	reach := func(set []bool, i int) {
		for {
			set[i] = true
			if i == len(tokens) {
				return
			}
			switch tokens[i].kind {
			case tokenStar, tokenDeep:
				i++
			case tokenDirs:
				set[i+1] = true
				i += 2
			default:
				return
			}
		}
	}
	reach(now, 0)
	for _, c := range []byte(s) {
		alive := false
		for i := range tokens {
			if !now[i] {
				continue
			}
			to := -1
			switch t := &tokens[i]; t.kind {
			case tokenChar:
				if c == t.char {
					to = i + 1
				}
			case tokenOne:
				if c != '/' {
					to = i + 1
				}
			case tokenSet:
				if t.set[c] {
					to = i + 1
				}
			case tokenStar:
				if c != '/' {
					to = i
				}
			case tokenDeep:
				to = i
			case tokenInside:
				next[i], alive = true, true
				if c == '/' {
					to = i + 1
				}
			}
			if to >= 0 {
				reach(next, to)
				alive = true
			}
		}
		if !alive {
			return false
		}
		now, next = next, now
		clear(next)
	}
	return now[len(tokens)]
}
