package watcher

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
)

// A Surveyor is a root that can count what a listing leaves out.
type Surveyor interface {
	// Survey lists all documents as List does, and counts what it leaves out. left is complete when the iteration has ended.
	Survey(ctx context.Context, left *LeftOut) iter.Seq2[Entry, error]
}

var (
	_ Surveyor = (*Directory)(nil)
	_ Surveyor = (*Bucket)(nil)
)

// Bounds of a LeftOut.
const (
	keptEndings   = 40
	keptUnmatched = 100
	// OtherEndings counts the files whose ending is not counted by itself.
	OtherEndings = "other"
	// NoEnding counts the files without an ending.
	NoEnding = "no ending"
)

// A LeftOut counts what a listing of the whole root left out, in bounded memory. The zero value is ready to use.
type LeftOut struct {
	// Groups are the files and directories that were left out, by reason, the largest first.
	Groups []LeftOutGroup
	// Links are the symbolic links that were not followed, and Special the entries that are neither files nor directories.
	Links, Special int
	// Unmatched are the first hundred rules that matched nothing; UnmatchedCount counts all.
	Unmatched      []UnmatchedRule
	UnmatchedCount int

	seen    bool  // the root holds a file or an object
	matched tally // by rule of the filter
}

// A LeftOutGroup counts the entries that were left out for one reason.
type LeftOutGroup struct {
	Reason      string         // "an exclude", "not of a default document type", or the kind of a DefaultExclusion
	Files       int            // those of directories that were not entered are not known
	Endings     map[string]int // files by ending, in lower case with its dot; OtherEndings and NoEnding
	Directories int            // directories that were not entered
}

// An UnmatchedRule is a rule that matched nothing.
type UnmatchedRule struct {
	Rule  string
	Place string // "exclude", "include", or the file and line
	Hint  string // what the rule may have meant; empty if nothing is known
}

func (r UnmatchedRule) String() string {
	text := r.Place + ": the rule " + r.Rule + " matched nothing"
	if r.Hint != "" {
		text += "; " + r.Hint
	}
	return text
}

// Files returns the number of files that were left out, without kbsync's own.
func (l *LeftOut) Files() (n int) {
	for _, g := range l.Groups {
		if g.Reason != OwnFilesKind {
			n += g.Files
		}
	}
	return n
}

// Directories returns the number of directories that were not entered.
func (l *LeftOut) Directories() (n int) {
	for _, g := range l.Groups {
		n += g.Directories
	}
	return n
}

func (l *LeftOut) group(reason string) *LeftOutGroup {
	for i := range l.Groups {
		if l.Groups[i].Reason == reason {
			return &l.Groups[i]
		}
	}
	l.Groups = append(l.Groups, LeftOutGroup{Reason: reason, Endings: map[string]int{}})
	return &l.Groups[len(l.Groups)-1]
}

// file counts a file, if it was left out.
func (l *LeftOut) file(key string, v *verdict) {
	l.seen = true
	if !v.out {
		return
	}
	g := l.group(v.kind)
	g.Files++
	ending := endingOf(baseName(key))
	if _, ok := g.Endings[ending]; !ok && len(g.Endings) >= keptEndings {
		ending = OtherEndings
	}
	g.Endings[ending]++
}

// endingOf returns the ending of a name as counts show it.
func endingOf(name string) string {
	dot := strings.LastIndexByte(name, '.')
	switch ending := name[max(dot, 0):]; {
	case dot < 0 || len(ending) == 1:
		return NoEnding
	case len(ending) > 16 || !isASCII(ending) || strings.ContainsFunc(ending, func(r rune) bool { return r <= ' ' || r == 127 }):
		return OtherEndings
	default:
		return strings.ToLower(strings.Clone(ending))
	}
}

// directory counts a directory that was not entered. The rules about things below it are not known to match nothing.
func (l *LeftOut) directory(key string, v *verdict, f *Filter) {
	if l == nil {
		return
	}
	l.seen = true
	l.group(v.kind).Directories++
	name := fold(baseName(key))
	for i := range f.rules {
		g := &f.rules[i]
		if !l.matched[i] && !g.Include && slices.ContainsFunc(g.parts, func(part string) bool { return fold(part) == name }) {
			l.matched[i] = true
		}
	}
}

// entry counts an entry that is neither a file nor a directory. Links of programs, in hidden names, are not worth a count.
func (l *LeftOut) entry(key string, k kind) {
	switch {
	case fileExclusions.find(baseName(key)) != nil:
	case k == kindLink:
		l.Links++
	default:
		l.Special++
	}
}

// begin prepares the counts of a filter's rules.
func (l *LeftOut) begin(f *Filter) { *l = LeftOut{matched: make(tally, len(f.rules))} }

// rules returns the tally of the filter's rules; nil for a nil LeftOut.
func (l *LeftOut) rules() tally {
	if l == nil {
		return nil
	}
	return l.matched
}

// ignoreFile counts the rules of an ignore file whose directory was listed completely.
func (l *LeftOut) ignoreFile(f *ignoreFile) {
	for i, matched := range f.matched {
		if !matched {
			r := &f.rules[i]
			l.unmatched(UnmatchedRule{Rule: r.text, Place: f.place(r)})
		}
	}
}

func (l *LeftOut) unmatched(r UnmatchedRule) {
	if l.UnmatchedCount++; len(l.Unmatched) < keptUnmatched {
		l.Unmatched = append(l.Unmatched, r)
	}
}

// end completes the counts after a listing; complete is false if a part of the root was not listed.
func (l *LeftOut) end(f *Filter, complete bool) {
	slices.SortFunc(l.Groups, func(a, b LeftOutGroup) int {
		return cmp.Or(b.Files-a.Files, b.Directories-a.Directories, strings.Compare(a.Reason, b.Reason))
	})
	if !complete || !l.seen {
		// A rule may match something in the rest, and every rule matches nothing in an empty root.
		l.Unmatched, l.UnmatchedCount = nil, 0
		return
	}
	ofFiles := l.Unmatched
	l.Unmatched = nil
	for i := range f.rules {
		if g := &f.rules[i]; !l.matched[i] {
			l.unmatched(UnmatchedRule{Rule: g.Glob, Place: g.Place, Hint: g.hint()})
		}
	}
	l.Unmatched = append(l.Unmatched, ofFiles[:min(len(ofFiles), keptUnmatched-len(l.Unmatched))]...)
}
