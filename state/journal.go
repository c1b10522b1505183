package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The Journal has a row for every upload request. It decides which documents are sent, and which are sent again.
type Journal struct{ *db }

// An Upload is a batch between its first byte and its outcome, in the memory of the process that sends it: no other process
// may seal it. Its methods and those of the Journal that take it must not be called at the same time.
type Upload struct {
	spec     BatchSpec
	owner    int64 // the process that sends it, in a shared state
	id       int64
	contents []int64 // of the members, once it is sealed
	// failed is set when an attempt to record the outcome failed. It may be in the database all the same, if the connection was
	// lost during the commit.
	failed bool
}

// ID returns the number of the batch in the journal; 0 before it has one, which is at its seal at the latest.
func (u *Upload) ID() int64 { return u.id }

// Begin begins a batch. Call it before the first byte. It writes nothing: the API cannot have a whole request before its
// seal, so an earlier row would prove nothing. While the breaker is open only one batch at a time may begin, with Probe set,
// and that one has its row from here on. Errors: ErrBreakerOpen, ErrMoved, ErrLockLost.
func (s *Journal) Begin(ctx context.Context, spec BatchSpec) (*Upload, error) {
	u := &Upload{spec: spec}
	u.spec.Members = slices.Clone(spec.Members)
	err := s.begin(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("begin batch: %w", err)
	}
	return u, nil
}

func (s *Journal) begin(ctx context.Context, u *Upload) (err error) {
	if u.owner, err = s.owner(ctx); err != nil {
		return err
	}
	var streak int
	var name string
	if err := s.queryOne(ctx, `SELECT t.uncertain_streak, s.name
		FROM destinations t
		JOIN syncs s ON s.destination_id = t.id
		WHERE s.id = $1`, []any{u.spec.SyncID}, &streak, &name); err != nil {
		return err
	}
	if streak == 0 {
		return s.heldInPlace(name)
	}
	if !u.spec.Probe {
		return ErrBreakerOpen
	}
	return s.update(ctx, func(t *tx) error {
		if err := s.heldInPlace(name); err != nil {
			return err
		}
		return t.beginProbe(u)
	})
}

// beginProbe makes the batch the one that the breaker lets through. If another process has closed the breaker meanwhile, it needs no probe. A
// probe that has ended is none: a process that did not look at the breaker again left such a one.
func (t *tx) beginProbe(u *Upload) (err error) {
	if err := t.lockSync(u.spec.SyncID, alone); err != nil {
		return err
	}
	b := batchRow{sync: u.spec.SyncID, resendOf: u.spec.ResendOf, bytes: u.spec.Bytes}
	var probe int64
	var streak int
	if err := t.one(`SELECT t.id, t.uncertain_streak, coalesce((SELECT p.id FROM batches p WHERE p.id = t.probe_batch AND p.state < {batch.answered}), 0)
		FROM destinations t
		JOIN syncs s ON s.destination_id = t.id
		WHERE s.id = $1`, []any{b.sync}, &b.destination, &streak, &probe); err != nil || streak == 0 {
		return err
	}
	if probe != 0 {
		return ErrBreakerOpen
	}
	if u.id, err = t.insertBatch(b, u, batchOpen, 0); err != nil {
		return err
	}
	_, err = t.exec(`UPDATE destinations SET probe_batch = $1 WHERE id = $2`, u.id, b.destination)
	return err
}

// insertBatch writes the row of a batch that has none.
func (t *tx) insertBatch(b batchRow, u *Upload, state int, sealedAt int64) (id int64, err error) {
	err = t.one(`INSERT INTO batches (sync_id, destination_id, state, owner, resend_of, documents, bytes, created_at, sealed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		RETURNING id`, []any{
		b.sync, b.destination, state, u.owner, b.resendOf, len(u.spec.Members), b.bytes, now(), sealedAt,
	}, &id)
	return id, err
}

// Breaker returns how many batches of the destination became uncertain since the last accepted one (0: the breaker is
// closed), and until when a Retry-After holds back uploads; zero if none does.
func (s *Journal) Breaker(ctx context.Context, destinationID int64) (streak int, pausedUntil time.Time, err error) {
	var until int64
	err = s.queryOne(ctx, `SELECT uncertain_streak, paused_until
		FROM destinations
		WHERE id = $1`, []any{destinationID}, &streak, &until)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("read breaker: %w", err)
	}
	if until > farthest() {
		until = 0
	}
	return streak, fromMillis(until), nil
}

