package watcher

import (
	"fmt"
	"strings"
)

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
	tokenDirs             // nothing, or the tokenInside that always follows
	tokenInside           // any bytes that end in a slash
)

// parseWildcards reads a pattern; wildcard is the offset of its first wildcard. A problem describes an invalid pattern.
func parseWildcards(pattern string, wildcard int, byName bool) (tokens []token, problem string) {
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
			stars, length := parseStars(pattern, i, i == wildcard, byName)
			tokens = append(tokens, stars...)
			i += length
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
func parseSet(s string) (set *[256]bool, length int, problem string) {
	p := setParser{s: s, i: 1, set: new([256]bool)}
	negated := p.i < len(s) && (s[p.i] == '!' || s[p.i] == '^')
	if negated {
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
	if negated {
		for c := range p.set {
			p.set[c] = !p.set[c]
		}
	}
	p.set['/'] = false
	return p.set, p.i + 1, ""
}

// A setParser reads the items of a bracket expression.
type setParser struct {
	s   string
	i   int // the next byte
	set *[256]bool
	low int // the last single byte, with which a range may begin; 0 for none
}

// item reads a range, a character class or a byte.
func (p *setParser) item() (problem string) {
	if p.s[p.i] == '-' && p.low > 0 && p.i+1 < len(p.s) && p.s[p.i+1] != ']' {
		p.i++
		if !p.unescape() {
			return unclosed
		}
		for c := p.low; c <= int(p.s[p.i]); c++ {
			p.set[c] = true
		}
		p.low = 0
		p.i++
		return ""
	}
	if isClass, problem := p.class(); isClass || problem != "" {
		return problem
	}
	if !p.unescape() {
		return unclosed
	}
	p.set[p.s[p.i]] = true
	p.low = int(p.s[p.i])
	p.i++
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
		p.set[c] = p.set[c] || class(byte(c))
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
func matchWildcards(tokens []token, s string) bool {
	var room [2][64]bool
	now, next := room[0][:], room[1][:]
	if len(tokens) >= len(now) {
		now, next = make([]bool, len(tokens)+1), make([]bool, len(tokens)+1)
	}
	now, next = now[:len(tokens)+1], next[:len(tokens)+1]
	markReachable(tokens, now, 0)
	for _, c := range []byte(s) {
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
func (t *token) accept(c byte, i int) int {
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
		if t.set[c] {
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
