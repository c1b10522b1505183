package ingest

import (
	"sync"

	"github.com/kbsync/kbsync/state"
)

// A Gate keeps runs from claiming documents, for example while a scan records changes that its guards have not checked yet,
// or while a guard halts a sync. Requests that have begun go on. The zero value is open.
type Gate struct {
	mu   sync.RWMutex
	shut bool
}

// Shut shuts the gate. After it returns, no run claims a document until Open is called.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// Open opens the gate.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// IsShut reports whether the gate is shut. A nil gate is open.
func (g *Gate) IsShut() bool {
	if g == nil {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shut
}

// claim calls from unless the gate is shut. Shut waits until from returns.
func (g *Gate) claim(from func() ([]state.ClaimedDocument, error)) ([]state.ClaimedDocument, error) {
	if g == nil {
		return from()
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut {
		return nil, nil
	}
	return from()
}
