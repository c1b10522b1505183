package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/state"
)

// hexOf returns the hash in hexadecimal; empty if it is unknown.
func hexOf(sum state.SHA256) string {
	if sum == (state.SHA256{}) {
		return ""
	}
	return hex.EncodeToString(sum[:])
}

// stateCounts formats the number of documents in each state.
func stateCounts(documents map[state.DocumentState]int) string {
	var parts []string
	for _, st := range documentStates() {
		if n := documents[st]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+string(st))
		}
	}
	if len(parts) == 0 {
		return "no documents"
	}
	return strings.Join(parts, ", ")
}

// findSync finds a sync in the state by its name or its root.
func findSync(ctx context.Context, store *state.Store, nameOrRoot string) (state.Sync, error) {
	s, err := store.Syncs.Get(ctx, nameOrRoot)
	if !errors.Is(err, state.ErrNotFound) {
		return s, err
	}
	syncs, err := store.Syncs.All(ctx)
	if err != nil {
		return state.Sync{}, err
	}
	path, err := filepath.Abs(nameOrRoot)
	if err != nil {
		return state.Sync{}, err
	}
	var names []string
	for _, s := range syncs {
		if s.Root == path || s.Root == nameOrRoot {
			return s, nil
		}
		names = append(names, s.Name)
	}
	known := "it holds no sync yet"
	if len(names) > 0 {
		known = "it holds " + strings.Join(names, ", ")
	}
	return state.Sync{}, usageError(fmt.Sprintf("the state holds no sync %s; %s", console.Quoted(nameOrRoot), console.Printable(known)))
}

// documentStates returns the states in the order in which they are printed.
func documentStates() []state.DocumentState {
	return []state.DocumentState{
		state.Completed, state.Training, state.Pending, state.Uploading, state.Failed, state.Stuck, state.Uncertain, state.Skipped,
	}
}
