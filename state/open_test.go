package state

import (
	"path/filepath"
	"sync"
	"testing"
)

// Processes that open a new state at the same time all get it.
func TestProcessesOpenANewStateTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kbsync.db")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			s, err := Open(t.Context(), Options{Path: path})
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
}
