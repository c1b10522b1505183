package tracker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

const (
	// A request asks for at most maxIDs sources, in at most maxLength characters of ids
	// and commas: they travel in the URL.
	maxIDs    = 100
	maxLength = 2000
	// maxMisses is how often in a row an answer may lack a source before it is stuck.
	maxMisses = 3
	// idle is how long a run that is kept going looks away at most.
	idle = time.Minute
)

// A run is one call of Run.
type run struct {
	t      *Tracker
	result Result
	wake   <-chan struct{} // nil when nothing keeps the run going
	chunk  int             // sources a request; fewer once an answer said that it was too long

	misses map[int64]int   // answers in a row without a source
	words  map[string]bool // unknown status words that were logged

	failures  int       // requests in a row without a usable answer
	failingAt time.Time // the first of them
}

func (r *run) run(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		due, err := r.t.store.Inventory.DueSources(ctx, r.t.dest.ID, slack(r.t.opts.Min), r.chunk)
		if err != nil {
			return fmt.Errorf("read due sources: %w", err)
		}
		if len(due) > 0 {
			if err := r.ask(ctx, fitting(due)); err != nil {
				return err
			}
			continue
		}
		if r.wake == nil {
			training, err := r.training(ctx)
			if err != nil || !training {
				return err
			}
		}
		next, err := r.t.store.Inventory.NextPoll(ctx, r.t.dest.ID)
		if err != nil {
			return fmt.Errorf("read the next poll: %w", err)
		}
		wait := idle
		if !next.IsZero() {
			wait = min(max(time.Until(next), 0), idle)
		} else if r.wake == nil {
			return nil
		}
		if err := r.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// slack is how much earlier than due a source may be asked for to fill a request.
func slack(least time.Duration) time.Duration { return least / 2 }

// fitting returns those of the due sources, from the first, whose ids fit in one URL.
func fitting(due []state.DueSource) []state.DueSource {
	length := 0
	for i, d := range due {
		length += len(strconv.FormatInt(d.ID, 10)) + 1
		if length > maxLength && i > 0 {
			return due[:i]
		}
	}
	return due
}

// training says whether a document of the destination is in training. A source that no
// document has any more may train on; nobody waits for it.
func (r *run) training(ctx context.Context) (bool, error) {
	syncs, err := r.t.store.Syncs.All(ctx)
	if err != nil {
		return false, fmt.Errorf("read syncs: %w", err)
	}
	for _, s := range syncs {
		if s.Destination.ID != r.t.dest.ID {
			continue
		}
		left, err := r.t.store.Documents.Outstanding(ctx, s.ID)
		if err != nil {
			return false, fmt.Errorf("count documents in training: %w", err)
		}
		if left[state.Training] > 0 {
			return true, nil
		}
	}
	return false, nil
}

// sleep waits, but no longer than until there may be new sources.
func (r *run) sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case _, open := <-r.wake:
		if !open {
			r.wake = nil
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// ask makes one status request and records what it says.
func (r *run) ask(ctx context.Context, due []state.DueSource) error {
	ids := make([]int64, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	r.result.Requests++
	statuses, err := r.t.api.SourceStatus(ctx, ids)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	if r.t.opts.Answered != nil {
		r.t.opts.Answered(statusCode(err))
	}
	change := Result{Requests: 1}
	if e, ok := errors.AsType[*replycx.Error](err); ok && len(due) == 1 && judge(e) == answerTooLong {
		err = nil // the API does not like this id: an answer without it
	}
	if err != nil {
		wait, err := r.failed(err, now)
		if err != nil {
			return err
		}
		if err := r.expire(ctx, due, &change, now); err != nil {
			return err
		}
		r.report(change)
		return r.pause(ctx, wait)
	}
	r.failures, r.chunk = 0, min(2*r.chunk, maxIDs)
	seen := make(map[int64]replycx.SourceStatus, len(statuses))
	for _, s := range statuses {
		seen[s.ID] = s
	}
	// One time for all of them, or a request's sources drift apart until each needs its
	// own. This question is not among the polls yet.
	next := now.Add(pollDelay(fewestPolls(due)+1, r.t.opts.Min, r.t.opts.Max, rand.Float64()))
	polls := make([]state.Poll, len(due))
	for i, d := range due {
		s, ok := seen[d.ID]
		if ok {
			delete(r.misses, d.ID)
		} else {
			r.misses[d.ID]++
		}
		if ok && !s.Status.Known() && s.Errors == "" && !r.words[string(s.Status)] && len(r.words) < maxIDs {
			r.words[string(s.Status)] = true
			r.t.opts.Logger.Warn("ReplyCX has a training status that is not known here; it counts as in progress", "status", string(s.Status), "source", d.ID)
		}
		polls[i] = decide(d, s, ok, r.misses[d.ID], now, r.t.opts.TrainTimeout)
		polls[i].NextPoll = next
		if polls[i].Outcome == state.TrainingStuck {
			polls[i].NextPoll = now.Add(r.t.opts.StuckEvery)
		}
		change.count(polls[i].Outcome, d.Stuck)
		if polls[i].Outcome == state.TrainingCompleted || polls[i].Outcome == state.TrainingFailed {
			delete(r.misses, d.ID)
		}
	}
	if err := r.t.store.Inventory.RecordPolls(ctx, r.t.dest.ID, polls); err != nil {
		return fmt.Errorf("record statuses: %w", err)
	}
	for i, p := range polls {
		if r.t.opts.Trained != nil && (p.Outcome == state.TrainingCompleted || p.Outcome == state.TrainingFailed) {
			r.t.opts.Trained(p.Outcome, now.Sub(due[i].CreatedAt))
		}
	}
	r.report(change)
	return nil
}

// statusCode is the HTTP status that a status request was answered with.
func statusCode(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if e, ok := errors.AsType[*replycx.Error](err); ok {
		return e.StatusCode
	}
	return 0
}

func (r *Result) count(o state.Outcome, wasStuck bool) {
	switch o {
	case state.TrainingCompleted:
		r.Completed++
	case state.TrainingFailed:
		r.Failed++
	case state.TrainingStuck:
		if !wasStuck {
			r.Stuck++
		}
	}
}

// report adds a change to the result and tells of it.
func (r *run) report(change Result) {
	r.result.Completed += change.Completed
	r.result.Failed += change.Failed
	r.result.Stuck += change.Stuck
	if r.t.opts.Progress != nil {
		r.t.opts.Progress(change)
	}
}

// decide says what an answer means for a source; seen is false where the answer lacks
// it, for the misses-th time in a row.
func decide(d state.DueSource, s replycx.SourceStatus, seen bool, misses int, now time.Time, deadline time.Duration) state.Poll {
	p := state.Poll{SourceID: d.ID, Seen: seen, Outcome: state.InTraining}
	if seen {
		p.Status, p.Errors = string(s.Status), s.Errors
		p.Outcome = outcome(s.Status)
	}
	if p.Outcome != state.InTraining {
		return p
	}
	late := deadline > 0 && now.Sub(d.CreatedAt) >= deadline
	if late || !seen && (misses >= maxMisses || d.Stuck) {
		p.Outcome = state.TrainingStuck
	}
	return p
}

// outcome is what a status word means. The API's document names three states and shows
// the word of one, in-progress; the words of the other two are taken from its prose,
// whatever their case and separators. Any other word is not final: to take one for an
// end on a guess would call a document trained that is not, or failed that is not.
func outcome(word replycx.Status) state.Outcome {
	switch {
	case word.Is(replycx.StatusCompleted):
		return state.TrainingCompleted
	case word.Is(replycx.StatusFailed):
		return state.TrainingFailed
	}
	return state.InTraining
}

func fewestPolls(due []state.DueSource) int {
	fewest := due[0].Polls
	for _, d := range due[1:] {
		fewest = min(fewest, d.Polls)
	}
	return fewest
}

// failed says how long to wait after a request without a usable answer, or why the run
// ends.
func (r *run) failed(err error, now time.Time) (time.Duration, error) {
	if r.failures == 0 {
		r.failingAt = now
	}
	r.failures++
	wait := pollDelay(r.failures-1, r.t.opts.Min, r.t.opts.Max, rand.Float64())
	if e, ok := errors.AsType[*replycx.Error](err); ok {
		switch judge(e) {
		case answerFatal:
			return 0, &FatalError{Err: err}
		case answerTooLong:
			if r.chunk > 1 {
				r.chunk /= 2
				wait = 0
			}
		}
		wait = max(wait, min(e.RetryAfter, r.t.opts.RetryAfterCap))
	}
	if r.t.opts.Patience > 0 && now.Add(wait).Sub(r.failingAt) > r.t.opts.Patience {
		return 0, &OutageError{Err: err}
	}
	r.t.opts.Logger.Debug("no usable answer to a status request", "error", err, "wait", wait)
	return wait, nil
}

// An answerKind is what a refused status request means.
type answerKind uint8

const (
	answerLater   answerKind = iota // ask again
	answerFatal                     // ask never again
	answerTooLong                   // ask for fewer
)

// judge says what a refused status request means. A bare 404 is no word about the
// account: a fresh source may not be known everywhere yet.
func judge(e *replycx.Error) answerKind {
	switch replycx.Code(e.Code) {
	case replycx.ErrTokenInvalid, replycx.ErrUnauthorized, replycx.ErrFeatureNotEnabled, replycx.ErrAccountNotFound:
		return answerFatal
	}
	switch status := e.StatusCode; {
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusRequestURITooLong,
		status == http.StatusUnprocessableEntity, status == http.StatusRequestHeaderFieldsTooLarge:
		return answerTooLong
	case status == http.StatusNotFound, status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		return answerLater
	case status >= 300 && status < 500:
		return answerFatal
	}
	return answerLater
}

// expire marks those as stuck that are past their deadline, though no answer says so.
func (r *run) expire(ctx context.Context, due []state.DueSource, change *Result, now time.Time) error {
	var polls []state.Poll
	for _, d := range due {
		p := decide(d, replycx.SourceStatus{}, false, 0, now, r.t.opts.TrainTimeout)
		if p.Outcome == state.TrainingStuck && !d.Stuck {
			p.NextPoll = now.Add(r.t.opts.StuckEvery)
			polls = append(polls, p)
			change.count(p.Outcome, d.Stuck)
		}
	}
	if len(polls) == 0 {
		return nil
	}
	if err := r.t.store.Inventory.RecordPolls(ctx, r.t.dest.ID, polls); err != nil {
		return fmt.Errorf("record statuses: %w", err)
	}
	return nil
}

// pause waits whatever wakes.
func (r *run) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
