package watcher

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A token is one element of a pattern with wildcards.
type token struct {
	kind tokenKind
	char rune
	set  *charSet
}

// A charSet is the set of characters of a bracket expression.
type charSet struct {
	low     [256]bool   // the characters up to U+00FF
	others  []charRange // further characters
	negated bool
}

type charRange struct{ first, last rune }

func (s *charSet) add(first, last rune) {
	for c := first; c <= min(last, 255); c++ {
		s.low[c] = true
	}
	if last > 255 {
		s.others = append(s.others, charRange{max(first, 256), last})
	}
}

func (s *charSet) has(c rune) bool {
	found := c < 256 && s.low[c]
	for i := 0; i < len(s.others) && !found; i++ {
		found = s.others[i].first <= c && c <= s.others[i].last
	}
	return found != s.negated && c != '/'
}

// units are the characters of patterns and names: bytes, as for git, or Unicode characters.
type units bool

const (
	ofBytes units = false
	ofRunes units = true
)

// first returns the first character of s, which is not empty, and its size in bytes.
func (u units) first(s string) (rune, int) {
	if u == ofRunes && s[0] >= utf8.RuneSelf {
		return utf8.DecodeRuneInString(s)
	}
	return rune(s[0]), 1
}

type tokenKind uint8

const (
	tokenChar   tokenKind = iota
	tokenOne              // any character but a slash
	tokenSet              // any character of set
	tokenStar             // any characters but slashes
	tokenDeep             // any characters
	tokenDirs             // nothing, or the tokenInside that always follows
	tokenInside           // any characters that end in a slash
)

// parseWildcards reads a pattern; wildcard is the offset of its first wildcard. A problem describes an invalid pattern.
func parseWildcards(pattern string, wildcard int, byName bool, u units) (tokens []token, problem string) {
	for i := 0; i < len(pattern); {
		switch c := pattern[i]; c {
		case '\\':
			if i+1 == len(pattern) {
				return nil, `ends in a backslash, so that it matches nothing; write \\ for a backslash`
			}
			char, size := u.first(pattern[i+1:])
			tokens = append(tokens, token{kind: tokenChar, char: char})
			i += 1 + size
		case '?':
			tokens = append(tokens, token{kind: tokenOne})
			i++
		case '*':
			stars, length := parseStars(pattern, i, i == wildcard, byName)
			tokens = append(tokens, stars...)
			i += length
		case '[':
			set, length, problem := parseSet(pattern[i:], u)
			if problem != "" {
				return nil, problem
			}
			tokens = append(tokens, token{kind: tokenSet, set: set})
			i += length
		default:
			char, size := u.first(pattern[i:])
			tokens = append(tokens, token{kind: tokenChar, char: char})
			i += size
		}
	}
	return tokens, ""
}

