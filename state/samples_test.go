package state

import (
	"testing"
	"time"
)

// A year of samples, one a minute, stays small. The newest day is whole, and every hour before has its last sample.
func TestSamplesAreThinned(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		add := func(at time.Time, waiting int) {
			t.Helper()
			r.must(r.s.Syncs.AddSample(t.Context(), r.sync.ID, Sample{
				At: at, Completed: 10, Waiting: waiting, Lag: 3 * time.Second, Trained: 2, TrainingTime: 5 * time.Second,
			}))
		}
		// Three samples an hour for two days.
		for i := range 3 * 48 {
			add(begin.Add(time.Duration(i)*20*time.Minute+3*time.Second), i%2)
		}
		all, err := r.s.Syncs.Samples(t.Context(), r.sync.ID)
		r.must(err)
		last := begin.Add(47*time.Hour + 40*time.Minute)
		for i, x := range all {
			if x.At.Before(last.Add(-samplesWhole)) && x.At.Minute() != 40 {
				t.Errorf("a sample of %v is left", x.At)
			}
			if i > 0 && !all[i-1].At.Before(x.At) {
				t.Errorf("%v is before %v", all[i-1].At, x.At)
			}
		}
		if len(all) != 24+3*24 || !all[len(all)-1].At.Equal(last) || all[0].Lag != 3*time.Second || all[0].TrainingTime != 5*time.Second {
			t.Errorf("%d samples, the last of %v: %+v", len(all), all[len(all)-1].At, all[0])
		}
		since, err := r.s.Syncs.InStepSince(t.Context(), r.sync.ID)
		r.must(err)
		if !since.IsZero() {
			t.Errorf("in step since %v, although a document waits", since)
		}
		// The same minute again: the sample is replaced, and the trained sources are added.
		add(last.Add(30*time.Second), 0)
		again, err := r.s.Syncs.Samples(t.Context(), r.sync.ID)
		r.must(err)
		if x := again[len(again)-1]; len(again) != len(all) || x.Waiting != 0 || x.Trained != 4 {
			t.Errorf("%d samples, the last is %+v", len(again), x)
		}
		add(last.Add(5*time.Minute), 0)
		if since, err = r.s.Syncs.InStepSince(t.Context(), r.sync.ID); err != nil || !since.Equal(last.Add(-20*time.Minute)) {
			t.Errorf("in step since %v, %v", since, err)
		}
		add(last.Add(samplesKept), 0)
		if all, err = r.s.Syncs.Samples(t.Context(), r.sync.ID); err != nil || len(all) != 2 { // 23:45, the last one of its hour, and the new one
			t.Errorf("%d samples after %v, %v", len(all), samplesKept, err)
		}
	})
}