// Pause holds back the uploads to all destinations of the destination's account until then, for a day at most; a longer pause
// stays.
func (s *Journal) Pause(ctx context.Context, destinationID int64, until time.Time) error {
	err := s.update(ctx, func(t *tx) error {
		// The API asks an account to wait, and not a knowledge base.
		_, err := t.exec(`UPDATE destinations
			SET paused_until = $1
			WHERE (origin, account) IN (SELECT origin, account FROM destinations WHERE id = $2)
			  AND (paused_until < $1 OR paused_until > $3)`, waitUntil(until), destinationID, farthest())
		return err
	})
	if err != nil {
		return fmt.Errorf("pause destination: %w", err)
	}
	return nil
}

// Turn returns how long to wait before the next request to an account, so that all processes together send one request an
// interval; up to burst requests may follow each other at once.
func (s *Journal) Turn(ctx context.Context, account string, interval time.Duration, burst int) (wait time.Duration, err error) {
	var millis int64
	err = s.updateLazily(ctx, func(t *tx) error {
		return t.one(`INSERT INTO rates (account, next_at)
			VALUES ($1, {db.now} - $3 + $2)
			ON CONFLICT (account) DO UPDATE
			SET next_at = CASE WHEN rates.next_at < {db.now} - $3 THEN {db.now} - $3 ELSE rates.next_at END + $2
			RETURNING next_at - $2 - {db.now}`,
			[]any{account, interval.Milliseconds(), interval.Milliseconds() * int64(burst-1)}, &millis)
	})
	if err != nil {
		return 0, fmt.Errorf("wait for the account's turn: %w", err)
	}
	return max(time.Duration(millis)*time.Millisecond, 0), nil
}

// Limits are what the answers of a destination say about the size of a request, in bytes of contents.
type Limits struct {
	LargestAccepted int64     // 0 if none was accepted
	SmallestRefused int64     // as too large (413); 0 if none was, or a request of that size was accepted since
	RefusedAt       time.Time // of the last 413; zero if SmallestRefused is
}

// Limits returns the limits of the destination.
func (s *Journal) Limits(ctx context.Context, destinationID int64) (l Limits, err error) {
	err = s.queryOne(ctx, `SELECT largest_accepted, smallest_refused
		FROM destinations
		WHERE id = $1`, []any{destinationID}, &l.LargestAccepted, &l.SmallestRefused)
	if err != nil {
		return Limits{}, fmt.Errorf("read limits: %w", err)
	}
	if l.SmallestRefused == 0 {
		return l, nil
	}
	var at int64
	err = s.queryOne(ctx, `SELECT ended_at
		FROM batches
		WHERE destination_id = $1
		  AND status_code = 413
		ORDER BY id DESC
		LIMIT 1`, []any{destinationID}, &at)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Limits{}, fmt.Errorf("read the last 413: %w", err)
	}
	l.RefusedAt = fromMillis(at)
	return l, nil
}

// Recover ends the work that earlier processes left, and that this process has left since its last run of uploads: claims
// become pending, batches that were not sealed are abandoned, and sealed ones without an answer become uncertain, which opens
// the breaker. It returns the number of uncertain ones. In a file the caller holds the sync's lock, so no other process works
// on the sync. In a shared state the work of processes with a lease goes on. No run of uploads of the sync may be under way
// in this process. Errors: ErrMoved, ErrLockLost, ErrLeaseLost.
func (s *Journal) Recover(ctx context.Context, syncID int64) (uncertain int, err error) {
	own, err := s.owner(ctx)
	if err == nil {
		uncertain, err = s.recover(ctx, syncID, own)
	}
	if err != nil {
		return 0, fmt.Errorf("recover sync: %w", err)
	}
	return uncertain, nil
}

// recover ends the work of owners without a lease, and of the owner own.
func (s *Journal) recover(ctx context.Context, syncID, own int64) (uncertain int, err error) {
	err = s.update(ctx, func(t *tx) error {
		if err := t.lockSync(syncID, alone); err != nil {
			return err
		}
		if err := s.inPlace(t, syncID); err != nil {
			return err // another process may have taken over
		}
		uncertain, err = t.recover(syncID, own)
		return err
	})
	return uncertain, err
}