// parseStars reads the stars at offset i of a pattern, with a following slash if they stand for whole directories. It returns
// the number of bytes read.
func parseStars(pattern string, i int, isFirstWildcard, byName bool) ([]token, int) {
	end := i
	for end < len(pattern) && pattern[end] == '*' {
		end++
	}
	rest := pattern[end:]
	opens := i == 0 || pattern[i-1] == '/' || isFirstWildcard
	closes := rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`)
	switch {
	case byName || end-i < 2 || !opens || !closes:
		return []token{{kind: tokenStar}}, end - i
	case rest != "" && rest[0] == '/':
		return []token{{kind: tokenDirs}, {kind: tokenInside}}, end - i + 1
	default:
		return []token{{kind: tokenDeep}}, end - i
	}
}

const unclosed = `has a [ without its ], so that it matches nothing; write \[ for the character`

// parseSet reads a bracket expression at the beginning of s. It returns the number of bytes read.
func parseSet(s string, u units) (set *charSet, length int, problem string) {
	p := setParser{s: s, i: 1, units: u, set: new(charSet)}
	if p.i < len(s) && (s[p.i] == '!' || s[p.i] == '^') {
		p.set.negated = true
		p.i++
	}
	for first := true; ; first = false {
		if p.i >= len(s) {
			return nil, 0, unclosed
		}
		if s[p.i] == ']' && !first {
			break
		}
		if problem := p.item(); problem != "" {
			return nil, 0, problem
		}
	}
	return p.set, p.i + 1, ""
}

// A setParser reads the items of a bracket expression.
type setParser struct {
	s     string
	i     int // the offset of the next character
	units units
	set   *charSet
	low   rune // the last single character, with which a range may begin; 0 for none
}

// item reads a range, a character class or a character.
func (p *setParser) item() (problem string) {
	if p.s[p.i] == '-' && p.low > 0 && p.i+1 < len(p.s) && p.s[p.i+1] != ']' {
		p.i++
		if !p.unescape() {
			return unclosed
		}
		high, size := p.units.first(p.s[p.i:])
		p.set.add(p.low, high)
		p.low = 0
		p.i += size
		return ""
	}
	if isClass, problem := p.class(); isClass || problem != "" {
		return problem
	}
	if !p.unescape() {
		return unclosed
	}
	char, size := p.units.first(p.s[p.i:])
	p.set.add(char, char)
	p.low = char
	p.i += size
	return ""
}

// unescape skips a backslash; false if nothing follows it.
func (p *setParser) unescape() bool {
	if p.s[p.i] == '\\' {
		p.i++
	}
	return p.i < len(p.s)
}

// class reads a character class; false if there is none.
func (p *setParser) class() (isClass bool, problem string) {
	if !strings.HasPrefix(p.s[p.i:], "[:") {
		return false, ""
	}
	text := p.s[p.i+2:]
	end := strings.IndexByte(text, ']')
	if end < 0 {
		return false, unclosed
	}
	name, ok := strings.CutSuffix(text[:end], ":")
	if !ok {
		return false, ""
	}
	class := classes[name]
	if class == nil {
		return false, fmt.Sprintf("has the unknown character class %q, so that it matches nothing; known are alnum, alpha, blank, cntrl, "+
			"digit, graph, lower, print, punct, space, upper and xdigit", name)
	}
	for c := range 128 {
		p.set.low[c] = p.set.low[c] || class(byte(c))
	}
	p.low = 0
	p.i += 2 + end + 1
	return true, ""
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

// matchWildcards reports whether the tokens match all of s. It tracks the set of positions in the pattern that are reachable, so its
// time is at most the product of the lengths: patterns come with the documents, and no pattern may stall a scan.
func matchWildcards(tokens []token, s string, u units) bool {
	var room [2][64]bool
	now, next := room[0][:], room[1][:]
	if len(tokens) >= len(now) {
		now, next = make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	}
	now, next = now[:len(tokens)+1], next[:len(tokens)+1]
	markReachable(tokens, now, 0)
	for s != "" {
		c, size := u.first(s)
		s = s[size:]
		alive := false
		for i := range tokens {
			if !now[i] {
				continue
			}
			if tokens[i].kind == tokenInside {
				next[i], alive = true, true
			}
			if to := tokens[i].accept(c, i); to >= 0 {
				markReachable(tokens, next, to)
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

// markReachable adds position i to set, and the positions that follow it without another byte.
func markReachable(tokens []token, set []bool, i int) {
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

// accept returns the position after the token at position i has read c; -1 if the token does not match.
func (t *token) accept(c rune, i int) int {
	switch t.kind {
	case tokenChar:
		if c == t.char {
			return i + 1
		}
	case tokenOne:
		if c != '/' {
			return i + 1
		}
	case tokenSet:
		if t.set.has(c) {
			return i + 1
		}
	case tokenStar:
		if c != '/' {
			return i
		}
	case tokenDeep:
		return i
	case tokenInside:
		if c == '/' {
			return i + 1
		}
	}
	return -1
}
