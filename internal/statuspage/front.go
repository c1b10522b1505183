package statuspage

import (
	"fmt"
	"net/http"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A need is something that a person has to do, with the remedy.
type need struct {
	Sync    string `json:"sync"`
	Kind    string `json:"kind"`
	Count   int    `json:"count,omitempty"`
	Title   string `json:"title"`          // after the count
	Text    string `json:"text,omitempty"` // the words of the API, a guard or an error
	Remedy  string `json:"remedy"`
	Command string `json:"command,omitempty"`

	Action     *action `json:"-"` // of the page's button
	List       string  `json:"-"` // the address of the list
	Configured bool    `json:"-"` // the process runs the sync
}

// An action is a button that leads to a page of confirmation.
type action struct{ Label, Href string }

func newAction(label, name, sync string) *action {
	return &action{label, link("/confirm", "action", name, "sync", sync)}
}

// needs returns what the sync needs from a person, the most urgent first.
func (v *syncView) needs() []need {
	if !v.Configured {
		return []need{{Sync: v.Name, Kind: "idle", Title: "This process does not run the sync",
			Remedy:  "If the sync left the config for good, forget it. Its sources answer until you remove them by hand.",
			Command: "kbsync forget " + shellWord(v.Name)}}
	}
	all := append(v.stopNeeds(), v.documentNeeds()...)
	for i := range all {
		all[i].Sync, all[i].Configured = v.Name, true
	}
	return all
}

// stopNeeds are the causes that stop the whole sync or its uploads.
func (v *syncView) stopNeeds() (all []need) {
	again := newAction("Try again", "sync", v.Name)
	switch {
	case v.Halted:
		all = append(all, need{Kind: "halted", Title: "Halted", Text: v.LastError, Action: again,
			Remedy: "The sync waits for you. Remove the cause that the message names. Then let kbsync try again."})
	case v.LastError != "":
		all = append(all, need{Kind: "warning", Title: "Stopped", Text: v.LastError, Action: again,
			Remedy: "kbsync tries again by itself. If the message stays, remove the cause."})
	}
	if v.BreakerOpen {
		all = append(all, need{Kind: "uncertain", Title: "Uploads are held", Text: "the answer to an upload was lost", Action: again,
			Remedy: "kbsync sends nothing else until one upload succeeds. Check whether ReplyCX is reachable."})
	}
	if v.PausedUntil != nil {
		all = append(all, need{Kind: "warning", Title: "Uploads are held", Text: "the API asked kbsync to wait until " + v.PausedUntil.Format(time.RFC3339),
			Remedy: "Wait. Uploads continue by themselves."})
	}
	return all
}

// documentNeeds are the documents and sources that a person has to look at.
func (v *syncView) documentNeeds() (all []need) {
	retry := newAction("Retry", "retry", v.Name)
	command := "kbsync retry " + shellWord(v.Name)
	list := func(st state.DocumentState) string { return link("/documents", "sync", v.Name, "state", string(st)) }
	for _, n := range []need{
		{Kind: "failed", Count: v.Documents[state.Failed], Title: "failed", List: list(state.Failed), Action: retry, Command: command,
			Remedy: "Mend the files as the reasons say: a changed file is uploaded by itself. Retry sends unchanged files once more."},
		{Kind: "stuck", Count: v.Documents[state.Stuck], Title: "stuck in training", List: list(state.Stuck), Action: retry, Command: command,
			Remedy: "kbsync still asks for their status. If ReplyCX has lost them, retry uploads them once more."},
		{Kind: "uncertain", Count: v.Documents[state.Uncertain], Title: "uncertain", List: list(state.Uncertain), Action: retry, Command: command,
			Remedy: "Look in the knowledge base whether they arrived. Retry uploads them again, maybe for the second time."},
		{Kind: "skipped", Count: v.Blocked, Title: "blocked", List: list(state.Skipped), Action: retry, Command: command,
			Remedy: "These files can never train. Replace them, or exclude them. Retry looks at them again."},
		{Kind: "uncertain", Count: v.PossibleDuplicates, Title: map[bool]string{true: "possible duplicate", false: "possible duplicates"}[v.PossibleDuplicates == 1], List: link("/sources", "sync", v.Name) + "#duplicates",
			Remedy: "Look for a second source of each in the knowledge base, and remove it.", Command: "kbsync sources " + shellWord(v.Name) + " --possible-duplicates"},
		{Kind: "superseded", Count: v.LeftBehind(), Title: map[bool]string{true: "source to remove", false: "sources to remove"}[v.LeftBehind() == 1], List: link("/sources", "sync", v.Name),
			Text:    fmt.Sprintf("%s superseded by an edit, %s orphaned", grouped(int64(v.Superseded)), grouped(int64(v.Orphaned))),
			Remedy:  "They still answer. Remove them in ReplyCX by hand, then tick them on the list.",
			Command: "kbsync sources " + shellWord(v.Name) + " --left-behind"},
	} {
		if n.Count > 0 {
			all = append(all, n)
		}
	}
	return all
}

// LeftBehind returns the number of sources that a person has to remove.
func (v *syncView) LeftBehind() int { return v.Superseded + v.Orphaned }

// unfinished returns the number of documents that are on their way or have a problem.
func (v *syncView) unfinished() int {
	n := 0
	for _, st := range []state.DocumentState{state.Pending, state.Uploading, state.Training, state.Failed, state.Stuck, state.Uncertain} {
		n += v.Documents[st]
	}
	return n
}

// Behind returns the earliest change of a document that is not completed; nil if there is none.
func (v *syncView) Behind() *time.Time { return orNil(v.unfinishedSince) }

// inStep reports whether every known document of the root is in the knowledge base, and nothing stops the sync.
func (v *syncView) inStep() bool {
	return !v.Halted && v.LastError == "" && v.ScannedAt != nil && v.unfinished() == 0
}

// standing is the first line of the page.
type standing struct {
	InStep   bool
	Sentence string
	Since    *time.Time // when the last sync came into step, if it is known
	Checked  *time.Time // the oldest of the last complete scans
	Behind   *time.Time // the earliest change of a document that is not completed
}

// standing says how far the syncs of this process are behind their roots.
func (o *overview) standing() standing {
	s := standing{InStep: true}
	running, behind, documents, stopped := 0, 0, 0, 0
	for i := range o.Syncs {
		v := &o.Syncs[i]
		if !v.Configured {
			continue
		}
		running++
		if at := v.Behind(); at != nil && (s.Behind == nil || at.Before(*s.Behind)) {
			s.Behind = at
		}
		if s.Checked == nil || v.ScannedAt == nil || v.ScannedAt.Before(*s.Checked) {
			s.Checked = v.ScannedAt
		}
		if !v.inStep() {
			behind++
			documents += v.unfinished()
			if v.Halted || v.LastError != "" {
				stopped++
			}
		}
		if v.InStepSince != nil && (s.Since == nil || v.InStepSince.After(*s.Since)) {
			s.Since = v.InStepSince
		}
		s.InStep = s.InStep && v.inStep()
	}
	s.InStep = s.InStep && running > 0
	s.Sentence = sentence(running, behind, stopped, documents)
	return s
}

// sentence says in words how many syncs are running, behind and stopped, and how many documents are behind.
func sentence(running, behind, stopped, documents int) string {
	switch {
	case running == 0:
		return "No sync is running"
	case behind == 0 && running == 1:
		return "Everything is in step"
	case behind == 0:
		return fmt.Sprintf("All %d syncs are in step", running)
	case stopped > 0:
		return plural(stopped, "sync is", "syncs are") + " stopped"
	case documents == 0:
		return "The first scan is running"
	}
	return plural(documents, "document is", "documents are") + " not in step yet"
}

// frontData is the data of the first page. Its methods and those of syncData keep logic out of the template.
type frontData struct {
	frame
	*overview
	standing
	Version  string // both the frame and the overview have it
	Health   health
	Syncs    []syncData
	Troubled []troubledData
}

type syncData struct {
	*syncView
	Health     health
	HealthText string
	Counts     []countData
	Actions    []*action
}

type troubledData struct {
	attentionView
	Sync, Href string
}

// A countData is the part of a state in the bar of a sync. X and Width are thousandths of the bar.
type countData struct {
	State    state.DocumentState
	N        int
	X, Width float64
	Href     string
}

// barStates are the states in the order of the bar: done, in progress, needing attention. Skipped and removed documents have no part.
var barStates = []state.DocumentState{state.Completed, state.Training, state.Uploading, state.Pending, state.Uncertain, state.Stuck, state.Failed}

func (v *syncView) data() syncData {
	s := syncData{syncView: v}
	s.Health, s.HealthText = v.health()
	total := v.Documents[state.Completed] + v.unfinished()
	x := 0.0
	for _, st := range barStates {
		c := countData{State: st, N: v.Documents[st], X: x, Href: link("/documents", "sync", v.Name, "state", string(st))}
		if c.N == 0 {
			continue
		}
		c.Width = 1000 * float64(c.N) / float64(total)
		x += c.Width
		s.Counts = append(s.Counts, c)
	}
	s.Actions = []*action{newAction("Sync", "sync", v.Name), newAction("Upload again", "reindex", v.Name)}
	return s
}

// Skipped returns the documents that the rules or their content exclude; nil for none.
func (s *syncData) Skipped() *countData {
	if n := s.Documents[state.Skipped]; n > 0 {
		return &countData{State: state.Skipped, N: n, Href: link("/documents", "sync", s.Name, "state", string(state.Skipped))}
	}
	return nil
}

func (p *Page) servePage(w http.ResponseWriter, r *http.Request) {
	o, err := p.overview(r.Context())
	if err != nil {
		p.unreadable(w, err)
		return
	}
	data := &frontData{overview: o, standing: o.standing()}
	var text string
	data.Health, text = o.health()
	data.frame = p.frame(text, "front")
	data.Live, data.LiveID, data.Version = true, o.id(), o.Version
	for i := range o.Syncs {
		v := &o.Syncs[i]
		data.Syncs = append(data.Syncs, v.data())
		for _, t := range v.Attention {
			data.Troubled = append(data.Troubled, troubledData{t, v.Name, documentLink(v.Name, t.Key)})
		}
	}
	p.render(w, http.StatusOK, "front", data)
}