// A Recovered is a sync whose left work RecoverUnowned has ended.
type Recovered struct {
	Sync      string
	Uncertain int // batches
}

// RecoverUnowned recovers every sync that has work under way and that no process works on: a sync that left the config, or
// that was not started. Its reservations would keep the documents of other syncs uploading, and its probe would keep the
// breaker of the destination open. In a file it skips each sync whose lock is held, and does not wait. In a shared state it ends
// the work of every process whose lease ran out, of whatever sync.
func (s *Journal) RecoverUnowned(ctx context.Context) ([]Recovered, error) {
	type unowned struct {
		id   int64
		name string
	}
	var left []unowned
	err := s.query(ctx, `SELECT s.id, s.name
		FROM syncs s
		WHERE EXISTS (
			SELECT 1
			FROM batches b
			WHERE b.sync_id = s.id
			  AND b.state < {batch.answered}
			  AND `+ownerIsDead("b.owner", "$1")+`)
		OR EXISTS (
			SELECT 1
			FROM documents d
			WHERE d.sync_id = s.id
			  AND d.state < {doc.linked}
			  AND d.state = {doc.claimed}
			  AND `+ownerIsDead(claimOwner, "$1")+`)
		ORDER BY s.id`, []any{0}, func(scan func(...any) error) error {
		var u unowned
		err := scan(&u.id, &u.name)
		left = append(left, u)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read unfinished syncs: %w", err)
	}
	var all []Recovered
	for _, u := range left {
		unlock, err := s.recoveryLock(ctx, u.name)
		if errors.Is(err, ErrLocked) {
			continue
		} else if err != nil {
			return all, err
		}
		n, err := s.recover(ctx, u.id, 0)
		if err := errors.Join(err, unlock()); err != nil {
			return all, err
		}
		all = append(all, Recovered{Sync: u.name, Uncertain: n})
	}
	return all, nil
}

// A BatchState is the state of a batch. Its text is printed as it is.
type BatchState string

// The states of a batch.
const (
	BatchOpen      BatchState = "open"      // being sent
	BatchSealed    BatchState = "sealed"    // sent, and waiting for the answer
	BatchAccepted  BatchState = "accepted"  // the API answered with sources
	BatchRefused   BatchState = "refused"   // the API refused all of it
	BatchAbandoned BatchState = "abandoned" // ended before it was sealed, so the API cannot have it
	BatchUncertain BatchState = "uncertain" // sent whole, and the answer was lost
)

// A Batch is a row of the journal as a person sees it.
type Batch struct {
	ID         int64
	Sync       string
	State      BatchState
	ResendOf   int64 // the uncertain batch whose documents it sends again; 0 for none
	Documents  int
	Bytes      int64 // of contents
	BegunAt    time.Time
	EndedAt    time.Time // zero while open or sealed
	StatusCode int       // of the answer; 0 for none
	Message    string    // why it was not accepted
}

// Recent returns the last limit batches of all syncs, the latest first.
func (s *Journal) Recent(ctx context.Context, limit int) ([]Batch, error) {
	var batches []Batch
	states := [...]BatchState{
		batchOpen: BatchOpen, batchSealed: BatchSealed, batchAnswered: BatchAccepted,
		batchRefused: BatchRefused, batchAbandoned: BatchAbandoned, batchUncertain: BatchUncertain,
	}
	err := s.query(ctx, `SELECT b.id, y.name, b.state, b.resend_of, b.documents, b.bytes, b.created_at, b.ended_at,
			b.status_code, b.message
		FROM batches b
		JOIN syncs y ON y.id = b.sync_id
		ORDER BY b.id DESC
		LIMIT $1`, []any{limit}, func(scan func(...any) error) error {
		var b Batch
		var state int
		var begun, ended int64
		err := scan(&b.ID, &b.Sync, &state, &b.ResendOf, &b.Documents, &b.Bytes, &begun, &ended, &b.StatusCode, &b.Message)
		if err != nil {
			return err
		}
		if state < 0 || state >= len(states) {
			return fmt.Errorf("batch %d has the unknown state %d", b.ID, state)
		}
		b.State, b.BegunAt, b.EndedAt = states[state], fromMillis(begun), fromMillis(ended)
		batches = append(batches, b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	return batches, nil
}
