package state

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is the name under which processes tell each other that documents may be due.
const channel = "kbsync"

// listenAgain is the time between two attempts to listen.
const listenAgain = 5 * time.Second

// Listen calls wake when another process that shares the state may have made documents due, until ctx ends. It only shortens the
// wait of a caller that polls: a notification may be lost, and a pooler delivers none. It returns at once if the state is not
// shared.
func (s *Store) Listen(ctx context.Context, wake func()) { s.listen(ctx, wake) }

func (s *sqliteDB) listen(context.Context, func()) {}

func (p *postgresDB) listen(ctx context.Context, wake func()) {
	for ctx.Err() == nil {
		_ = p.listenOnce(ctx, wake) // the caller polls
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

func (p *postgresDB) listenOnce(ctx context.Context, wake func()) error {
	conn, err := pgx.ConnectConfig(ctx, p.address.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only read
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		wake()
	}
}

// notify wakes the processes that share the state, once the transaction is committed.
func (t *tx) notify() error { return t.session.notify() }

func (t *sqliteTx) notify() error { return nil }

func (t *postgresTx) notify() error {
	_, err := t.exec(`SELECT pg_notify('`+channel+`', '')`, nil)
	return err
}
