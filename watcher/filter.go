package watcher

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// FilterOptions configure a Filter. The zero value takes the default document types and leaves out the default exclusions.
//
// A Filter takes a key if it passes all of these tests, in this order:
//
//  1. Own and OwnState do not contain it, and it is no .kbsyncignore file.
//  2. The first glob that matches it, of Rules, then Exclude, then Include, takes it. If no glob matches it, it is left out if
//     there is an Include, and otherwise taken if it has a default document type.
//  3. No .kbsyncignore file ignores it; the syntax is that of .gitignore.
//  4. No default exclusion matches it or a directory above it; see DefaultExclusions. A glob that takes a key lifts a default exclusion
//     only by name: its last part is a name or a pattern that the exclusion covers (".env.example", "*.pem"); for an excluded
//     directory, one of its parts is (".git/**"). "**" lifts none.
//
// Globs have doublestar's syntax: * and ? stop at slashes, ** does not, {a,b} and [a-z] are alternatives. As in rclone, a glob
// that begins with a slash is matched from the root, any other glob from any directory; a slash at its end means everything
// below the directory; and ** also matches zero directories. Unlike in rclone, excludes come before includes, because an upload
// by mistake is permanent. Rules allow any other order.
//
// A glob that leaves out also matches everything below a directory that it names, ignores case, and matches both Unicode forms of a
// name (NFC and NFD). A glob that takes ignores the case of endings and the Unicode form, and nothing else; where only that
// makes it match, a later glob that leaves out the key decides, except one that leaves out everything.
type FilterOptions struct {
	// Rules are the rules of --filter-from files; see ParseRules.
	Rules []Rule
	// Exclude are globs of documents to leave out.
	Exclude []string
	// Include are globs of documents to take.
	Include []string
	// Own are the keys of kbsync's own files, and OwnState those of SQLite states, whose side files are kbsync's own as well; see
	// OwnKeys. No rule can include them.
	Own, OwnState []string
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
// Empty lines and lines that start with # or ; are ignored. Editors may have written the file in UTF-8 or UTF-16. Messages contain
// the name. Errors: *PatternError, *RuleFileError.
func ParseRules(r io.Reader, name string) ([]Rule, error) {
	var data bytes.Buffer
	if _, err := data.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	lines, err := decodeRules(data.Bytes())
	if err != nil {
		return nil, &RuleFileError{Path: name, Err: err}
	}
	var rules []Rule
	for i, text := range lines {
		text = strings.TrimSpace(text)
		place := fmt.Sprintf("%s:%d", name, i+1)
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
	return rules, nil
}

// A Filter decides which keys of a root are documents. Several goroutines may use it.
type Filter struct {
	rules       []glob // rules, excludes and includes, in order
	hasExclude  bool
	hasInclude  bool // keys that no rule matches are left out
	asksForDirs bool // an include may name a directory that a default exclusion leaves out
	// below are the directories that contain all included documents, with a slash at the end; empty if they are not known.
	below   []string
	own     ownFiles
	maxSize int64
}

// NewFilter checks the patterns. Errors: *PatternError, several joined.
func NewFilter(opts FilterOptions) (*Filter, error) {
	f := &Filter{own: newOwnFiles(opts.Own, opts.OwnState), maxSize: opts.MaxSize, hasInclude: len(opts.Include) > 0}
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
		if !r.Include {
			f.hasExclude = true
			continue
		}
		takes = true
		base, _ := doublestar.SplitPattern(g.pattern)
		// A folder is compared with the names as they are. A glob that is not ASCII also takes the other Unicode form.
		anchored = anchored && g.anchored && base != "." && !strings.Contains(base, `\`) && isASCII(base)
		f.below = append(f.below, base+"/")
		f.asksForDirs = f.asksForDirs || g.namesExcludedDirectory()
	}
	if !anchored {
		f.below = nil
	}
	return f, errors.Join(errs...)
}

// The reasons for which a key is left out, as counts show them. A default exclusion has its own; see exclusion.
const (
	leftByExclude    = "an exclude"
	leftByIgnoreFile = "an ignore file"
	leftByType       = "not of a default document type"
	leftByNoInclude  = "no include matches"
)

// OwnFilesKind is the reason for which kbsync's own files are left out, as counts show it.
const OwnFilesKind = "kbsync's own files"

// A verdict is a filter's decision on a key. The zero value takes the key.
type verdict struct {
	out    bool
	kind   string // why the key is left out, as counts show it
	reason string // in words
	rule   string // the pattern that decided, if one did
	place  string // of the pattern
}

// A tally notes which rules of a filter matched something; nil if nothing is counted.
type tally []bool

// document decides on a key. The filter has taken all its directories.
func (f *Filter) document(key string, ignores *ignoreFile, matched tally) verdict {
	s := subject{key: key, folded: key}
	if f.hasExclude || !f.own.empty() {
		s = newSubject(key)
	}
	if !f.own.empty() && f.own.has(s.folded) || baseName(key) == ignoreName {
		return verdict{out: true, kind: OwnFilesKind, reason: "it is one of kbsync's own files"}
	}
	v, decided := f.byRules(&s, matched)
	// The ignore files are asked in any case, if somebody counts what their rules match.
	if matched != nil || !v.out {
		if ignored, ok := ignores.out(key, false); ok && !v.out {
			v = ignored
		}
	}
	if v.out {
		return v
	}
	name := baseName(key)
	if x := fileExclusions.find(name); x != nil && !f.lifts(x, name, key) {
		return x.verdict()
	}
	if f.asksForDirs {
		if x := f.excludedAbove(key); x != nil {
			return x.verdict()
		}
	}
	switch {
	case decided:
	case f.hasInclude:
		return verdict{out: true, kind: leftByNoInclude, reason: "no include matches it"}
	case !hasDefaultType(key):
		return verdict{out: true, kind: leftByType, reason: "it is not of a default document type, and there is no include"}
	}
	return v
}

// byRules decides by the first rule that matches. An include that matches loosely yields to the excludes after it, except one of
// everything: it must not take what an exclude was meant to leave out. decided is false if no rule matches.
func (f *Filter) byRules(s *subject, matched tally) (v verdict, decided bool) {
	v = verdict{reason: "it is of a default document type"}
	ended := false
	for i := range f.rules {
		g := &f.rules[i]
		if ended && (matched == nil || matched[i]) {
			continue
		}
		how := noMatch
		if g.Include {
			how = g.includes(s.key)
		} else if g.excludes(s) {
			how = exactMatch
		}
		if how == noMatch {
			continue
		}
		if matched != nil {
			matched[i] = true
		}
		switch {
		case ended:
		case !g.Include && !(decided && g.all):
			v, decided, ended = verdict{out: true, kind: leftByExclude, reason: "an exclude matches it", rule: g.Glob, place: g.Place}, true, true
		case g.Include && !decided:
			v, decided = verdict{reason: "an include matches it", rule: g.Glob, place: g.Place}, true
			ended = how == exactMatch
		case g.Include:
			ended = how == exactMatch
		}
	}
	return v, decided
}

// directory decides on a directory; its key has no slash at the end. If it is out, no document below it is taken.
func (f *Filter) directory(key string, ignores *ignoreFile, matched tally) verdict {
	v := f.directoryByRules(key, matched)
	if matched != nil || !v.out {
		if ignored, ok := ignores.out(key, true); ok && !v.out {
			v = ignored
		}
	}
	if v.out {
		return v
	}
	name := baseName(key)
	if x := directoryExclusions.find(name); x != nil && !f.lifts(x, name, "") {
		return x.verdict()
	}
	for i, base := range f.below {
		if strings.HasPrefix(base, key) && base[len(key)] == '/' || strings.HasPrefix(key, base) {
			break
		}
		if i == len(f.below)-1 {
			return verdict{out: true, kind: leftByNoInclude, reason: "no include matches anything in its directory"}
		}
	}
	return verdict{}
}

// directoryByRules decides by the excludes before the first include, which may match something below the directory.
func (f *Filter) directoryByRules(key string, matched tally) (v verdict) {
	if !f.hasExclude {
		return v
	}
	s := newSubject(key)
	include := false
	for i := range f.rules {
		g := &f.rules[i]
		include = include || g.Include
		if g.Include || (v.out || include) && (matched == nil || matched[i]) || !g.excludesBelow(&s) {
			continue
		}
		if matched != nil {
			matched[i] = true
		}
		if !v.out && !include {
			v = verdict{out: true, kind: leftByExclude, reason: "an exclude matches its directory", rule: g.Glob, place: g.Place}
		}
	}
	return v
}

// lifts reports whether a glob names the entry that the exclusion leaves out: the document key, or something below the directory
// name if key is empty.
func (f *Filter) lifts(x *exclusion, name, key string) bool {
	for i := range f.rules {
		if g := &f.rules[i]; g.Include && g.asksFor(x, name) && (key == "" || g.includes(key) == exactMatch) {
			return true
		}
	}
	return false
}

// excludedAbove returns the default exclusion of a directory above the key, if no glob that matches the key names the directory: an
// include of one document in .config must not take the others.
func (f *Filter) excludedAbove(key string) *exclusion {
	start := 0
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		name := key[start:i]
		start = i + 1
		if x := directoryExclusions.find(name); x != nil && !f.lifts(x, name, key) {
			return x
		}
	}
	return nil
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
