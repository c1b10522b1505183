package tracker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// sourcesOfAge returns sources that were uploaded so long before now.
func sourcesOfAge(now time.Time, n int, age time.Duration) []state.DueSource {
	sources := make([]state.DueSource, n)
	for i := range sources {
		sources[i] = state.DueSource{ID: int64(i + 1), CreatedAt: now.Add(-age)}
	}
	return sources
}

func TestOnlyManySourcesLikeAQuietSampleArePostponed(t *testing.T) {
	now := time.Now()
	const many = replycx.MaxStatusIDs
	stuck := sourcesOfAge(now, many, 10*time.Second)
	stuck[7].Stuck = true
	oneOld := sourcesOfAge(now, many, 3*time.Second)
	oneOld[0].CreatedAt = now.Add(-time.Hour)
	quiet := func(age time.Duration) func(*pace) {
		return func(p *pace) { p.learn(sourcesOfAge(now, many, age), 0, now) }
	}
	for name, c := range map[string]struct {
		learn  func(*pace)
		due    []state.DueSource
		after  time.Duration // since the sample
		random float64
		want   bool
	}{
		"nothing was asked":                            {func(*pace) {}, sourcesOfAge(now, many, 10*time.Second), 0, 0, false},
		"younger than the sample":                      {quiet(11 * time.Second), sourcesOfAge(now, many, 10*time.Second), 0, .9, true},
		"as old as the sample":                         {quiet(10 * time.Second), sourcesOfAge(now, many, 10*time.Second), 0, .9, true},
		"older than the sample":                        {quiet(9 * time.Second), sourcesOfAge(now, many, 10*time.Second), 0, 0, false},
		"few sources":                                  {quiet(11 * time.Second), sourcesOfAge(now, many-1, 10*time.Second), 0, 0, false},
		"a small sample":                               {func(p *pace) { p.learn(sourcesOfAge(now, many-1, time.Minute), 0, now) }, sourcesOfAge(now, many, 10*time.Second), 0, 0, false},
		"one training has ended since":                 {func(p *pace) { quiet(time.Minute)(p); p.learn(sourcesOfAge(now, 3, time.Minute), 1, now) }, sourcesOfAge(now, many, 10*time.Second), 0, 0, false},
		"a few without an end since":                   {func(p *pace) { quiet(time.Minute)(p); p.learn(sourcesOfAge(now, 3, time.Hour), 0, now) }, sourcesOfAge(now, many, 10*time.Second), 0, 0, true},
		"an old sample":                                {quiet(11 * time.Second), sourcesOfAge(now, many, 10*time.Second), 6 * time.Second, 0, false},
		"one stuck source":                             {quiet(time.Hour), stuck, 0, 0, false},
		"one old source in the sample does not count":  {func(p *pace) { p.learn(oneOld, 0, now) }, sourcesOfAge(now, many, 10*time.Second), 0, 0, false},
		"the longest delay is reached: half is asked":  {quiet(time.Hour), sourcesOfAge(now, many, 2*time.Minute), 0, .5, false},
		"the longest delay is reached: half is spared": {quiet(time.Hour), sourcesOfAge(now, many, 2*time.Minute), 0, .49, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := pace{least: 350 * time.Millisecond, most: time.Minute}
			c.learn(&p)
			for i := range c.due {
				c.due[i].CreatedAt = c.due[i].CreatedAt.Add(c.after)
			}
			if got := p.postpones(c.due, now.Add(c.after), c.random); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestDelayGrowsWithTheAgeWithinItsBounds(t *testing.T) {
	p := pace{least: 350 * time.Millisecond, most: time.Minute}
	for age, want := range map[time.Duration]time.Duration{
		-time.Hour:             350 * time.Millisecond, // uploaded by a clock that is ahead
		0:                      350 * time.Millisecond,
		700 * time.Millisecond: 1050 * time.Millisecond,
		10 * time.Second:       10*time.Second + 350*time.Millisecond,
		time.Minute:            time.Minute,
		1<<63 - 1:              time.Minute,
	} {
		if got := p.delay(age, 0); got != want {
			t.Errorf("age %v: %v, want %v", age, got, want)
		}
		if got := p.delay(age, 1); got != want*6/5 {
			t.Errorf("age %v, longest: %v, want %v", age, got, want*6/5)
		}
	}
}

func TestTrainingOfASecondIsSeenWithinTwoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, 1, 300_000)
		fx.status = trainsFor(time.Second)
		res, err := fx.track(t.Context(), Options{})
		if took := time.Since(fx.start); err != nil || res.Completed != 1 || fx.requests > 2 || took > 1500*time.Millisecond {
			t.Errorf("%+v, %v; %d requests in %v", res, err, fx.requests, took)
		}
	})
}

func TestSourcesThatNeverTrainDelayNoOthers(t *testing.T) {
	const never, others = 300, 300
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t, never, 300_000)
		fx.status = func(number int, age time.Duration) replycx.Status {
			if number >= never && age > 20*time.Minute {
				return "completed"
			}
			return "in-progress"
		}
		last := time.Duration(0)
		time.Sleep(time.Minute)
		fx.add(others, 400_000)
		_, err := fx.track(t.Context(), Options{
			TrainTimeout: time.Hour,
			Trained:      func(state.Outcome, time.Duration) { last = time.Since(fx.start) },
		})
		if err != nil || last == 0 || last > 30*time.Minute {
			t.Errorf("the last training was seen to end after %v, %v", last, err)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Stuck: never, state.Completed: others})
	})
}
