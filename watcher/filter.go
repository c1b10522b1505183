package watcher

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// FilterOptions of a Filter. The zero value takes the default document types and leaves out the default exclusions.
//
// A key is taken if it passes all of these, which are asked in this order:
//
//  1. It is none of Own.
//  2. The first glob that matches it, of Rules, then Exclude, then Include, takes it. If none matches it, it is left out where
//     there is an Include, and otherwise taken if it is of a default document type.
//  3. No default exclusion matches it or a directory above it: version control, editor files, droppings of operating systems, lock files
//     of office programs, partial downloads, and what looks like a secret. A glob that takes a key lifts a default exclusion only if
//     it asks for it by name: its last part is plain text (".env.example"), or the exclusion's own pattern ("*.pem"); for an
//     excluded directory, one of its parts is the directory's name (".git/**"). "**" lifts none.
//  4. No .kbsyncignore file ignores it, as git would by a .gitignore of that content.
//
// Globs are those of doublestar: * and ? stop at slashes, ** does not, {a,b} and [a-z] are alternatives. As with rclone, a glob
// that begins with a slash is matched from the root, any other from any directory; one that ends in a slash means all below
// the directory; and ** matches zero directories, too. Unlike rclone, an exclude is asked before an include, for what was
// uploaded by mistake can't be taken back; Rules are there for any other order.
type FilterOptions struct {
	// Rules are those of --filter-from files, see ParseRules.
	Rules []Rule
	// Exclude are globs of documents to leave out.
	Exclude []string
	// Include are globs of documents to take.
	Include []string
	// Own are keys of files of kbsync's own, see OwnKeys. They are left out whatever the rules say, together with what differs
	// from them only by an ending that starts with a dot or a hyphen.
	Own []string
	// MaxSize is the size in bytes above which a document is skipped; zero for none.
	MaxSize int64
}

// A Rule takes or leaves out the documents that its glob matches.
type Rule struct {
	Include bool
	Glob    string
	Place   string // where it stands, such as "filters.txt:3"
}

func (r Rule) String() string {
	if r.Include {
		return "+ " + r.Glob
	}
	return "- " + r.Glob
}

