package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/watcher"
)

// A leftOutView counts what a scan of the whole root left out.
type leftOutView struct {
	Files       int            `json:"files"`
	Directories int            `json:"directories"` // not entered
	Links       int            `json:"links"`       // symbolic links, not followed
	Special     int            `json:"special"`     // neither files nor directories
	Groups      []leftOutGroup `json:"groups"`
	// UnmatchedRules are the first hundred rules that matched nothing.
	UnmatchedRules []unmatchedRule `json:"unmatched_rules"`
}

type leftOutGroup struct {
	Reason      string         `json:"reason"`
	Files       int            `json:"files"`
	Endings     map[string]int `json:"endings"`
	Directories int            `json:"directories"`
}

type unmatchedRule struct {
	Rule  string `json:"rule"`
	Place string `json:"place"`
	Hint  string `json:"hint,omitempty"`
}

// viewLeftOut returns the view of a scan's counts; nil if the scan did not list the whole root.
func viewLeftOut(l *watcher.LeftOut) *leftOutView {
	if l == nil {
		return nil
	}
	v := &leftOutView{
		Files: l.Files(), Directories: l.Directories(), Links: l.Links, Special: l.Special,
		Groups: []leftOutGroup{}, UnmatchedRules: []unmatchedRule{},
	}
	for _, g := range l.Groups {
		v.Groups = append(v.Groups, leftOutGroup(g))
	}
	for _, r := range l.Unmatched {
		v.UnmatchedRules = append(v.UnmatchedRules, unmatchedRule(r))
	}
	return v
}

// rows describes what was left out, one reason a row. kbsync's own files are not worth a row.
func (v *leftOutView) rows() (rows []string) {
	if v == nil {
		return nil
	}
	for _, g := range v.Groups {
		if g.Files > 0 && g.Reason != watcher.OwnFilesKind {
			rows = append(rows, fmt.Sprintf("%d: %s (%s)", g.Files, endings(g.Endings), g.Reason))
		}
	}
	for _, g := range v.Groups {
		if g.Directories > 0 {
			rows = append(rows, fmt.Sprintf("%s not entered (%s)", directories(g.Directories), g.Reason))
		}
	}
	if v.Links > 0 {
		rows = append(rows, console.Count(v.Links, "symbolic link")+" not followed; --copy-links follows a link that stays inside the root")
	}
	if v.Special > 0 {
		rows = append(rows, console.Count(v.Special, "special file")+", such as a pipe or a socket")
	}
	return rows
}

func directories(n int) string {
	if n == 1 {
		return "1 directory"
	}
	return fmt.Sprintf("%d directories", n)
}

// endings lists counts by ending, the most frequent first.
func endings(counts map[string]int) string {
	const shown = 8
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	rest := 0
	var parts []string
	for i, k := range keys {
		if i >= shown || k == watcher.OtherEndings {
			rest += counts[k]
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", counts[k], console.Printable(k)))
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d %s", rest, watcher.OtherEndings))
	}
	return strings.Join(parts, ", ")
}

// printLeftOut prints what the listing left out, and the rules that matched nothing.
func (s *syncPlan) printLeftOut(w io.Writer) {
	for _, row := range s.LeftOut.rows() {
		fmt.Fprintf(w, "  left out  %s\n", row)
	}
	for _, warning := range s.LeftOut.warnings(s.listed) {
		fmt.Fprintf(w, "  warning   %s\n", console.Printable(warning))
	}
}

// markdownLeftOut is printLeftOut for a comment on a pull request.
func (s *syncPlan) markdownLeftOut(w io.Writer) {
	rows := s.LeftOut.rows()
	for i := range rows {
		rows[i] = "Left out: " + rows[i]
	}
	rows = append(rows, s.LeftOut.warnings(s.listed)...)
	if len(rows) > 0 {
		fmt.Fprintln(w)
	}
	for _, row := range rows {
		fmt.Fprintf(w, "- %s\n", console.Markdown(row))
	}
}

// warnings describes the rules that matched nothing, and a root that holds files of which none is selected.
func (v *leftOutView) warnings(documents int) (warnings []string) {
	if v == nil {
		return nil
	}
	for _, r := range v.UnmatchedRules {
		warnings = append(warnings, watcher.UnmatchedRule(r).String())
	}
	if documents == 0 && v.Files+v.Directories > 0 {
		warnings = append(warnings, "no document is selected, although the root holds files")
	}
	return warnings
}
