package tracker

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// maxIdle bounds the wait of a run that Options.Wake keeps going.
const maxIdle = time.Minute

// A run is one call of Run.
type run struct {
	*Tracker
	result Result
	wake   <-chan struct{} // nil when nothing keeps the run going
	pace   pace
	policy retry.Policy // of requests without a usable answer
	looked time.Time    // when it last read the due sources

	misses map[int64]int   // answers in a row that lacked a source
	words  map[string]bool // unknown status words that were logged

	failures     int       // requests in a row without a usable answer
	failingSince time.Time // the first of them
}

func newRun(t *Tracker) *run {
	return &run{
		Tracker: t,
		wake:    t.opts.Wake,
		pace:    pace{least: t.opts.Min, most: t.opts.Max},
		policy:  retry.AddedJitter(t.opts.Min, t.opts.Max),
		misses:  map[int64]int{},
		words:   map[string]bool{},
	}
}

func (r *run) run(ctx context.Context) error {
	// The training of a stuck source may have ended since the last run.
	if err := r.inventory.MakeStuckDue(ctx, r.dest.ID); err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.looked = time.Now()
		due, err := r.inventory.DueSources(ctx, r.dest.ID, slack(r.opts.Min), replycx.MaxStatusIDs)
		if err != nil {
			return err
		}
		if len(due) > 0 {
			if err := r.askOrPostpone(ctx, due); err != nil {
				return err
			}
			continue
		}
		if more, err := r.wait(ctx); err != nil || !more {
			return err
		}
	}
}

// slack is how much earlier than due a source may be asked for to fill a request.
func slack(least time.Duration) time.Duration { return min(3*least, time.Second) }

// wait waits for the next source to become due, or for new sources. more is false when nothing trains and nothing else
// keeps the run going.
func (r *run) wait(ctx context.Context) (more bool, err error) {
	if r.wake == nil {
		// A source that no document has may train longer; the run does not wait for it.
		if training, err := r.documents.AnyInTraining(ctx, r.dest.ID); err != nil || !training {
			return false, err
		}
	}
	next, err := r.inventory.NextPoll(ctx, r.dest.ID)
	if err != nil {
		return false, err
	}
	wait := maxIdle
	if !next.IsZero() {
		wait = min(max(time.Until(next), 0), maxIdle)
	} else if r.wake == nil {
		return false, nil
	}
	woken, err := retry.SleepOrWake(ctx, wait, r.wake)
	if woken && !r.closed() {
		err = r.rest(ctx)
	}
	return err == nil, err
}

// rest keeps slack between two looks at the state: while many batches are accepted, each wakes the run, and their sources are
// due later.
func (r *run) rest(ctx context.Context) error {
	for woken := true; woken && !r.closed(); {
		var err error
		woken, err = retry.SleepOrWake(ctx, time.Until(r.looked.Add(slack(r.opts.Min))), r.wake)
		if err != nil {
			return err
		}
	}
	return nil
}

// closed reports whether nothing keeps the run going any more. It takes a value from wake if there is one.
func (r *run) closed() bool {
	select {
	case _, open := <-r.wake:
		if !open {
			r.wake = nil
		}
	default:
	}
	return r.wake == nil
}

func (r *run) askOrPostpone(ctx context.Context, due []state.DueSource) error {
	if now := time.Now(); r.pace.postpones(due, now, rand.Float64()) {
		return r.inventory.PostponePolls(ctx, r.dest.ID, due, now.Add(r.pace.delay(youngest(due, now), rand.Float64())))
	}
	return r.ask(ctx, due)
}

