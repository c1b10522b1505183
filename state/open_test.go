package state

import (
	"sync"
	"testing"

	"github.com/kbsync/kbsync/internal/pgtest"
)

// Processes that open a new state at the same time all get it.
func TestProcessesOpenANewStateTogether(t *testing.T) {
	empty := func(t testing.TB) Options { return Options{Path: pgtest.Start(t).Database(t)} }
	for name, newState := range map[string]stateMaker{"sqlite": inFile, "postgres": empty} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := newState(t)
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					s, err := Open(t.Context(), opts)
					if err != nil {
						t.Error(err)
						return
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
		})
	}
}
