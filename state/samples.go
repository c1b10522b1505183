package state

import (
	"context"
	"fmt"
	"time"
)

// A Sample is how a sync stood at a minute.
type Sample struct {
	At        time.Time // in whole minutes
	Completed int
	Waiting   int // pending and uploading
	Training  int
	Troubled  int // failed, stuck and uncertain
	Skipped   int
	// Lag is the age of the earliest change of a document that was not completed.
	Lag time.Duration
	// Trained are the sources whose training ended since the sample before, and TrainingTime is the sum of the times that it took.
	Trained      int
	TrainingTime time.Duration
}

const (
	sampleEvery = time.Minute
	// samplesWhole is how long every sample is kept, and samplesKept how long one an hour is: 2,000 samples a sync.
	samplesWhole = 24 * time.Hour
	samplesKept  = 23 * 24 * time.Hour
)

// AddSample records how a sync stands. A sample of the same minute is replaced, but its trained sources are added. Old samples are thinned
// to the last one of each hour after a day, and deleted after 23 days.
func (s *Syncs) AddSample(ctx context.Context, syncID int64, x Sample) error {
	at := millis(x.At.Truncate(sampleEvery))
	err := s.updateLazily(ctx, func(t *tx) error {
		if _, err := t.exec(`INSERT INTO samples (sync_id, at, completed, waiting, training, troubled, skipped, lag, trained, training_time)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
			ON CONFLICT (sync_id, at) DO UPDATE SET completed = excluded.completed, waiting = excluded.waiting, training = excluded.training,
				troubled = excluded.troubled, skipped = excluded.skipped, lag = excluded.lag, trained = samples.trained + excluded.trained,
				training_time = samples.training_time + excluded.training_time`,
			syncID, at, x.Completed, x.Waiting, x.Training, x.Troubled, x.Skipped, x.Lag.Milliseconds(), x.Trained, x.TrainingTime.Milliseconds()); err != nil {
			return err
		}
		hour := time.Hour.Milliseconds()
		_, err := t.exec(`DELETE FROM samples
			WHERE sync_id = $1
			  AND (at < $2 OR at < $3 AND EXISTS (
				SELECT 1
				FROM samples later
				WHERE later.sync_id = samples.sync_id
				  AND later.at > samples.at
				  AND later.at < samples.at - samples.at % $4 + $4))`,
			syncID, at-samplesKept.Milliseconds(), at-samplesWhole.Milliseconds(), hour)
		return err
	})
	if err != nil {
		return fmt.Errorf("add sample: %w", err)
	}
	return nil
}

// Samples returns the samples of a sync, the oldest first.
func (s *Syncs) Samples(ctx context.Context, syncID int64) (all []Sample, err error) {
	err = s.query(ctx, `SELECT at, completed, waiting, training, troubled, skipped, lag, trained, training_time
		FROM samples
		WHERE sync_id = $1
		ORDER BY at`, []any{syncID}, func(scan func(...any) error) error {
		var x Sample
		var at, lag, took int64
		err := scan(&at, &x.Completed, &x.Waiting, &x.Training, &x.Troubled, &x.Skipped, &lag, &x.Trained, &took)
		x.At, x.Lag, x.TrainingTime = fromMillis(at), time.Duration(lag)*time.Millisecond, time.Duration(took)*time.Millisecond
		all = append(all, x)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	return all, nil
}

// InStepSince returns the time of the first sample since which no document was waiting, in training or troubled; zero if the last sample
// has one, or if there is no sample.
func (s *Syncs) InStepSince(ctx context.Context, syncID int64) (time.Time, error) {
	var at int64
	err := s.queryOne(ctx, `SELECT coalesce(min(at), 0)
		FROM samples
		WHERE sync_id = $1
		  AND at > coalesce((
			SELECT max(at)
			FROM samples
			WHERE sync_id = $1
			  AND waiting + training + troubled > 0), 0)`, []any{syncID}, &at)
	if err != nil {
		return time.Time{}, fmt.Errorf("read samples: %w", err)
	}
	return fromMillis(at), nil
}
