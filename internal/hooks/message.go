package hooks

import (
	"time"

	"github.com/kbsync/kbsync/state"
)

// A Problem is why a sync cannot go on.
type Problem struct {
	Text string
	// Kind names the action that it needs from a person. A problem of the same kind is reported once, whatever its text, until it is
	// gone. The outbox keeps it.
	Kind string
	// ExitCode is the code with which the command kbsync sync ends for it.
	ExitCode int
	// InDoubt is set while a guard halts the sync: what the state says about documents that are gone may be wrong.
	InDoubt bool
}

// A message is the JSON body that a hook gets.
type message struct {
	Event         string                      `json:"event"`
	Sync          string                      `json:"sync"`
	Root          string                      `json:"root"`
	KnowledgeBase int64                       `json:"knowledge_base"`
	At            time.Time                   `json:"at"`
	Documents     map[state.DocumentState]int `json:"documents"`

	// Of a failure: the problem of the sync, if it has one, and the documents that failed since the last notification.
	Trouble  string           `json:"trouble,omitempty"`
	ExitCode int              `json:"exit_code,omitempty"`
	Failures []failedDocument `json:"failures,omitempty"`
	// Of an orphan: the sources that were left behind since the last notification, to be removed by hand.
	Sources []leftSource `json:"sources,omitempty"`
	// Omitted counts the failures or sources that are not listed because the list is full.
	Omitted int `json:"omitted,omitempty"`
}

type failedDocument struct {
	Key    string `json:"key"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

type leftSource struct {
	ID       int64          `json:"id"`
	Name     string         `json:"name"`
	Document string         `json:"document,omitempty"`
	Standing state.Standing `json:"standing"`
}
