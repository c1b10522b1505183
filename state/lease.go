package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

const (
	defaultLease = 30 * time.Second
	// leaseTries is how often a lease is renewed before it would run out.
	leaseTries = 3
	// ownerBits is the length of the number of an owner. A claim has it and claimBits more bits.
	ownerBits = 38
	claimBits = 24
)

// leases are what this process owns in a shared state. The process has an owner row with a lease, which it renews. Claims, batches
// and the scans of roots belong to the owner. When the lease runs out, any process may take them, and this one goes on as
// another owner.
type leases struct {
	db     *postgresDB
	length time.Duration

	registering sync.Mutex // held while the row of an owner is made

	mu    sync.Mutex
	owner *owner // nil before the first claim, and after the lease was lost
	// scans has the syncs whose root this process scans, with the owner that took the lease. The owner is nil while the row of the lease
	// is taken or cleared.
	scans  map[string]*owner
	cancel context.CancelFunc
	ctx    context.Context // ends with the store
	keeper sync.WaitGroup
}

// An owner is this process while it has one lease.
type owner struct {
	id    int64
	until time.Time // by the clock of this process, which began before that of the database
	lost  chan struct{}
	ctx   context.Context // ends with the lease, or with the store
	gone  context.CancelFunc
}

func newLeases(db *postgresDB, length time.Duration) *leases {
	if length <= 0 {
		length = defaultLease
	}
	l := &leases{db: db, length: length, scans: map[string]*owner{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// current returns the owner, and registers one if there is none.
func (l *leases) current(ctx context.Context) (*owner, error) {
	l.registering.Lock()
	defer l.registering.Unlock()
	l.mu.Lock()
	o := l.owner
	l.mu.Unlock()
	if o != nil {
		return o, nil
	}
	o = &owner{id: 1 + rand.Int64N(1<<ownerBits-1), lost: make(chan struct{})}
	o.ctx, o.gone = context.WithCancel(l.ctx)
	host, _ := os.Hostname()
	name := fmt.Sprintf("process %d on %s", os.Getpid(), host)
	err := l.db.update(ctx, func(t *tx) error {
		o.until = time.Now().Add(l.length)
		// No batch and no claim of an owner is left a day after its end.
		if _, err := t.exec(`DELETE FROM owners
			WHERE expires_at < {db.now} - 86400000`); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO owners (id, name, since, expires_at)
			VALUES ($1, $2, {db.now}, {db.now} + $3)`, o.id, name, l.length.Milliseconds())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("register this process: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, errors.New("the state is closed")
	}
	l.owner = o
	l.keeper.Go(func() { l.keep(o) })
	return o, nil
}

// keep renews the lease of an owner until it is lost, or the store is closed.
func (l *leases) keep(o *owner) {
	defer func() {
		o.gone()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.owner == o {
			l.owner = nil
		}
		close(o.lost)
	}()
	every := l.length / leaseTries
	next := every
	for {
		expiry := time.NewTimer(time.Until(o.until))
		renewal := time.NewTimer(next)
		select {
		case <-o.ctx.Done():
		case <-expiry.C:
		case <-renewal.C:
		}
		expiry.Stop()
		renewal.Stop()
		if o.ctx.Err() != nil || time.Now().After(o.until) {
			return
		}
		held, err := l.renew(o)
		switch {
		case err != nil:
			next = every / 5 // the database may answer before the lease runs out
		case !held:
			return
		default:
			next = every
		}
	}
}

// renew renews the lease of an owner. It returns false if the lease has run out.
func (l *leases) renew(o *owner) (held bool, err error) {
	ctx, cancel := context.WithDeadline(o.ctx, o.until)
	defer cancel()
	begun := time.Now()
	text, values, err := l.db.texts.of(`UPDATE owners
		SET expires_at = {db.now} + $1
		WHERE id = $2
		  AND expires_at > {db.now}`, []any{l.length.Milliseconds(), o.id})
	if err != nil {
		return false, err
	}
	result, err := l.db.renewals.ExecContext(ctx, text, values...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 1 {
		o.until = begun.Add(l.length)
	}
	return n == 1, err
}

// end gives up everything that this process owns.
func (l *leases) end() {
	l.mu.Lock()
	o := l.owner
	l.cancel()
	l.mu.Unlock()
	l.keeper.Wait()
	if o == nil {
		return
	}
	// Without its row the owner has no lease, and others need not wait for its end.
	ctx, cancel := context.WithTimeout(context.Background(), l.length)
	defer cancel()
	if text, values, err := l.db.texts.of(`DELETE FROM owners WHERE id = $1`, []any{o.id}); err == nil {
		_, _ = l.db.pool.ExecContext(ctx, text, values...) // the lease runs out without it
	}
}

func (p *postgresDB) owner(ctx context.Context) (int64, error) {
	o, err := p.leases.current(ctx)
	if err != nil {
		return 0, err
	}
	return o.id, nil
}

func (p *postgresDB) lost(ctx context.Context) (<-chan struct{}, error) {
	o, err := p.leases.current(ctx)
	if err != nil {
		return nil, err
	}
	return o.lost, nil
}

func (p *postgresDB) owns(t *tx, owner int64) error {
	var held bool
	err := t.one(`SELECT EXISTS (
			SELECT 1
			FROM owners
			WHERE id = $1
			  AND expires_at > {db.now})`, []any{owner}, &held)
	if err == nil && !held {
		p.leases.drop(owner)
		err = ErrLeaseLost
	}
	return err
}

// drop ends an owner whose lease has run out by the clock of the database.
func (l *leases) drop(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner != nil && l.owner.id == id {
		l.owner.gone()
		l.owner = nil
	}
}

// lockPoll is the time between two attempts to take the lease of a scan.
const lockPoll = time.Second

// lock takes the lease for the scans of a sync's root.
func (p *postgresDB) lock(ctx context.Context, sync string, wait time.Duration) (release func() error, err error) {
	deadline := time.Now().Add(wait)
	for {
		holder, err := p.takeScans(ctx, sync)
		if errors.Is(err, ErrLeaseLost) {
			holder, err = p.takeScans(ctx, sync) // with another owner
		}
		if err != nil {
			return nil, fmt.Errorf("lock sync %q: %w", sync, err)
		}
		if holder == "" {
			return func() error { return p.releaseScans(sync) }, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, fmt.Errorf("sync %q: %w (%s)", sync, ErrLocked, holder)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(min(left, lockPoll)):
		}
	}
}

// takeScans takes the lease for the scans of a sync, or returns the name of its holder. A lease that this process has in the database
// alone is left from a connection that broke while the lease was taken or given up.
func (p *postgresDB) takeScans(ctx context.Context, sync string) (holder string, err error) {
	if !p.leases.reserve(sync) {
		return "this process", nil
	}
	var leader *owner // nil if the lease is not taken
	defer func() { p.leases.setLeader(sync, leader) }()
	o, err := p.leases.current(ctx)
	if err != nil {
		return "", err
	}
	var taken int64
	err = p.update(ctx, func(t *tx) error {
		if err := p.owns(t, o.id); err != nil {
			return err
		}
		// A lock of its own: the statement after it sees every owner that was registered before the lock.
		if err := t.session.lockRow(`SELECT 1 FROM leases WHERE name = $1`, sync); err != nil {
			return err
		}
		taken, err = t.exec(`INSERT INTO leases (name, owner_id, since)
			VALUES ($1, $2, {db.now})
			ON CONFLICT (name) DO UPDATE
			SET owner_id = excluded.owner_id, since = excluded.since
			WHERE leases.owner_id = excluded.owner_id
			   OR leases.owner_id NOT IN (SELECT id FROM owners WHERE expires_at > {db.now})`, sync, o.id)
		if err != nil || taken == 1 {
			return err
		}
		err = t.one(`SELECT o.name
			FROM leases l
			JOIN owners o ON o.id = l.owner_id
			WHERE l.name = $1`, []any{sync}, &holder)
		if errors.Is(err, ErrNotFound) {
			holder, err = "another process", nil
		}
		return err
	})
	switch {
	case err != nil:
		p.leases.clear(sync, o) // the commit may not have been seen
	case taken == 1:
		leader = o
	}
	return holder, err
}

// releaseScans gives up the lease for the scans of a sync, later if the database cannot be reached.
func (p *postgresDB) releaseScans(sync string) error {
	p.leases.mu.Lock()
	o := p.leases.scans[sync]
	p.leases.mu.Unlock()
	err := p.update(context.Background(), func(t *tx) error {
		_, err := t.exec(freeLease, sync, o.id)
		return err
	})
	p.leases.setLeader(sync, nil) // not before the row is free, which this process could take meanwhile
	if err != nil {
		p.leases.clear(sync, o)
	}
	return err
}

// freeLease takes a lease from its owner. It waits for a transaction that takes the lease and has not ended: that of a connection
// which broke, before the server ends it, see admit.
const freeLease = `INSERT INTO leases (name, owner_id, since)
			VALUES ($1, 0, {db.now})
			ON CONFLICT (name) DO UPDATE
			SET owner_id = excluded.owner_id
			WHERE leases.owner_id = $2`

// reserve begins work on the row of a lease, which setLeader ends. It returns false if this process has the lease, or works on the row.
func (l *leases) reserve(sync string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.scans[sync]; known {
		return false
	}
	l.scans[sync] = nil
	return true
}

// setLeader notes the owner that has the lease of a sync; nil for none of this process.
func (l *leases) setLeader(sync string, o *owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o == nil {
		delete(l.scans, sync)
		return
	}
	l.scans[sync] = o
}

// clear frees a lease that the owner may have in the database and that this process does not use: it would keep other processes from the
// root for as long as the owner lives. It tries until the database has answered.
func (l *leases) clear(sync string, o *owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return
	}
	l.keeper.Go(func() {
		for cleared := false; !cleared; cleared = l.clearNow(sync, o) {
			select {
			case <-o.ctx.Done():
				return // the lease has run out
			case <-time.After(lockPoll):
			}
		}
	})
}

// clearNow makes one attempt. It returns true if the owner does not have the lease, or this process uses it again.
func (l *leases) clearNow(sync string, o *owner) bool {
	if !l.reserve(sync) {
		return true
	}
	defer l.setLeader(sync, nil)
	text, values, err := l.db.texts.of(freeLease, []any{sync, o.id})
	if err == nil {
		_, err = l.db.pool.ExecContext(o.ctx, text, values...)
	}
	return err == nil
}

// inPlace checks that a process that took the lease for the scans of the sync still has it.
func (p *postgresDB) inPlace(t *tx, syncID int64) error {
	p.leases.mu.Lock()
	scans := len(p.leases.scans)
	p.leases.mu.Unlock()
	if scans == 0 {
		return nil
	}
	var name string
	var leader int64
	err := t.one(`SELECT s.name, coalesce(l.owner_id, 0)
		FROM syncs s
		LEFT JOIN leases l ON l.name = s.name
		WHERE s.id = $1`, []any{syncID}, &name, &leader)
	if err != nil {
		return err
	}
	p.leases.mu.Lock()
	owner := p.leases.scans[name]
	p.leases.mu.Unlock()
	if owner == nil {
		return nil
	}
	if leader != owner.id {
		return ErrLeaseLost
	}
	return p.owns(t, owner.id)
}

// recoveryLock needs no lock: recovery ends the work of dead owners only, and locks the rows.
func (p *postgresDB) recoveryLock(context.Context, string) (release func() error, err error) {
	return func() error { return nil }, nil
}
