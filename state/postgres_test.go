package state

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// A schema that a newer kbsync has migrated is not written to, although the state has been open since before.
func TestOlderProcessStopsBeforeItWritesToANewerSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.must(r.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`INSERT INTO schema_version (version_id, is_applied) VALUES (999, 1 = 1)`)
			return err
		}))
		ran := false
		err := r.s.update(t.Context(), func(t *tx) error {
			ran = true
			return t.command(`UPDATE syncs SET last_error = 'written'`)
		})
		if !errors.Is(err, ErrNewerSchema) || ran {
			t.Errorf("the update returns %v; its function ran: %v", err, ran)
		}
		if err := r.s.Syncs.SetLastError(t.Context(), r.sync.ID, "written"); !errors.Is(err, ErrNewerSchema) {
			t.Errorf("a method returns %v", err)
		}
		if y, err := r.s.Syncs.Get(t.Context(), r.sync.Name); err != nil || y.LastError != "" {
			t.Errorf("the sync has %q, %v", y.LastError, err)
		}
	})
}

// Ids of rows that an import brought are not given to new rows.
func TestImportedIdsAreNotGivenAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := populated(newFixture(t))
		to := &fixture{t: t, s: r.open(r.make(t)), sync: r.sync, next: 900000}
		r.must(to.s.Import(t.Context(), strings.NewReader(export(t, r.s))))
		// A new row of each table: a document, a destination and its sync, a batch, a content and a source.
		to.put("new.md")
		var err error
		to.sync, err = to.s.Syncs.Ensure(t.Context(), "other", "/other", Destination{Origin: "https://b", KnowledgeBase: 1}, false)
		r.must(err)
		if to.sync.ID == r.sync.ID {
			t.Fatal("the new sync is the imported one")
		}
		to.put("new.md")
		to.upload(map[string]string{"new.md": "NEW"})
		to.want("new.md=completed")
	})
}

func TestTransactionThatFailsLeavesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		failure := errors.New("failure")
		err := r.s.update(t.Context(), func(t *tx) error {
			return errors.Join(t.command(`UPDATE syncs SET last_error = 'written'`), failure)
		})
		if !errors.Is(err, failure) {
			t.Errorf("update returns %v", err)
		}
		// PostgreSQL ends a transaction at its first error, also if the function ignores it.
		err = r.s.update(t.Context(), func(t *tx) error {
			_ = t.command(`UPDATE no_table SET x = 1`)
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("update returns %v", err)
		}
		if y, err := r.s.Syncs.Get(t.Context(), r.sync.Name); err != nil || y.LastError != "" {
			t.Errorf("the sync has %q, %v", y.LastError, err)
		}
	})
}

// An error that the function ignores ends a transaction of PostgreSQL. Its caller must not take it for durable.
func TestIgnoredErrorIsNotACommit(t *testing.T) {
	r := fixtureIn(t, inPostgres)
	err := r.s.update(t.Context(), func(t *tx) error {
		if err := t.command(`UPDATE syncs SET last_error = 'written'`); err != nil {
			return err
		}
		_ = t.command(`UPDATE no_table SET x = 1`)
		return nil
	})
	if err == nil {
		t.Error("update returns no error")
	}
}

// Text that PostgreSQL cannot hold is recorded all the same: an answer must not be lost.
func TestAnyTextAndAnyNumberIsRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.must(r.s.Syncs.SetLastError(t.Context(), r.sync.ID, "a\x00b\xffc"))
		y, err := r.s.Syncs.Get(t.Context(), r.sync.Name)
		r.must(err)
		if !strings.HasPrefix(y.LastError, "a") || !strings.HasSuffix(y.LastError, "c") {
			t.Errorf("recorded %q", y.LastError)
		}
		// The server would take a parameter beside a small number for a 32-bit integer.
		large := int64(1) << 62
		var got, least int64
		var truth, truthOfBytes bool
		r.must(r.s.queryOne(t.Context(), `SELECT CASE WHEN $1 = 0 THEN 1 ELSE $1 END, CASE WHEN $2 < 5 THEN $2 ELSE 5 END, $3 = 1, $4 = $5`,
			[]any{large, -large, true, []byte{0, 255}, []byte{0, 255}}, &got, &least, &truth, &truthOfBytes))
		if got != large || least != -large || !truth || !truthOfBytes {
			t.Errorf("%d, %d, %v, %v", got, least, truth, truthOfBytes)
		}
		r.put("\x00\xff/key", "b")
		want := "\x00\xff/key"
		if _, ok := r.states()[want]; !ok {
			t.Errorf("the keys are %q", r.states())
		}
	})
}

