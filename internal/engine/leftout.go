package engine

import (
	"fmt"
	"strings"

	"github.com/kbsync/kbsync/watcher"
)

// warnedRules is how many rules that matched nothing are logged by themselves.
const warnedRules = 10

// warnLeftOut warns of the rules that matched nothing in a scan of the whole root, and if it selected nothing although the root holds
// files. It repeats nothing that the last warning said.
func (w *worker) warnLeftOut(r watcher.Result) {
	left := r.LeftOut
	if left == nil || r.IncompleteCount > 0 {
		return
	}
	selectsNothing := r.Listed == 0 && left.Files()+left.Directories() > 0
	said := fmt.Sprint(left.Unmatched, left.UnmatchedCount, selectsNothing)
	if said == w.warned {
		return
	}
	w.warned = said
	for i, u := range left.Unmatched {
		if i == warnedRules {
			w.logger.Warn("further rules matched nothing", "rules", left.UnmatchedCount-warnedRules)
			break
		}
		args := []any{"rule", u.Rule, "place", u.Place}
		if u.Hint != "" {
			args = append(args, "hint", u.Hint)
		}
		w.logger.Warn("a rule matched nothing", args...)
	}
	if selectsNothing {
		var reasons []string
		for _, g := range left.Groups {
			reasons = append(reasons, g.Reason)
		}
		w.logger.Warn("no document is selected, although the root holds files", "left_out", left.Files(), "directories_not_entered", left.Directories(),
			"reasons", strings.Join(reasons, ", "))
	}
}

// An unsteadyRoot is a root that reports documents whose time stamps do not hold still.
type unsteadyRoot interface {
	Unsteady() (documents int, key string)
}

var _ unsteadyRoot = (*watcher.Directory)(nil)

// warnUnsteady says once that the time stamps of documents do not hold still.
func (w *worker) warnUnsteady(root Root) {
	unsteady, ok := root.(unsteadyRoot)
	if !ok || w.warnedUnsteady {
		return
	}
	documents, key := unsteady.Unsteady()
	if documents == 0 {
		return
	}
	w.warnedUnsteady = true
	w.logger.Warn("the time stamps of documents do not hold still, so each is read twice and its content decides whether it has changed; "+
		"check the clocks of the file servers, or what keeps touching the files", "documents", documents, "first", key)
}
