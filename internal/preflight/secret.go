package preflight

import (
	"bytes"
	"path"
	"strings"
)

// secrets are the texts that begin a credential, with the characters that must follow. The list is short: a text that only talks
// about credentials must not match.
var secrets = []struct {
	name, start string
	length      int // the fewest characters that must follow
	chars       string
}{
	{"an AWS access key", "AKIA", 16, upperDigits},
	{"a GitHub token", "ghp_", 36, alnum},
	{"a GitHub token", "gho_", 36, alnum},
	{"a GitHub token", "ghs_", 36, alnum},
	{"a GitHub token", "github_pat_", 60, alnum + "_"},
	{"a GitLab token", "glpat-", 20, alnum + "_-"},
	{"a Slack token", "xoxb-", 20, alnum + "-"},
	{"a Slack token", "xoxp-", 20, alnum + "-"},
	{"a Google API key", "AIza", 35, alnum + "_-"},
	{"a Stripe key", "sk_live_", 24, alnum},
	{"an npm token", "npm_", 36, alnum},
}

const (
	upperDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	alnum       = upperDigits + "abcdefghijklmnopqrstuvwxyz"
)

// shortestToken is the length of the shortest token of secrets, and tokenChars are the characters of all of them.
const (
	shortestToken = 20
	tokenChars    = alnum + "_-"
)

var isTokenChar = func() (is [256]bool) {
	for _, c := range []byte(tokenChars) {
		is[c] = true
	}
	return is
}()

// secret finds credentials in texts.
func (s *sample) secret(r *Report) {
	switch kindOf(s.name).family {
	case familyText, familyMarkup, familyOther:
	default:
		return
	}
	for _, data := range s.parts() {
		if hasPrivateKey(data) {
			if strings.EqualFold(path.Ext(s.name), ".json") {
				r.add(Block, Secret, "is a credential: JSON with a private key in it")
				return
			}
			r.add(Warn, Secret, "has a private key in it")
			return
		}
		if name := tokenIn(data); name != "" {
			r.add(Warn, Secret, "has %s in it", name)
			return
		}
	}
}

// parts returns the seen parts of the content.
func (s *sample) parts() [][]byte {
	if s.whole {
		return [][]byte{s.head}
	}
	return [][]byte{s.head, s.tail}
}

// hasPrivateKey reports whether data has a private key in PEM or of OpenPGP, with a line of it: documentation often shows the
// first line alone.
func hasPrivateKey(data []byte) bool {
	const marker = "PRIVATE KEY"
	for {
		at := bytes.Index(data, []byte(marker))
		if at < 0 {
			return false
		}
		line := data[max(0, at-40):at]
		data = data[at+len(marker):]
		if begin := bytes.LastIndex(line, []byte("-----BEGIN ")); begin < 0 || bytes.ContainsAny(line[begin:], "\n\r") {
			continue
		}
		rest := bytes.TrimPrefix(data, []byte(" BLOCK"))
		rest, ok := bytes.CutPrefix(rest, []byte("-----"))
		if !ok {
			continue
		}
		// In JSON a line ends in a backslash and an n.
		body := bytes.TrimLeft(rest, "\\nr\r\n\t ")
		if length := run(body, alnum+"+/="); length >= 24 {
			return true
		}
		if bytes.HasPrefix(body, []byte("Proc-Type")) || bytes.HasPrefix(body, []byte("Version")) {
			return true
		}
	}
}

// tokenIn returns the name of a token that data has, or "". It looks at one byte of every shortestToken, because each token covers such
// a byte, and only then at the word around it.
func tokenIn(data []byte) string {
	for at := shortestToken - 1; at < len(data); at += shortestToken {
		if !isTokenChar[data[at]] {
			continue
		}
		start, end := at, at+1
		for start > 0 && isTokenChar[data[start-1]] {
			start--
		}
		for end < len(data) && isTokenChar[data[end]] {
			end++
		}
		if word := data[start:end]; len(word) >= shortestToken {
			for _, x := range secrets {
				if hasToken(word, x.start, x.length, x.chars) {
					return x.name
				}
			}
		}
		at = end
	}
	return ""
}

// hasToken reports whether data has start, not within a word, with at least length of the characters after it.
func hasToken(data []byte, start string, length int, chars string) bool {
	for {
		at := bytes.Index(data, []byte(start))
		if at < 0 {
			return false
		}
		within := at > 0 && strings.IndexByte(alnum+"_", data[at-1]) >= 0
		data = data[at+len(start):]
		if !within && run(data[:min(len(data), length)], chars) == length {
			return true
		}
	}
}

// run returns how many bytes of data, from the first, are in chars.
func run(data []byte, chars string) int {
	for i, c := range data {
		if strings.IndexByte(chars, c) < 0 {
			return i
		}
	}
	return len(data)
}