// Two transactions of which each waits for a row of the other: PostgreSQL ends one, and update runs it again.
func TestConflictingTransactionRunsAgain(t *testing.T) {
	r := fixtureIn(t, inPostgres)
	r.must(r.s.update(t.Context(), func(t *tx) error {
		for _, item := range []string{"0", "1"} {
			if _, err := t.exec(`INSERT INTO reported (sync_id, event, item) VALUES ($1, '', $2)`, r.sync.ID, []byte(item)); err != nil {
				return err
			}
		}
		return nil
	}))
	var runs atomic.Int32
	var both, group sync.WaitGroup
	both.Add(2)
	for i := range 2 {
		group.Go(func() {
			first := true
			err := r.s.update(t.Context(), func(t *tx) error {
				runs.Add(1)
				for step := range 2 {
					_, err := t.exec(`UPDATE reported SET event = event || 'x' WHERE item = $1`, []byte(fmt.Sprint((i+step)%2)))
					if err != nil {
						return err
					}
					if first {
						first = false
						both.Done()
						both.Wait()
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var events string
	r.must(r.s.queryOne(t.Context(), `SELECT min(event) || '/' || max(event) FROM reported`, nil, &events))
	if events != "xx/xx" || runs.Load() < 3 {
		t.Errorf("the rows are %s after %d runs", events, runs.Load())
	}
}

func TestTransactionRunsAgainTenTimesAtMost(t *testing.T) {
	r := fixtureIn(t, inPostgres)
	for code, want := range map[string]int{"40001": 10, "40P01": 10, "23505": 1} {
		runs := 0
		err := r.s.update(t.Context(), func(*tx) error {
			runs++
			return &pgconn.PgError{Code: code}
		})
		if err == nil || runs != want {
			t.Errorf("%s: %d runs, want %d; %v", code, runs, want, err)
		}
	}
}

// The transactions that lock one destination run one after another, and a foreign key does not wait for them.
func TestLockOfADestination(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				err := r.s.update(t.Context(), func(t *tx) error {
					if i%2 == 0 {
						// The foreign key of this row locks the destination, too.
						if _, err := t.exec(`INSERT INTO syncs (name, destination_id, root, created_at) VALUES ($1, $2, '', 0)`,
							fmt.Sprint("sync", i), r.sync.Destination.ID); err != nil {
							return err
						}
						if err := t.lockSync(r.sync.ID, alone); err != nil {
							return err
						}
					} else if err := t.lockDestination(r.sync.Destination.ID, alone); err != nil {
						return err
					}
					var n int64
					if err := t.one(`SELECT largest_accepted FROM destinations WHERE id = $1`, []any{r.sync.Destination.ID}, &n); err != nil {
						return err
					}
					time.Sleep(10 * time.Millisecond)
					_, err := t.exec(`UPDATE destinations SET largest_accepted = $1 WHERE id = $2`, n+1, r.sync.Destination.ID)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		l, err := r.s.Journal.Limits(t.Context(), r.sync.Destination.ID)
		if err != nil || l.LargestAccepted != 8 {
			t.Errorf("%d of 8 transactions counted, %v", l.LargestAccepted, err)
		}
	})
}

// A caller must learn whether a transaction that had begun is durable.
func TestTransactionOutlivesItsCallersContext(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		r.must(r.s.update(ctx, func(t *tx) error {
			cancel()
			return t.command(`UPDATE syncs SET last_error = 'written'`)
		}))
		if y, err := r.s.Syncs.Get(t.Context(), r.sync.Name); err != nil || y.LastError != "written" {
			t.Errorf("the sync has %q, %v", y.LastError, err)
		}
	})
}

func TestReadOnlyPostgres(t *testing.T) {
	empty := pgtest.Start(t).Database(t)
	r := &fixture{t: t}
	ro := r.open(Options{Path: empty, ReadOnly: true})
	if syncs, err := ro.Syncs.All(t.Context()); err != nil || len(syncs) != 0 {
		t.Errorf("an empty database reads as %v, %v", syncs, err)
	}
	s := r.open(Options{Path: empty}) // no table is there, or it would be refused
	_, err := s.Syncs.Ensure(t.Context(), "a", "/a", testDestination, false)
	r.must(err)
	ro = r.open(Options{Path: empty, ReadOnly: true})
	if syncs, err := ro.Syncs.All(t.Context()); err != nil || len(syncs) != 1 {
		t.Errorf("read %v, %v", syncs, err)
	}
	if _, err := ro.Syncs.Ensure(t.Context(), "b", "/b", testDestination, false); err == nil {
		t.Error("a read-only state was written to")
	}
}

func TestOpenRefusesAnUnfitDatabase(t *testing.T) {
	server := pgtest.Start(t)
	database := func(statements ...string) string {
		to := server.Database(t)
		for _, s := range statements {
			pgtest.Exec(t, to, s)
		}
		return to
	}
	name := func(to string) string {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	asynchronous := database()
	pgtest.Exec(t, asynchronous, `ALTER DATABASE `+name(asynchronous)+` SET synchronous_commit = off`)
	newer := server.Database(t)
	s, err := Open(t.Context(), Options{Path: newer})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, newer, `INSERT INTO schema_version (version_id, is_applied) VALUES (999, true)`)
	latin := strings.Replace(asynchronous, name(asynchronous), "latin", 1)
	pgtest.Exec(t, server.URL("postgres"), `CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1`)
	t.Cleanup(func() { pgtest.Exec(t, server.URL("postgres"), `DROP DATABASE latin WITH (FORCE)`) })
	for _, tt := range []struct {
		name string
		opts Options
		want string
	}{
		{"asynchronous commit", Options{Path: asynchronous}, "synchronous_commit is off"},
		{"encoding", Options{Path: latin}, "encoding LATIN1"},
		{"newer schema", Options{Path: newer}, ErrNewerSchema.Error()},
		{"another program", Options{Path: database(`CREATE TABLE something (id bigint)`)}, "another program"},
		{"no database", Options{Path: server.URL("absent")}, "createdb"},
		{"no server", Options{Path: "postgres://u:secret@127.0.0.1:1/x?sslmode=disable"}, "127.0.0.1:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Open(t.Context(), tt.opts)
			if err == nil {
				t.Fatal("opened", s.Close())
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error is: %v", err)
			}
		})
	}
}

func TestNoErrorHasThePassword(t *testing.T) {
	for _, u := range []string{
		"postgres://user:pass-word@127.0.0.1:1/x?sslmode=disable",
		"postgresql://user:pass-word@127.0.0.1:1/x?sslmode=wrong",
		"POSTGRES://user:pass-word@127.0.0.1:1/x?sslmode=disable",
		"postgres://127.0.0.1:1/x?sslmode=disable&user=user&password=pass-word",
		"postgres://127.0.0.1:1/x?sslmode=disable&sslpassword=pass-word",
		"postgres://user:pass-word@127.0.0.1:port/x",
		"postgres://user:%zz-pass-word@127.0.0.1:1/x",
		"postgres://user:1/pass-word@127.0.0.1:1/x",
		"postgres://user:1#pass-word@127.0.0.1:1/x",
		"postgres://user:1?pass-word@127.0.0.1:1/x",
		"postgres://user:1@/pass-word@127.0.0.1:1/x",
		"postgres://user:pass-word@127.0.0.1:1/x?pool_max_conns=1",
		"postgres://user:pass-word@127.0.0.1:1/x?pool_max_conn_lifetime=long",
		"postgres://user:pass-word@127.0.0.1:1/x?default_query_exec_mode=wrong",
		"postgres://user:pass-word@127.0.0.1:1/x?connect_timeout=%zz",
	} {
		s, err := Open(t.Context(), Options{Path: u})
		if err == nil {
			t.Fatal(u, "opened", s.Close())
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %+v", e, e); strings.Contains(text, "pass-word") || !strings.Contains(err.Error(), "open state postgres") && !strings.Contains(err.Error(), "open state POSTGRES") {
				t.Errorf("%s: %s", u, text)
			}
		}
		t.Log(err)
	}
}

// A pooler gives each transaction another connection to the server.
func TestStateWorksThroughAPooler(t *testing.T) {
	for _, mode := range []string{"", "&default_query_exec_mode=simple_protocol", "&pool_max_conns=2"} {
		t.Run(mode, func(t *testing.T) {
			to := pgtest.PgBouncer(t, pgtest.Start(t).Database(t))
			r := fixtureIn(t, func(testing.TB) Options { return Options{Path: to + mode} })
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					for range 20 {
						if err := r.s.Syncs.SetLastError(t.Context(), r.sync.ID, time.Now().String()); err != nil {
							t.Error(err)
						}
						if _, err := r.s.Syncs.All(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			populated(r)
			if !strings.Contains(export(t, r.s), `"source_id":33`) {
				t.Error("the export has no source")
			}
			if mode != "" {
				return
			}
			// The pooler forgets its connections, as after a restart.
			pgtest.Exec(t, to, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`)
			time.Sleep(1100 * time.Millisecond)
			r.must(r.s.Syncs.SetLastError(t.Context(), r.sync.ID, ""))
		})
	}
}

// An update or a read that comes after a restart of the server works: a connection that was lost while it was idle is
// replaced.
func TestRestartOfTheServer(t *testing.T) {
	for _, mode := range []string{"fast", "immediate"} {
		t.Run(mode, func(t *testing.T) {
			server := pgtest.New(t, pgtest.Options{Durable: true})
			to := server.Database(t)
			r := fixtureIn(t, func(testing.TB) Options { return Options{Path: to} })
			r.put("a.md")
			server.Restart(t, mode)
			r.must(r.s.Syncs.SetLastError(t.Context(), r.sync.ID, "after"))
			r.want("a.md=pending")
		})
	}
}

// A database that cannot be reached ends a call with an error, and not with the error of an ended context.
func TestUnreachableDatabaseEndsACall(t *testing.T) {
	proxy, to := pgtest.NewProxy(t, pgtest.Start(t).Database(t))
	r := fixtureIn(t, func(testing.TB) Options { return Options{Path: to} })
	write := func() error { return r.s.Syncs.SetLastError(t.Context(), r.sync.ID, time.Now().String()) }
	proxy.Cut()
	if err := write(); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("cut: %v", err)
	} else {
		t.Log(err)
	}
	proxy.Restore()
	r.must(write())

	// The transaction has begun, and its caller's context may not end it.
	own := newPatience(t.Context(), 50*time.Millisecond)
	defer own.end()
	<-own.Done()
	err := unanswered(own, context.Canceled)
	if !errors.Is(err, errUnanswered) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}

	proxy.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.s.Syncs.Get(ctx, r.sync.Name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read of a silent server returns %v", err)
	}
	proxy.Cut()
	proxy.Restore()
	r.must(write())
}

func TestSilentDatabaseEndsATransaction(t *testing.T) {
	proxy, to := pgtest.NewProxy(t, pgtest.Start(t).Database(t))
	r := fixtureIn(t, func(testing.TB) Options { return Options{Path: to} })
	r.s.backend.(*postgresDB).limit = 300 * time.Millisecond
	start := time.Now()
	err := r.s.update(t.Context(), func(t *tx) error {
		proxy.Silence()
		return t.command(`UPDATE syncs SET last_error = 'written'`)
	})
	proxy.Restore()
	if !errors.Is(err, errUnanswered) || errors.Is(err, context.Canceled) {
		t.Errorf("update returns %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	// Each statement that has its answer begins the time again.
	r.must(r.s.update(t.Context(), func(t *tx) error {
		for range 5 {
			time.Sleep(100 * time.Millisecond)
			if err := t.command(`UPDATE syncs SET last_error = 'again'`); err != nil {
				return err
			}
		}
		return nil
	}))
}
