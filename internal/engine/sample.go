package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/state"
)

const (
	// sampleRest is the least time between two samples for the plots. Counting the documents of a large sync takes seconds, so a
	// sample rests sampleCost times as long as it took, too.
	sampleRest = time.Minute
	sampleCost = 200
	// sampleAge is the age at which a sample is repeated although nothing changed.
	sampleAge = time.Hour
)

// A sampler records how a sync stands, for the plots of the page.
type sampler struct {
	last   state.Sample // that was written
	next   time.Time    // no sample before
	wanted bool         // the status may have changed since the last sample

	trained atomic.Int64 // sources whose training ended since the last sample
	took    atomic.Int64 // nanoseconds, for all of them
}

// Trained notes the end of the training of a source.
func (s *sampler) Trained(took time.Duration) {
	s.trained.Add(1)
	s.took.Add(int64(took))
}

// wait returns how long the report loop may wait for a change.
func (s *sampler) wait(now time.Time) time.Duration {
	if !s.wanted {
		return time.Hour
	}
	return max(s.next.Sub(now), 0)
}

// sample records how the sync stands, if it is time.
func (l *loops) sample(ctx context.Context) {
	s := &l.sampler
	begun := l.opts.Now()
	s.wanted = true
	if begun.Before(s.next) {
		return
	}
	s.wanted = false
	x, err := l.present(ctx, begun)
	if err == nil && !x.At.IsZero() {
		err = l.opts.Store.Syncs.AddSample(ctx, l.sync.ID, x)
	}
	if err != nil && ctx.Err() == nil {
		l.logger.Warn("cannot record a sample for the plots", "error", err)
	}
	s.next = begun.Add(max(sampleRest, sampleCost*l.opts.Now().Sub(begun)))
}

// present returns how the sync stands; zero if it stands as the last sample.
func (l *loops) present(ctx context.Context, now time.Time) (state.Sample, error) {
	counts, err := l.opts.Store.Documents.Counts(ctx, l.sync.ID)
	if err != nil {
		return state.Sample{}, err
	}
	progress, err := l.opts.Store.Documents.Progress(ctx, l.sync.ID)
	if err != nil {
		return state.Sample{}, err
	}
	s := &l.sampler
	x := state.Sample{
		Completed: counts[state.Completed], Waiting: counts[state.Pending] + counts[state.Uploading], Training: counts[state.Training],
		Troubled: counts[state.Failed] + counts[state.Stuck] + counts[state.Uncertain], Skipped: counts[state.Skipped],
	}
	same := s.last
	same.At, same.Lag, same.Trained, same.TrainingTime = time.Time{}, 0, 0, 0
	if x == same && s.trained.Load() == 0 && now.Sub(s.last.At) < sampleAge {
		return state.Sample{}, nil
	}
	x.At = now
	if !progress.UnfinishedSince.IsZero() {
		x.Lag = max(now.Sub(progress.UnfinishedSince), 0)
	}
	x.Trained, x.TrainingTime = int(s.trained.Swap(0)), time.Duration(s.took.Swap(0))
	s.last = x
	return x, nil
}
