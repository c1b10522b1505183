package watcher

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// FilterOptions configure a Filter. The zero value takes the default document types and leaves out the default exclusions.
//
// A Filter takes a key if it passes all of these tests, in this order:
//
//  1. Own does not contain it.
//  2. The first glob that matches it, of Rules, then Exclude, then Include, takes it. If no glob matches it, it is left out if
//     there is an Include, and otherwise taken if it has a default document type.
//  3. No default exclusion matches it or a directory above it: version control, editor files, files of operating systems, lock
//     files of office programs, partial downloads, and likely secrets. A glob that takes a key lifts a default exclusion only by
//     name: its last part is plain text (".env.example") or the exclusion's own pattern ("*.pem"); for an excluded directory, one
//     of its parts is the directory's name (".git/**"). "**" lifts none.
//  4. No .kbsyncignore file ignores it; the syntax is that of .gitignore.
//
// Globs have doublestar's syntax: * and ? stop at slashes, ** does not, {a,b} and [a-z] are alternatives. As in rclone, a glob
// that begins with a slash is matched from the root, any other glob from any directory; a slash at its end means everything
// below the directory; and ** also matches zero directories. Unlike in rclone, excludes come before includes, because an upload
// by mistake is permanent. Rules allow any other order.
type FilterOptions struct {
	// Rules are the rules of --filter-from files; see ParseRules.
	Rules []Rule
	// Exclude are globs of documents to leave out.
	Exclude []string
	// Include are globs of documents to take.
	Include []string
	// Own are the keys of kbsync's own files; see OwnKeys. No rule can include them, nor keys that extend one of them by a dot or
	// a hyphen and more characters.
	Own []string
	// MaxSize is the size in bytes above which a document is skipped; zero for none.
	MaxSize int64
}

// A Rule takes or leaves out the documents that its glob matches.
type Rule struct {
	Include bool
	Glob    string
	Place   string // file and line, such as "filters.txt:3"
}

func (r Rule) String() string {
	if r.Include {
		return "+ " + r.Glob
	}
	return "- " + r.Glob
}

// ParseRules reads rules in rclone's syntax, one on each line: "+ glob" takes, "- glob" leaves out, "!" drops the rules before it.
// Empty lines and lines that start with # or ; are ignored. Messages contain the name. Errors: *PatternError.
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
			return nil, &PatternError{Place: place, Pattern: text, Problem: `is not a rule; begin the line with "+ " to take or "- " to leave out the matching documents`}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return rules, nil
}

// A PatternError describes an invalid pattern and the remedy.
type PatternError struct {
	Place   string // such as "include" or "filters.txt:3"
	Pattern string
	Problem string
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("%s: the pattern %q %s", e.Place, e.Pattern, e.Problem)
}

// A Filter decides which keys of a root are documents. Several goroutines may use it.
type Filter struct {
	rules      []glob // rules, excludes and includes, in order
	hasInclude bool   // keys that no rule matches are left out
	// below are the directories that contain all included documents, with a slash at the end; empty if they are not known.
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
			problem = `leaves out everything; write a narrower pattern, or put rules with "+ " before it`
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
	pattern  string // for doublestar, from the root
	anchored bool   // begins at the root
	all      bool   // matches every key
	suffix   string // if not empty, the pattern matches exactly the keys with this suffix
	dir      string // a pattern of the directories that the glob matches completely; empty for none
	last     string // the last part of the pattern
	names    []string
}

// compileGlob compiles a rule. A problem describes an invalid glob.
func compileGlob(r Rule) (g glob, problem string) {
	g.Rule = r
	text, anchored := strings.CutPrefix(r.Glob, "/")
	if strings.HasSuffix(text, "/") {
		text += "**"
	}
	g.names = strings.Split(text, "/")
	if problem := globProblem(text, g.names); problem != "" {
		return g, problem
	}
	g.last = g.names[len(g.names)-1]
	if base, ok := strings.CutSuffix(text, "/**"); ok {
		// Everything below the directory, without a file of that name.
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
	for _, part := range parts {
		switch {
		case part == "" || part == "." || part == "..":
			return fmt.Sprintf("has the part %q, which no key has, so that it matches nothing; write the path below the root as it is listed", part)
		case part != "**" && strings.Contains(part, "**") && !strings.ContainsAny(text, `{[\`):
			return "has ** inside a part, where it would not cross a slash; put it between slashes, as in **/*.md"
		}
	}
	return ""
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

// asksFor reports whether the glob names the entry that the exclusion leaves out.
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

// A verdict is a filter's decision on a key. The zero value takes the key.
type verdict struct {
	out    bool
	reason string // in words
	rule   string // the pattern that decided, if one did
	place  string // of the pattern
}

// document decides on a key. The filter has taken all its directories.
func (f *Filter) document(key string, ignores *ignoreFile) verdict {
	if f.isOwn(key) {
		return verdict{out: true, reason: "it is one of kbsync's own files"}
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
		return verdict{out: true, reason: "an ignore file leaves it out", rule: by.rule.text, place: by.place()}
	}
	return v
}

// directory decides on a directory; its key has no slash at the end. If it is out, no document below it is taken.
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

// lifts reports whether a glob names the entry that the exclusion leaves out: the document key, or something below the directory
// name if key is empty.
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

// skip returns why a document of this size must not be uploaded; empty if it may be.
func (f *Filter) skip(size int64) string {
	switch {
	case size == 0:
		return "empty"
	case f.maxSize > 0 && size > f.maxSize:
		return "larger than --max-size " + sizeText(f.maxSize)
	}
	return ""
}

// sizeText formats a size in the largest unit that gives a whole number.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for len(units) > 1 && n >= 1024 && n%1024 == 0 {
		n /= 1024
		units = units[1:]
	}
	return fmt.Sprintf("%d%s", n, units[0])
}

// OwnKeys returns the keys of the paths inside the directory root. A path that does not exist yet is resolved by its directory.
func OwnKeys(root string, paths ...string) []string {
	root = realPath(root)
	var keys []string
	for _, path := range paths {
		// The file may be a link, as in a mounted ConfigMap. Neither the link nor its target is a document.
		link, target := filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path)), realPath(path)
		for _, p := range slices.Compact([]string{link, target}) {
			if rel, err := filepath.Rel(root, p); err == nil && filepath.IsLocal(rel) && rel != "." {
				keys = append(keys, filepath.ToSlash(rel))
			}
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

// An Explanation describes how a scan treats a key.
type Explanation struct {
	Key    string
	Taken  bool // the scan records it for upload, once it has settled
	Listed bool // it is a document of the root, possibly a skipped one
	Reason string
	Rule   string // the pattern that decides; empty for none
	Place  string // file and line of the pattern, such as "drafts/.kbsyncignore:3"
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
