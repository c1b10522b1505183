package state

import (
	"context"
	"database/sql"
	"sync"
)

// A recorder is a backend that notes every text that its callers run.
type recorder struct {
	backend
	mu    sync.Mutex
	step  string // what the caller is doing
	texts []recorded
	known map[string]bool
}

// A recorded is a text, with the values and the step of its first run.
type recorded struct {
	step, query string
	args        []any
}

func newRecorder(b backend) *recorder { return &recorder{backend: b, known: map[string]bool{}} }

func (r *recorder) begin(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step = step
}

func (r *recorder) note(query string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known[query] {
		r.known[query] = true
		r.texts = append(r.texts, recorded{r.step, query, args})
	}
}

func (r *recorder) update(ctx context.Context, fn func(*tx) error) error {
	return r.backend.update(ctx, func(t *tx) error { return fn(&tx{recordingSession{t.session, r}}) })
}

func (r *recorder) updateLazily(ctx context.Context, fn func(*tx) error) error {
	return r.backend.updateLazily(ctx, func(t *tx) error { return fn(&tx{recordingSession{t.session, r}}) })
}

func (r *recorder) query(ctx context.Context, query string, args []any, row func(scan func(...any) error) error) error {
	r.note(query, args)
	return r.backend.query(ctx, query, args, row)
}

func (r *recorder) queryOne(ctx context.Context, query string, args []any, dest ...any) error {
	r.note(query, args)
	return r.backend.queryOne(ctx, query, args, dest...)
}

func (r *recorder) snapshot(ctx context.Context, fn func(query queryFunc) error) error {
	return r.backend.snapshot(ctx, func(query queryFunc) error {
		return fn(func(text string, args []any, row func(scan func(...any) error) error) error {
			r.note(text, args)
			return query(text, args, row)
		})
	})
}

// A recordingSession notes every text of a transaction.
type recordingSession struct {
	session
	recorder *recorder
}

func (s recordingSession) exec(query string, args []any) (rows int64, err error) {
	s.recorder.note(query, args)
	return s.session.exec(query, args)
}

func (s recordingSession) read(query string, args []any, fn func(*sql.Rows) error) error {
	s.recorder.note(query, args)
	return s.session.read(query, args, fn)
}

func (s recordingSession) lockRow(query string, id any) error {
	s.recorder.note(query, []any{id})
	return s.session.lockRow(query, id)
}