// ParseRules reads rules in rclone's syntax, one a line: "+ glob" takes, "- glob" leaves out, "!" forgets the rules before it,
// lines that start with # or ; and empty ones say nothing. The name is for messages. Errors: *PatternError.
func ParseRules(r io.Reader, name string) ([]Rule, error) {
	var rules []Rule
	lines := bufio.NewScanner(r)
	for line := 1; lines.Scan(); line++ {
		text := strings.TrimSpace(lines.Text())
		if line == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		place := fmt.Sprintf("%s:%d", name, line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text == "!":
			rules = nil
		case strings.HasPrefix(text, "+ "), strings.HasPrefix(text, "- "):
			rules = append(rules, Rule{Include: text[0] == '+', Glob: strings.TrimSpace(text[2:]), Place: place})
		default:
			return nil, &PatternError{Place: place, Pattern: text, Problem: `is no rule; begin the line with "+ " to take or "- " to leave out what the pattern matches`}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return rules, nil
}

// A PatternError says what is wrong with a pattern, and what to write instead.
type PatternError struct {
	Place   string // such as "include" or "filters.txt:3"
	Pattern string
	Problem string
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("%s: the pattern %q %s", e.Place, e.Pattern, e.Problem)
}

// A Filter decides which keys of a root are documents. It may be used by several goroutines.
type Filter struct {
	rules      []glob // of all three kinds, in the order in which they are asked
	hasInclude bool   // what no rule matches is left out
	// below are the directories that all included documents are in, with a slash at the end; empty if that is not known.
	below   []string
	own     []string
	maxSize int64
}

// NewFilter checks the patterns. Errors: *PatternError, several joined.
func NewFilter(opts FilterOptions) (*Filter, error) {
	f := &Filter{own: opts.Own, maxSize: opts.MaxSize, hasInclude: len(opts.Include) > 0}
	rules := append([]Rule(nil), opts.Rules...)
	for _, g := range opts.Exclude {
		rules = append(rules, Rule{Glob: g, Place: "exclude"})
	}
	for _, g := range opts.Include {
		rules = append(rules, Rule{Include: true, Glob: g, Place: "include"})
	}
	var errs []error
	takes, anchored := false, f.hasInclude
	for _, r := range rules {
		g, problem := compileGlob(r)
		if problem == "" && g.all && !r.Include && !takes {
			problem = `leaves out everything; name what is to be left out, or put rules with "+ " before it`
		}
		if problem != "" {
			errs = append(errs, &PatternError{Place: r.Place, Pattern: r.Glob, Problem: problem})
			continue
		}
		f.rules = append(f.rules, g)
		if r.Include {
			takes = true
			base, _ := doublestar.SplitPattern(g.pattern)
			anchored = anchored && g.anchored && base != "." && !strings.Contains(base, `\`)
			f.below = append(f.below, base+"/")
		}
	}
	if !anchored {
		f.below = nil
	}
	return f, errors.Join(errs...)
}

// A glob is a compiled rule.
type glob struct {
	Rule
	pattern  string // as doublestar wants it, from the root
	anchored bool   // begins at the root
	all      bool   // matches every key
	suffix   string // if not empty, the pattern matches the keys that end in it
	dir      string // matches the directories of which everything is matched; empty if there are none
	last     string // the last part of the pattern
	names    []string
}

// compileGlob returns the compiled rule or what is wrong with it.
func compileGlob(r Rule) (g glob, problem string) {
	g.Rule = r
	text, anchored := strings.CutPrefix(r.Glob, "/")
	if strings.HasSuffix(text, "/") {
		text += "**"
	}
	switch {
	case text == "":
		return g, "is empty and matches nothing; remove it"
	case strings.Contains(text, "{{"):
		return g, "uses a regular expression of rclone's, which kbsync does not know; write a glob"
	case !doublestar.ValidatePattern(text):
		return g, "is not valid; close every [ with ] and every { with }, and put a backslash before characters that are meant literally"
	}
	g.names = strings.Split(text, "/")
	for _, part := range g.names {
		switch {
		case part == "" || part == "." || part == "..":
			return g, fmt.Sprintf("has the part %q, which no key has, so that it matches nothing; write the path below the root as it is listed", part)
		case part != "**" && strings.Contains(part, "**") && !strings.ContainsAny(text, `{[\`):
			return g, "has ** inside a part, where it would not cross a slash; put it between slashes, as in **/*.md"
		}
	}
	g.last = g.names[len(g.names)-1]
	if base, ok := strings.CutSuffix(text, "/**"); ok {
		// Everything below the directory, but not a file of that name.
		g.dir, text = base, base+"/**/*"
	} else if text == "**" {
		text = "**/*"
	}
	plain := strings.TrimPrefix(text, "**/")
	g.anchored = anchored && plain == text
	if !g.anchored {
		text = "**/" + plain
		if g.dir != "" && !strings.HasPrefix(g.dir, "**/") {
			g.dir = "**/" + g.dir
		}
		if rest, ok := strings.CutPrefix(plain, "*"); ok && rest != "" && !strings.ContainsAny(rest, `*?[]{}\/`) {
			g.suffix = rest
		}
	}
	g.pattern = text
	g.all = text == "**/*" || text == "**/**/*"
	return g, ""
}

func (g *glob) match(key string) bool {
	switch {
	case g.all:
		return true
	case g.suffix != "":
		return strings.HasSuffix(key, g.suffix)
	default:
		return doublestar.MatchUnvalidated(g.pattern, key)
	}
}

// asksFor says whether the glob names what the exclusion leaves out.
func (g *glob) asksFor(x *exclusion, name string) bool {
	if !x.dir {
		return g.last == name || strings.EqualFold(g.last, x.pattern)
	}
	for _, part := range g.names {
		if part == name {
			return true
		}
	}
	return false
}

// A verdict is what a filter makes of a key. Its zero value takes it.
type verdict struct {
	out    bool
	reason string // in words
	rule   string // the pattern that decided, if one did
	place  string // where that stands
}

// document decides on a key whose directories were all taken.
func (f *Filter) document(key string, ignores *ignoreFile) verdict {
	if f.isOwn(key) {
		return verdict{out: true, reason: "it is a file of kbsync's own"}
	}
	v := verdict{reason: "it is of a default document type"}
	decided := false
	for i := range f.rules {
		if g := &f.rules[i]; g.match(key) {
			if !g.Include {
				return verdict{out: true, reason: "an exclude matches it", rule: g.Glob, place: g.Place}
			}
			v, decided = verdict{reason: "an include matches it", rule: g.Glob, place: g.Place}, true
			break
		}
	}
	switch {
	case decided:
	case f.hasInclude:
		return verdict{out: true, reason: "no include matches it"}
	case !hasDefaultType(key):
		return verdict{out: true, reason: "it is not of a default document type, and there is no include"}
	}
	name := key[strings.LastIndexByte(key, '/')+1:]
	if x := fileExclusions.find(name); x != nil && !f.lifts(x, name, key) {
		return x.verdict()
	}
	if by, ok := ignores.match(key, false); ok && !by.rule.negated {
		return verdict{out: true, reason: "an ignore file says so", rule: by.rule.text, place: by.place()}
	}
	return v
}

// directory decides on a directory, whose key has no slash at its end: if it is out, no document below it can be in.
func (f *Filter) directory(key string, ignores *ignoreFile) verdict {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if x := directoryExclusions.find(name); x != nil && !f.lifts(x, name, "") {
		return x.verdict()
	}
	if by, ok := ignores.match(key, true); ok && !by.rule.negated {
		return verdict{out: true, reason: "an ignore file leaves out its directory", rule: by.rule.text, place: by.place()}
	}
	for i := range f.rules {
		g := &f.rules[i]
		if g.Include {
			break // it may match something below the directory
		}
		if g.all || g.dir != "" && doublestar.MatchUnvalidated(g.dir, key) {
			return verdict{out: true, reason: "an exclude matches its directory", rule: g.Glob, place: g.Place}
		}
	}
	for i, base := range f.below {
		if strings.HasPrefix(base, key) && base[len(key)] == '/' || strings.HasPrefix(key, base) {
			break
		}
		if i == len(f.below)-1 {
			return verdict{out: true, reason: "no include matches anything in its directory"}
		}
	}
	return verdict{}
}

// lifts says whether a glob asks for what the exclusion leaves out: for the document key, or for something below the directory
// name where key is empty.
func (f *Filter) lifts(x *exclusion, name, key string) bool {
	for i := range f.rules {
		if g := &f.rules[i]; g.Include && g.asksFor(x, name) && (key == "" || g.match(key)) {
			return true
		}
	}
	return false
}

func (f *Filter) isOwn(key string) bool {
	for _, own := range f.own {
		if rest, ok := strings.CutPrefix(key, own); ok && (rest == "" || (rest[0] == '.' || rest[0] == '-') && !strings.Contains(rest, "/")) {
			return true
		}
	}
	return false
}

// skip says why a document of this size is not to be uploaded; empty if it is.
func (f *Filter) skip(size int64) string {
	switch {
	case size == 0:
		return "empty"
	case f.maxSize > 0 && size > f.maxSize:
		return "larger than --max-size " + sizeText(f.maxSize)
	}
	return ""
}

// sizeText writes a size in the largest unit in which it is a whole number.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for len(units) > 1 && n >= 1024 && n%1024 == 0 {
		n /= 1024
		units = units[1:]
	}
	return fmt.Sprintf("%d%s", n, units[0])
}

// OwnKeys returns the keys that files have on the directory root, for those of the paths that are inside it. What does not exist yet
// is found by its directory.
func OwnKeys(root string, paths ...string) []string {
	root = realPath(root)
	var keys []string
	for _, path := range paths {
		// The file itself may be a link, as in a mounted ConfigMap; its key is where the link is.
		path = filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path))
		if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) && rel != "." {
			keys = append(keys, filepath.ToSlash(rel))
		}
	}
	return keys
}

func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return real
}

// An Explanation says what a scan makes of a key.
type Explanation struct {
	Key    string
	Taken  bool   // it would be uploaded, once it has settled
	Listed bool   // it is a document of the root, be it a skipped one
	Reason string // why, in words
	Rule   string // the pattern that decides; empty where none does
	Place  string // where that stands, such as "drafts/.kbsyncignore:3"
}

func (e Explanation) String() string {
	word := "left out"
	switch {
	case e.Taken:
		word = "taken"
	case e.Listed:
		word = "skipped"
	}
	text := fmt.Sprintf("%s: %s", word, e.Reason)
	if e.Rule != "" {
		text += fmt.Sprintf(" (%s: %s)", cmp.Or(e.Place, "rule"), e.Rule)
	}
	return text
}