// ask asks for the due sources and records the answers.
func (r *run) ask(ctx context.Context, due []state.DueSource) error {
	ids := make([]int64, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	var change Result
	answers, cause := replycx.CollectStatuses(ctx, ids, func(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
		change.Requests++
		statuses, err := r.api.SourceStatus(ctx, ids)
		if r.opts.Answered != nil && ctx.Err() == nil {
			r.opts.Answered(statusCode(err))
		}
		return statuses, err
	})
	r.result.Requests += change.Requests
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	answered, unanswered := split(due, answers)
	if err := r.record(ctx, answered, answers.Found, &change, now); err != nil {
		return err
	}
	if cause == nil || answers.Answered() {
		r.failures = 0
	}
	if cause != nil {
		return r.retryLater(ctx, unanswered, cause, &change, now)
	}
	r.report(change)
	return nil
}

// split returns the due sources with and without an answer. A refusal of a source alone is an answer without it.
func split(due []state.DueSource, answers *replycx.SourceStatuses) (answered, unanswered []state.DueSource) {
	missing := make(map[int64]bool, len(answers.Missing))
	for _, id := range answers.Missing {
		missing[id] = true
	}
	for _, d := range due {
		_, found := answers.Found[d.ID]
		if found || missing[d.ID] || answers.Refused[d.ID] != nil {
			answered = append(answered, d)
		} else {
			unanswered = append(unanswered, d)
		}
	}
	return answered, unanswered
}

// record records the answers about sources. An answer lacks the sources that are not in found.
func (r *run) record(
	ctx context.Context, due []state.DueSource, found map[int64]replycx.SourceStatus, change *Result, now time.Time,
) error {
	if len(due) == 0 {
		return nil
	}
	// The sources of one request get one next time: with different ones each would soon need its own request.
	next := now.Add(r.pace.delay(youngest(due, now), rand.Float64()))
	ended := 0
	polls := make([]state.Poll, len(due))
	for i, d := range due {
		s, ok := found[d.ID]
		var elsewhere int64
		if ok && s.KnowledgeBaseID != 0 && s.KnowledgeBaseID != r.dest.KnowledgeBase {
			r.opts.Logger.Warn("the answer has the source in another knowledge base; its status is ignored",
				"source", d.ID, "knowledge_base", s.KnowledgeBaseID)
			elsewhere = s.KnowledgeBaseID
			s, ok = replycx.SourceStatus{}, false
		}
		if ok {
			delete(r.misses, d.ID)
			r.logUnknownStatus(s)
		} else {
			r.misses[d.ID]++
		}
		p := decide(d, s, ok, r.misses[d.ID], now, r.opts.TrainTimeout)
		p.NextPoll = next
		if p.Outcome == state.TrainingStuck {
			p.NextPoll = now.Add(r.opts.StuckEvery)
		} else {
			p.KnowledgeBase = elsewhere
		}
		if final(p.Outcome) {
			delete(r.misses, d.ID)
			ended++
		}
		change.count(p.Outcome, d.Stuck)
		polls[i] = p
	}
	r.pace.learn(due, ended, now)
	if err := r.inventory.RecordPolls(ctx, r.dest.ID, polls); err != nil {
		return err
	}
	for i, p := range polls {
		if r.opts.Trained != nil && final(p.Outcome) {
			r.opts.Trained(p.Outcome, now.Sub(due[i].CreatedAt))
		}
	}
	return nil
}

// maxLoggedWords bounds the unknown status words that one run logs.
const maxLoggedWords = 100

// logUnknownStatus logs each unknown status word once.
func (r *run) logUnknownStatus(s replycx.SourceStatus) {
	if s.Status.Known() || s.Errors != "" || r.words[string(s.Status)] || len(r.words) >= maxLoggedWords {
		return
	}
	r.words[string(s.Status)] = true
	r.opts.Logger.Warn("unknown training status from ReplyCX; it counts as in progress",
		"status", string(s.Status), "source", s.ID)
}

// statusCode returns the HTTP status of the answer to a status request, or 0 for none.
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

// report adds a change to the result and calls Options.Progress.
func (r *run) report(change Result) {
	r.result.Completed += change.Completed
	r.result.Failed += change.Failed
	r.result.Stuck += change.Stuck
	if r.opts.Progress != nil {
		r.opts.Progress(change)
	}
}

// retryLater waits after a request without a usable answer, or returns why the run ends.
func (r *run) retryLater(
	ctx context.Context, due []state.DueSource, cause error, change *Result, now time.Time,
) error {
	wait, err := r.failed(cause, now)
	if err != nil {
		return err
	}
	if err := r.expire(ctx, due, change, now); err != nil {
		return err
	}
	r.report(*change)
	return retry.Sleep(ctx, wait)
}

// failed returns how long to wait after a request without a usable answer, or why the run ends.
func (r *run) failed(cause error, now time.Time) (time.Duration, error) {
	if r.failures == 0 {
		r.failingSince = now
	}
	r.failures++
	wait := r.policy.Delay(r.failures-1, rand.Float64())
	if e, ok := errors.AsType[*replycx.Error](cause); ok {
		if e.Class() == replycx.ClassDenied {
			return 0, &FatalError{Err: cause}
		}
		wait = max(wait, min(e.RetryAfter, r.opts.RetryAfterCap))
	}
	if r.opts.Patience > 0 && now.Add(wait).Sub(r.failingSince) > r.opts.Patience {
		return 0, &OutageError{Err: cause}
	}
	r.opts.Logger.Debug("no usable answer to a status request", "error", cause, "wait", wait)
	return wait, nil
}

// expire marks the sources past their deadline as stuck without an answer.
func (r *run) expire(ctx context.Context, due []state.DueSource, change *Result, now time.Time) error {
	var polls []state.Poll
	for _, d := range due {
		p := decide(d, replycx.SourceStatus{}, false, 0, now, r.opts.TrainTimeout)
		if p.Outcome == state.TrainingStuck && !d.Stuck {
			p.NextPoll = now.Add(r.opts.StuckEvery)
			polls = append(polls, p)
			change.count(p.Outcome, d.Stuck)
		}
	}
	if len(polls) == 0 {
		return nil
	}
	return r.inventory.RecordPolls(ctx, r.dest.ID, polls)
}
