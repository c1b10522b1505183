package watcher

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// A glob is a compiled rule.
type glob struct {
	Rule
	pattern  string // for doublestar, from the root; an exclude's also matches everything below what it names
	loose    string // the pattern in the form of fold for an exclude, of foldEndings for an include
	anchored bool   // begins at the root
	all      bool   // matches every key
	suffix   string // if not empty, an exclude leaves out exactly the names with this suffix, in the form of fold
	dir      string // a pattern of the directories that the glob matches completely; empty for none
	looseDir string // dir in the form of fold
	hasSet   bool   // has a bracket expression, which may match a name but not the form of fold
	parts    []string
}

// A subject is a key in the forms in which globs compare it.
type subject struct {
	key    string
	folded string // in the form of fold
	ascii  bool
}

func newSubject(key string) subject {
	s := subject{key: key, folded: fold(key)}
	s.ascii = isASCII(key)
	return s
}

// compileGlob compiles a rule. A problem describes an invalid glob.
func compileGlob(r Rule) (g glob, problem string) {
	g.Rule = r
	text, anchored := strings.CutPrefix(r.Glob, "/")
	if strings.HasSuffix(text, "/") {
		text += "**"
	}
	g.parts = strings.Split(text, "/")
	if problem := globProblem(text, g.parts); problem != "" {
		return g, problem
	}
	if base, ok := strings.CutSuffix(text, "/**"); ok {
		// Everything below the directory, without a file of that name.
		g.dir, text = base, base+"/**/*"
	} else if text == "**" {
		text = "**/*"
	}
	plain := strings.TrimPrefix(text, "**/")
	g.anchored = anchored && plain == text
	g.all = plain == "*" && (!g.anchored || !r.Include) || text == "**/**/*"
	if !r.Include && g.dir == "" && !g.all {
		// What an exclude names may be a directory. The pattern matches it and everything below it.
		g.dir = text
		if rest, ok := strings.CutPrefix(plain, "*"); ok && !g.anchored && rest != "" && !strings.ContainsAny(rest, `*?[]{}\/`) {
			g.suffix = fold(rest)
		}
		text += "/**"
	}
	g.pattern = fromRoot(text, g.anchored)
	if g.dir != "" {
		g.dir = fromRoot(g.dir, g.anchored)
	}
	g.hasSet = strings.Contains(text, "[")
	if r.Include {
		g.loose = foldEndings(g.pattern)
	} else {
		g.loose, g.looseDir = fold(g.pattern), fold(g.dir)
	}
	return g, ""
}

// fromRoot returns a pattern that doublestar matches from the root.
func fromRoot(text string, anchored bool) string {
	if anchored {
		return text
	}
	return "**/" + strings.TrimPrefix(text, "**/")
}

// globProblem returns the problem of a glob with these parts; empty if it is valid.
func globProblem(text string, parts []string) string {
	switch {
	case text == "":
		return "is empty and matches nothing; remove it"
	case strings.Contains(text, "{{"):
		return "uses a regular expression as in rclone, which kbsync does not support; write a glob"
	case !doublestar.ValidatePattern(text):
		return "is not valid; close every [ with ] and every { with }, and put a backslash before literal characters"
	}
	if problem := patternProblem(text); problem != "" {
		return problem
	}
	for _, part := range parts {
		if problem := partProblem(part); problem != "" {
			return problem
		}
		if part != "**" && strings.Contains(part, "**") && !strings.ContainsAny(text, `{[\`) {
			return "has ** inside a part, where it would not cross a slash; put it between slashes, as in **/*.md"
		}
	}
	return ""
}

// excludes reports whether an exclude matches a key, or a directory above it, in any case and Unicode form. A needless exclude
// costs nothing; a missed one is permanent.
func (g *glob) excludes(s *subject) bool {
	switch {
	case g.all:
		return true
	case g.suffix != "" && s.ascii:
		at := strings.Index(s.folded, g.suffix)
		for ; at >= 0; at = nextIndex(s.folded, g.suffix, at) {
			end := at + len(g.suffix)
			if end == len(s.folded) || s.folded[end] == '/' {
				return true
			}
		}
		return false
	}
	return g.either(g.pattern, g.loose, s)
}

// nextIndex returns the index of the next text in s after the one at index at; -1 if there is none.
func nextIndex(s, text string, at int) int {
	next := strings.Index(s[at+1:], text)
	if next < 0 {
		return -1
	}
	return at + 1 + next
}

// excludesBelow reports whether an exclude matches everything below a directory.
func (g *glob) excludesBelow(s *subject) bool {
	return g.all || g.dir != "" && g.either(g.dir, g.looseDir, s) || g.suffix != "" && g.excludes(s)
}

// either matches the folded forms and, where these may match less, the exact ones.
func (g *glob) either(exact, loose string, s *subject) bool {
	if doublestar.MatchUnvalidated(loose, s.folded) {
		return true
	}
	return (g.hasSet || !s.ascii) && doublestar.MatchUnvalidated(exact, s.key)
}

// A degree is how well an include matches a key.
type degree uint8

const (
	noMatch degree = iota
	looseMatch
	exactMatch
)

// includes reports how an include matches a key: exactly, or if the case of endings and the Unicode form are ignored.
func (g *glob) includes(key string) degree {
	if g.all || doublestar.MatchUnvalidated(g.pattern, key) {
		return exactMatch
	}
	loose := foldEnding(key)
	if (loose != key || g.loose != g.pattern) && doublestar.MatchUnvalidated(g.loose, loose) {
		return looseMatch
	}
	return noMatch
}

// asksFor reports whether a glob that takes keys names an entry that the exclusion leaves out. The last part of the glob, or for a
// directory any part, is read as a name: if the exclusion leaves it out, the glob asks for what it leaves out.
func (g *glob) asksFor(x *exclusion, name string) bool {
	if !x.dir {
		return x.matches(strings.ToLower(g.parts[len(g.parts)-1]))
	}
	for _, part := range g.parts {
		if x.matches(strings.ToLower(part)) && (part == name || doublestar.MatchUnvalidated(part, name)) {
			return true
		}
	}
	return false
}

// hint returns what an include that matched nothing may have meant; empty if nothing is known.
func (g *glob) hint() string {
	name := strings.TrimPrefix(g.Glob, ".")
	if !g.Include || strings.ContainsAny(name, `*?[{/.\`) {
		return ""
	}
	return fmt.Sprintf("for the ending write *.%s, for a folder %s/**", name, name)
}

// namesExcludedDirectory reports whether a part of the glob reads as the name of a directory that a default exclusion leaves out.
func (g *glob) namesExcludedDirectory() bool {
	for _, part := range g.parts {
		if directoryExclusions.find(part) != nil {
			return true
		}
	}
	return false
}
