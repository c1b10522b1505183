package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// A runSummary is the result of a run over several syncs.
type runSummary struct {
	Syncs    []*summary      `json:"syncs"`
	Trained  trainedView     `json:"trained"`
	Requests int             `json:"requests"`
	Seconds  float64         `json:"seconds"`
	ExitCode int             `json:"exit_code"`
	Emulator *emulatorReport `json:"emulator,omitempty"`

	class engine.Class // of ExitCode
}

// A summary is the result of one sync: the work of the pass, and the state of the sync after it.
type summary struct {
	Sync          string `json:"sync"`
	Root          string `json:"root"`
	KnowledgeBase int64  `json:"knowledge_base"`
	ExitCode      int    `json:"exit_code"`
	Error         string `json:"error,omitempty"`
	Scanned       bool   `json:"scanned"`

	New       int            `json:"new"`
	Changed   int            `json:"changed"`
	Unchanged int            `json:"unchanged"`
	Renamed   int            `json:"renamed"`
	Removed   int            `json:"removed"`
	Unsettled int            `json:"unsettled"`
	Skipped   map[string]int `json:"skipped"` // counts by reason
	LeftOut   *leftOutView   `json:"left_out,omitempty"`
	Marked    int            `json:"marked,omitempty"`

	Uploaded  int   `json:"uploaded"`
	Shared    int   `json:"shared"`
	Resaved   int   `json:"resaved"` // saved again with only their metadata changed; not uploaded
	Refused   int   `json:"refused"`
	Resent    int   `json:"resent"`
	Deferred  int   `json:"deferred"`
	Requests  int   `json:"requests"`
	Bytes     int64 `json:"bytes"`
	Blocked   int   `json:"blocked"`    // documents that are not sent because they can never train
	Warned    int   `json:"warned"`     // documents of this pass that look odd
	Unlisted  int   `json:"unlisted"`   // parts of the root that could not be listed
	Unread    int   `json:"unreadable"` // documents that could not be read
	asked     int   // status requests of the uploader
	wasMarked bool
	leftOver  bool
	inDoubt   bool // a guard halted the sync

	Documents  map[state.DocumentState]int `json:"documents"`
	Superseded int                         `json:"superseded"`
	Orphaned   int                         `json:"orphaned"`
	// Problems are the first 100 documents that failed, are stuck or uncertain, or could not be read.
	Problems []troubledView `json:"problems"`
	groups   []problemGroup // all problems

	class    engine.Class // of ExitCode
	messages []string     // the reasons for ExitCode
}

const maxProblems = 100

// A trainedView counts the sources whose training ended in a run.
type trainedView struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Stuck     int `json:"stuck"`
	Requests  int `json:"requests"`
}

// summarize returns the result of a pass, after its training was waited for.
func summarize(ctx context.Context, store *state.Store, o passOptions, p engine.PassResult) *summary {
	c, scan, uploads := p.Config, p.Scan, p.Uploads
	s := &summary{
		Sync: c.Name, Root: c.Root.String(), KnowledgeBase: c.KnowledgeBase, Scanned: p.Scanned,
		New: max(scan.New-scan.Renamed, 0), Changed: scan.Changed, Unchanged: scan.Unchanged, Renamed: scan.Renamed,
		Removed: scan.Removed - scan.Renamed, Unsettled: scan.Unsettled, Skipped: scan.Skipped, Unlisted: scan.IncompleteCount,
		Uploaded: uploads.Uploaded, Shared: uploads.Shared, Resaved: uploads.Resaved, Refused: uploads.Failed, Resent: uploads.Resent, Deferred: uploads.Deferred,
		Requests: uploads.Requests, asked: uploads.Asked, Bytes: uploads.Bytes, Unread: uploads.Unreadable, Warned: uploads.Warned,
		Marked: p.Marked, wasMarked: o.mark != nil, leftOver: p.LeftToOther,
		Documents: map[state.DocumentState]int{}, Problems: []troubledView{},
	}
	if s.Skipped == nil {
		s.Skipped = map[string]int{}
	}
	s.LeftOut = viewLeftOut(scan.LeftOut)
	if p.LeftToOther {
		return s
	}
	s.because(p.Err)
	s.inDoubt = engine.InDoubt(p.Err)
	if p.Sync.ID == 0 {
		return s
	}
	s.because(p.TrainingErr)
	s.because(s.present(ctx, store, p.Sync.ID))
	s.because(s.presentBlocked(ctx, store, p.Sync.ID))
	for _, f := range uploads.Unread {
		s.problem(f.Key, "unreadable", f.Reason)
	}
	if p.Scanned {
		s.becauseUnfinished(p)
	}
	return s
}

