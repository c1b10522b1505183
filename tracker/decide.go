package tracker

import (
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A source is stuck after maxMisses answers in a row that lack it. Within newFor of its upload, servers of the API may not know it yet.
const (
	maxMisses = 3
	newFor    = 15 * time.Second
)

// decide returns the poll that an answer means for a source. seen is false if the answer lacks the source, for the
// misses-th time in a row.
func decide(
	d state.DueSource, s replycx.SourceStatus, seen bool, misses int, now time.Time, deadline time.Duration,
) state.Poll {
	p := state.Poll{SourceID: d.ID, Polls: d.Polls, Outcome: state.InTraining}
	if seen {
		p.Status, p.Errors = string(s.Status), s.Errors
		p.Outcome = outcome(s.Status)
	}
	if final(p.Outcome) {
		return p
	}
	age := now.Sub(d.CreatedAt)
	late := deadline > 0 && age >= deadline
	if late || !seen && (misses >= maxMisses && age >= newFor || d.Stuck) {
		p.Outcome = state.TrainingStuck
	}
	return p
}

// outcome returns the outcome of a status word. The API's document names three states and shows the word of one,
// in-progress; the words of the others are taken from its prose, whatever their case and separators. Any other word is not
// final: a wrong guess would call a document trained or failed that is neither.
func outcome(word replycx.Status) state.Outcome {
	switch {
	case word.Is(replycx.StatusCompleted):
		return state.TrainingCompleted
	case word.Is(replycx.StatusFailed):
		return state.TrainingFailed
	}
	return state.InTraining
}

func final(o state.Outcome) bool { return o == state.TrainingCompleted || o == state.TrainingFailed }
