package tracker

import (
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A pace decides when sources are asked for. A request costs the same for one source as for a hundred, so few sources are asked for
// on their own schedule. Of many, a full request is a sample: while it shows no end of a training, younger sources wait without being
// asked for.
type pace struct {
	least, most time.Duration // between two requests for one source
	quiet       sample        // the last full request that showed no end of a training; zero if one has shown an end since
}

// A sample is a request for many sources.
type sample struct {
	at     time.Time // of the answer
	median time.Time // half of its sources were uploaded before
}

// delay returns the time until the next request for sources of this age, for a random number in [0, 1). It grows with the age, so that
// the end of a training is noticed after about twice its time at the latest.
func (p *pace) delay(age time.Duration, random float64) time.Duration {
	d := p.bound(age)
	return retry.AddedJitter(d, d).Delay(0, random)
}

func (p *pace) bound(age time.Duration) time.Duration {
	return min(p.least+min(max(age, 0), p.most), p.most)
}

// postpones reports whether due sources wait for their next time without a request, for a random number in [0, 1). A sample may be
// wrong for some of them, for example if older sources do not train at all. So once the delay has reached its bound, half of the
// requests are made.
func (p *pace) postpones(due []state.DueSource, now time.Time, random float64) bool {
	if len(due) < replycx.MaxStatusIDs || p.quiet.at.IsZero() || slices.ContainsFunc(due, func(d state.DueSource) bool { return d.Stuck }) {
		return false
	}
	median := medianUpload(due)
	age := now.Sub(median)
	switch {
	case p.quiet.median.After(median), now.Sub(p.quiet.at) > max(p.least, age/2):
		return false
	case p.bound(age) == p.most:
		return random < 0.5
	}
	return true
}

// learn takes the answer about sources, of which so many have ended their training.
func (p *pace) learn(asked []state.DueSource, ended int, now time.Time) {
	switch {
	case ended > 0:
		p.quiet = sample{}
	case len(asked) >= replycx.MaxStatusIDs:
		p.quiet = sample{at: now, median: medianUpload(asked)}
	}
}

func medianUpload(sources []state.DueSource) time.Time {
	times := make([]time.Time, len(sources))
	for i, s := range sources {
		times[i] = s.CreatedAt
	}
	slices.SortFunc(times, time.Time.Compare)
	return times[len(times)/2]
}

// youngest returns the age of the source that was uploaded last.
func youngest(sources []state.DueSource, now time.Time) time.Duration {
	age := now.Sub(sources[0].CreatedAt)
	for _, s := range sources[1:] {
		age = min(age, now.Sub(s.CreatedAt))
	}
	return age
}
