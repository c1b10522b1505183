package state

import (
	"context"
	"regexp"
	"runtime"
	"testing"
)

// A Boundary runs the transaction of a method, such as "Journal.Seal". It may fail instead, before or after that.
type Boundary func(method string, transact func() error) error

// Surround gives every transaction of the store's methods to around.
func Surround(s *Store, around Boundary) { s.backend = &surrounded{backend: s.backend, around: around} }

type surrounded struct {
	backend
	around Boundary
}

func (b *surrounded) update(ctx context.Context, fn func(*tx) error) error {
	return b.around(callingMethod(), func() error { return b.backend.update(ctx, fn) })
}

func (b *surrounded) updateLazily(ctx context.Context, fn func(*tx) error) error {
	return b.around(callingMethod(), func() error { return b.backend.updateLazily(ctx, fn) })
}

var exportedMethod = regexp.MustCompile(`/state\.\(\*([A-Z]\w*)\)\.([A-Z]\w*)`)

// callingMethod returns the innermost exported method on the stack.
func callingMethod() string {
	pcs := make([]uintptr, 50)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if m := exportedMethod.FindStringSubmatch(frame.Function); m != nil {
			return m[1] + "." + m[2]
		}
		if !more {
			return "?"
		}
	}
}

// NewFile and NewPostgres are the kinds of states of the tests.
func NewFile(t testing.TB) Options     { return inFile(t) }
func NewPostgres(t testing.TB) Options { return inPostgres(t) }

// EndLeases lets the leases of every process in a shared state run out, as if they had been killed long ago.
func EndLeases(ctx context.Context, s *Store) error {
	if !s.Shared() {
		return nil
	}
	return s.backend.update(ctx, func(t *tx) error {
		// A process has the sources that it asks for by a time of its own.
		for _, text := range []string{
			`UPDATE owners SET expires_at = 1`,
			`UPDATE contents SET next_poll = 1 WHERE next_poll <> 0 AND source_id > 0`,
			`UPDATE sources SET next_poll = 1 WHERE next_poll <> 0`,
		} {
			if _, err := t.exec(text); err != nil {
				return err
			}
		}
		return nil
	})
}