// becauseUnfinished adds the documents that keep the sync from being complete to the reasons of the exit code.
func (s *summary) becauseUnfinished(p engine.PassResult) {
	for _, e := range engine.Remaining(console.Printable(s.Sync), s.Documents, p.Uploads.Why) {
		s.because(e)
	}
	for _, row := range []struct {
		n    int
		text string
	}{
		{s.Unsettled, "not uploaded because they were still being written"},
		{s.Unread, "not readable"},
		{p.Scan.Placeholders, "in the cloud only, with a placeholder here; make them available on this machine"},
	} {
		if row.n > 0 {
			s.because(engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s %s", console.Count(row.n, "document"), row.text)))
		}
	}
	if s.Unlisted > 0 {
		s.because(engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s of the root could not be listed: %w", console.Count(s.Unlisted, "part"), errors.Join(p.Scan.Incomplete[:1]...))))
	}
}

// err returns the reasons of the exit code as one error; nil if it is 0.
func (s *summary) err() error {
	if s.class == engine.ClassNone {
		return nil
	}
	return engine.WithClass(s.class, errors.New(s.Error))
}

// because adds an error to the reasons for the exit code.
func (s *summary) because(err error) {
	if err == nil {
		return
	}
	s.class = engine.Worse(s.class, engine.Classify(err))
	s.ExitCode = codeOf(s.class)
	if text := err.Error(); !slices.Contains(s.messages, text) {
		s.messages = append(s.messages, text)
	}
	s.Error = strings.Join(s.messages, "; ")
}

// present adds the current state of the sync.
func (s *summary) present(ctx context.Context, store *state.Store, syncID int64) error {
	counts, err := store.Documents.Counts(ctx, syncID)
	if err != nil {
		return err
	}
	for st, n := range counts {
		if n > 0 && st != state.Removed {
			s.Documents[st] = n
		}
	}
	if s.Superseded, s.Orphaned, err = store.Inventory.CountLeftBehind(ctx, syncID); err != nil {
		return err
	}
	if counts[state.Failed]+counts[state.Stuck]+counts[state.Uncertain] == 0 {
		return nil // no need to read the documents
	}
	for d, err := range store.Documents.All(ctx, syncID, state.Failed, state.Stuck, state.Uncertain) {
		if err != nil {
			return err
		}
		s.problem(d.Key, string(d.State), statuspage.Reason(d))
	}
	return nil
}

// presentBlocked adds the documents that are not sent because they can never train.
func (s *summary) presentBlocked(ctx context.Context, store *state.Store, syncID int64) error {
	for d, err := range store.Documents.Blocked(ctx, syncID) {
		if err != nil {
			return err
		}
		s.Blocked++
		s.problem(d.Key, string(d.State), d.Reason)
	}
	blocked, err := engine.Blocked(ctx, store, console.Printable(s.Sync), syncID)
	return cmp.Or(err, blocked)
}

func (s *summary) problem(key, state, reason string) {
	p := troubledView{key, state, reason}
	s.groups = addProblem(s.groups, p)
	if len(s.Problems) < maxProblems {
		s.Problems = append(s.Problems, p)
	}
}

func (r *runSummary) print(w io.Writer) {
	for i, s := range r.Syncs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		s.print(w)
	}
	if slices.ContainsFunc(r.Syncs, func(s *summary) bool { return s.Scanned }) {
		fmt.Fprintf(w, "%s in %s\n", console.Count(r.Requests, "request"), console.Duration(time.Duration(r.Seconds*float64(time.Second))))
	}
	if e := r.Emulator; e != nil {
		fmt.Fprintf(w, "emulator: %s in this run, %s held\n", console.Count(int(e.UploadRequests), "upload request"), console.Count(e.SourcesHeld, "source"))
	}
}

// err returns the error that ends the program, with one line for each reason.
func (r *runSummary) err() error {
	if r.ExitCode == exitDone {
		return nil
	}
	var lines []string
	for _, s := range r.Syncs {
		for _, m := range s.messages {
			if !strings.HasPrefix(m, "sync ") {
				m = s.Sync + ": " + m
			}
			lines = append(lines, m)
		}
	}
	return engine.WithClass(r.class, errors.New(strings.Join(lines, "\n")))
}

func (s *summary) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s -> knowledge base %d\n", console.Printable(s.Sync), console.Printable(s.Root), s.KnowledgeBase)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	if s.wasMarked {
		line("marked", "%s to upload once more", console.Count(s.Marked, "document"))
	}
	if s.leftOver {
		line("left", "to the kbsync process that works on this sync")
		return
	}
	if !s.Scanned {
		return
	}
	found := fmt.Sprintf("%d new, %d changed, %d unchanged", s.New, s.Changed, s.Unchanged)
	if s.Renamed > 0 {
		found += fmt.Sprintf(", %d renamed", s.Renamed)
	}
	if s.Removed > 0 {
		found += fmt.Sprintf(", %d removed", s.Removed)
	}
	line("found", "%s", found)
	if len(s.Skipped) > 0 {
		line("skipped", "%s", reasons(s.Skipped))
	}
	for i, row := range s.LeftOut.rows() {
		line([]string{"left out", ""}[min(i, 1)], "%s", row)
	}
	uploaded := fmt.Sprintf("%s, %s in %s", console.Count(s.Uploaded, "document"), console.Bytes(s.Bytes), console.Count(s.Requests, "request"))
	if s.Shared > 0 {
		uploaded += fmt.Sprintf("; %d more share a content that is there", s.Shared)
	}
	line("uploaded", "%s", uploaded)
	if s.Resaved > 0 {
		line("resaved", "%s saved again with only metadata changed, and not uploaded", console.Count(s.Resaved, "document"))
	}
	if s.Warned > 0 {
		line("warned", "%s may train badly; the log names them", console.Count(s.Warned, "document"))
	}
	line("now", "%s", stateCounts(s.Documents))
	for _, g := range s.groups {
		line("", "%s", g)
	}
	switch {
	case s.Superseded+s.Orphaned == 0:
	case s.inDoubt:
		line("left behind", "%d superseded, %d orphaned in the knowledge base; remove none before the guard's finding is settled", s.Superseded, s.Orphaned)
	default:
		line("left behind", "%d superseded, %d orphaned in the knowledge base; remove them by hand (kbsync sources --left-behind)",
			s.Superseded, s.Orphaned)
	}
}

// A problemGroup holds the documents that have the same state and reason.
type problemGroup struct {
	state, reason string
	count         int
	keys          []string // the first few
}

// addProblem adds a document to its group.
func addProblem(groups []problemGroup, p troubledView) []problemGroup {
	const shown = 5
	i := slices.IndexFunc(groups, func(g problemGroup) bool { return g.state == p.State && g.reason == p.Reason })
	if i < 0 {
		i = len(groups)
		groups = append(groups, problemGroup{state: p.State, reason: p.Reason})
	}
	g := &groups[i]
	if g.count++; len(g.keys) < shown {
		g.keys = append(g.keys, console.Printable(p.Key))
	}
	return groups
}

func (g problemGroup) String() string {
	keys := strings.Join(g.keys, ", ")
	if more := g.count - len(g.keys); more > 0 {
		keys += fmt.Sprintf(", %d more", more)
	}
	return fmt.Sprintf("%s: %s: %s", g.state, keys, console.Printable(g.reason))
}

// reasons lists counts by reason, the most frequent first.
func reasons(counts map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	total := 0
	parts := make([]string, len(keys))
	for i, k := range keys {
		total += counts[k]
		parts[i] = fmt.Sprintf("%d %s", counts[k], console.Printable(k))
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}
