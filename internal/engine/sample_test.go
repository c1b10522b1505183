package engine

import (
	"testing"
	"time"
)

func TestSamplesAreOfChangesAndOfEachHour(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	now := time.Now().Truncate(time.Minute)
	f.opts.Now = func() time.Time { return now }
	s := f.sync("docs")
	l := &loops{worker: &worker{opts: f.opts, logger: f.opts.Logger, sync: s}}
	sample := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		l.sample(t.Context())
		samples, err := f.opts.Store.Syncs.Samples(t.Context(), s.ID)
		f.must(err)
		if len(samples) != want {
			t.Errorf("%d samples after %v more, want %d: %+v", len(samples), after, want, samples)
		}
	}
	sample(0, 1)
	f.record(s, "new")
	sample(30*time.Second, 1) // too soon
	if wait := l.sampler.wait(now); wait != 30*time.Second {
		t.Errorf("the report loop waits %v, want until a sample may be recorded", wait)
	}
	sample(30*time.Second, 2)
	if wait := l.sampler.wait(now); wait != time.Hour {
		t.Errorf("the report loop waits %v without a change", wait)
	}
	sample(10*time.Minute, 2) // nothing has changed
	l.sampler.Trained(3 * time.Second)
	l.sampler.Trained(5 * time.Second)
	sample(10*time.Minute, 3)
	sample(time.Hour, 4)
	samples, err := f.opts.Store.Syncs.Samples(t.Context(), s.ID)
	f.must(err)
	if x := samples[2]; x.Waiting != 1 || x.Trained != 2 || x.TrainingTime != 8*time.Second {
		t.Errorf("got %+v", x)
	}
	if x := samples[3]; x.Trained != 0 || x.Lag == 0 {
		t.Errorf("got %+v", x)
	}
}
